"""The cluster as an operator has it: kubectl, the exporter's pods, and a scrape of them each second."""

from __future__ import annotations

import contextlib
import json
import shutil
import threading
import time
import urllib.error
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from tests.support.live import Audit, Meter, Scrape
from tests.support.nvml.control import FakeDriver, build
from tests.support.repository import REPOSITORY

from .machine import cover_classes
from .node import Node, fetch, limit, wait_for
from .programs import EXPORTER
from .workloads import NAMESPACE, Object, running

OURS = "ai-energy-exporter"
STATE = Path("/var/lib/ai-energy-exporter")
JOULES = "energy_container_joules_total"
SLOW_SECONDS = 90.0
SCRAPE_SECONDS = 1.0
IDLE_WATTS = 60.0
"""Of a card as the scripted driver has it."""

_CONFIG = """log.format: json
# A virtual machine's RAPL is its host's; the meter that the check has written is this machine's own.
attribution.cpu-scope: machine
kubernetes.labels: app
impact.price: 0.25
impact.currency: EUR
"""


class Cluster:
    """A node with meters and cards, on which the exporter is deployed from ``mine``, a folder as the docs have it."""

    def __init__(self, node: Node, programs: Path) -> None:
        self.node, self.programs = node, programs
        self.mine = node.scratch / "mine"
        self.meter = Meter(cover_classes(node.scratch))
        folder = node.scratch / "nvml"
        self.driver = FakeDriver(build(folder), folder)
        self.whole = [self.driver.add_gpu() for _ in range(2)]
        self.shared = self.driver.add_gpu()
        self.cut = self.driver.add_gpu(mig=["1g.10gb", "2g.20gb"])
        self.recorded: dict[str, Any] = {}
        self.audit = Audit(given="energy_node_joules_total")
        self.scrapes = 0
        self.unanswered = 0
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._work, daemon=True)

    @property
    def devices(self) -> dict[str, list[str]]:
        """What the device plugin offers, by resource."""
        return {
            "nvidia.com/gpu": [gpu.uuid for gpu in self.whole],
            "nvidia.com/gpu.shared": [f"{self.shared.uuid}::{number}" for number in range(4)],
            "nvidia.com/mig-1g.10gb": [self.cut.mig[0].uuid],
            "nvidia.com/mig-2g.20gb": [self.cut.mig[1].uuid],
        }

    def close(self) -> None:
        """No more scrapes."""
        self._over.set()
        if self._thread.is_alive():
            self._thread.join()
        self.meter.stop()
        self.driver.close()

    # --- the exporter ---------------------------------------------------------------------------------

    def write_kustomization(self, tag: str = "0.1.0", base: str = "base", daemonset: str = OURS) -> None:
        """A folder as docs/deploy-kubernetes.md has it, with patches for the cards of this node."""
        self.mine.mkdir(exist_ok=True)
        shutil.copytree(REPOSITORY / "deploy/kubernetes", self.mine / "kubernetes", dirs_exist_ok=True)
        cards = {
            "volumes": [{"name": "nvml", "hostPath": {"path": str(self.node.scratch / "nvml")}}],
            "containers": [
                {
                    "name": "exporter",
                    "env": [{"name": name, "value": value} for name, value in self.driver.environment().items()],
                    "volumeMounts": [{"name": "nvml", "mountPath": str(self.node.scratch / "nvml")}],
                }
            ],
        }
        patch = _object("apps/v1", "DaemonSet", {"spec": {"template": {"spec": cards}}})
        patch["metadata"]["name"] = daemonset
        documents = {
            "config.yaml": _object("v1", "ConfigMap", {"data": {"config.yaml": _CONFIG}}),
            "cards.yaml": patch,
            "kustomization.yaml": {
                "bases": [f"kubernetes/{base}"],
                "patchesStrategicMerge": ["config.yaml", "cards.yaml"],
                "images": [{"name": EXPORTER, "newName": f"docker.io/library/{EXPORTER}", "newTag": tag}],
            },
        }
        for name, document in documents.items():
            (self.mine / name).write_text(json.dumps(document))

    def deploy(self) -> None:
        """Apply and wait for the rollout, as the docs say."""
        self.node.kubectl("apply", "--kustomize", str(self.mine))
        self.rolled_out()

    def remove(self) -> None:
        """Delete what was applied."""
        self.node.kubectl("delete", "--kustomize", str(self.mine), f"--timeout={limit(60):.0f}s")

    def rolled_out(self) -> None:
        """Until the DaemonSet is rolled out and its pod ready."""
        self.node.kubectl("-n", OURS, "rollout", "status", "daemonset", f"--timeout={limit(60):.0f}s")
        wait_for(lambda: self.exporter() is not None, "the exporter's pod", SLOW_SECONDS, every_seconds=0.2)

    def exporter(self) -> Object | None:
        """The pod of the exporter that is ready and not about to end."""
        for pod in self.node.get("pods", "-n", OURS)["items"]:
            conditions = {each["type"]: each["status"] for each in pod["status"].get("conditions", ())}
            if conditions.get("Ready") == "True" and "deletionTimestamp" not in pod["metadata"]:
                return dict(pod)
        return None

    def address(self) -> str:
        """The address of the exporter's pod."""
        pod = self.exporter()
        assert pod is not None
        return str(pod["status"]["podIP"])

    def exec(self, *command: str, check: bool = True) -> str:
        """What a command prints in the exporter's pod."""
        return self.node.kubectl("-n", OURS, "exec", f"daemonset/{OURS}", "--", *command, check=check)

    def log(self) -> list[dict[str, Any]]:
        """Lines that the exporter has logged."""
        text = self.node.kubectl("-n", OURS, "logs", f"daemonset/{OURS}")
        return [json.loads(line) for line in text.splitlines() if line.startswith("{")]

    def scrape(self) -> Scrape:
        """One scrape of the exporter, as soon as it answers."""

        def attempt() -> Scrape | None:
            with contextlib.suppress(OSError):
                return Scrape.parse(fetch(self._address()))
            self._url = ""
            return None

        found = wait_for(attempt, "a scrape", SLOW_SECONDS, every_seconds=0.2)
        assert found is not None
        return found

    def until(self, condition: Callable[[Scrape], Any], what: str, seconds: float = SLOW_SECONDS) -> Any:
        """Scrape until the condition holds; returns what it returned."""
        return wait_for(lambda: condition(self.scrape()), what, seconds, every_seconds=0.5)

    # --- pods -----------------------------------------------------------------------------------------

    def pods(self, space: str = NAMESPACE) -> list[Object]:
        """All pods of a namespace."""
        return list(self.node.get("pods", "-n", space)["items"])

    def wait_for_running(self, number: int, space: str = NAMESPACE) -> list[tuple[Object, Object]]:
        """Until so many containers run."""
        return wait_for(
            lambda: found if len(found := running(self.pods(space))) >= number else [],
            f"{number} containers",
            SLOW_SECONDS,
            every_seconds=0.5,
        )

    def wait_for_job(self, name: str, completions: int) -> None:
        """Until so many of its pods have succeeded."""
        wait_for(
            lambda: self.node.get("job", name, "-n", NAMESPACE)["status"].get("succeeded") == completions,
            f"the end of {completions} pods",
            240,
            every_seconds=1,
        )

    # --- all along ------------------------------------------------------------------------------------

    def watch(self) -> None:
        """Begin to scrape each second, and to hold each scrape against the promises."""
        self._thread.start()

    @property
    def joules(self) -> float:
        """Joules of the node in the last scrape."""
        return self._joules

    def check_audit(self) -> None:
        """Nothing was lost, twice, or less than before in any scrape so far, and there are new ones."""
        taken = self.scrapes
        wait_for(lambda: self.scrapes > taken + 1 or self.audit.broken, "a scrape", SLOW_SECONDS, every_seconds=0.2)
        assert not self.audit.broken, self.audit.broken[:5]

    _url = ""
    _joules = 0.0

    def _address(self) -> str:
        if not self._url:
            pod = self.exporter()
            if pod is None:
                raise urllib.error.URLError("no exporter")
            self._url = f"http://{pod['status']['podIP']}:9400/metrics"
        return self._url

    def _work(self) -> None:
        began = time.monotonic()
        while not self._over.wait(SCRAPE_SECONDS):
            for gpu in self.driver.gpus:
                gpu.energy_joules = (time.monotonic() - began) * IDLE_WATTS
            try:
                scrape = Scrape.parse(fetch(self._address()))
            except (OSError, AssertionError):  # it restarts, or the API server does
                self.unanswered += 1
                self._url = ""
                continue
            self.audit.hear(scrape)
            self._joules = scrape.total("energy_node_joules_total")
            self.scrapes += 1


@contextlib.contextmanager
def cluster(programs: Path, scratch: Path) -> Iterator[Cluster]:
    """A node that is ready, ended with everything on it."""
    node = Node(programs, scratch)
    made = Cluster(node, programs)
    try:
        node.boot(made.devices)
        yield made
    finally:
        made.close()
        with contextlib.suppress(Exception):
            if "kubelet" in node.processes:
                node.stop("kubelet")
            node.end_containers()
        node.close()


def _object(version: str, kind: str, content: Object) -> Object:
    return {"apiVersion": version, "kind": kind, "metadata": {"name": OURS, "namespace": OURS}, **content}
