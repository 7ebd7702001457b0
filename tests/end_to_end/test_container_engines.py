"""Container names from the sockets of Docker and Podman, end to end, and names crafted to break a scrape."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import pytest
from prometheus_client.metrics_core import Metric
from prometheus_client.openmetrics import parser as openmetrics

from tests.support.fake_engine import FakeEngine
from tests.support.kubernetes_node import NAMESPACE, Node, container_id
from tests.support.live import BUSY, OPENMETRICS, Exporter, Scrape, Tree, tree
from tests.support.patience import wait_for

JOULES = "energy_container_joules_total"
MODEL_JOULES = "energy_model_joules_total"
PROMTOOL = shutil.which("promtool")


class Machine(Node):
    """A node that also runs Docker and Podman."""

    def __init__(self, folder: Path, cgroups: Tree) -> None:
        super().__init__(folder, cgroups)
        self.docker = FakeEngine(folder / "docker.sock")
        self.podman = FakeEngine(folder / "podman.sock", podman=True)

    @property
    def flags(self) -> list[str]:
        kept = [flag for flag in super().flags if ".socket=" not in flag]
        return [*kept, f"--docker.socket={self.docker.path}", f"--podman.socket={self.podman.path}"]

    def close(self) -> None:
        super().close()
        self.docker.close()
        self.podman.close()


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[Machine]:
    with tree() as cgroups:
        made = Machine(tmp_path, cgroups)
        made.server.add(made.pod("first"))
        yield made
        made.close()


def docker_group(identity: str) -> str:
    return f"system.slice/docker-{identity}.scope"


def podman_group(identity: str, pod: str = "") -> str:
    within = f"machine.slice/machine-libpod_pod_{pod}.slice" if pod else "machine.slice"
    return f"{within}/libpod-{identity}.scope/container"


def shown(exporter: Exporter, **labels: str) -> bool:
    return exporter.scrape().total(JOULES, component="cpu", mode="active", **labels) > 0


def test_containers_have_the_names_of_their_engines(machine: Machine) -> None:
    ids = {name: container_id(name) for name in ("web", "db", "worker", "late", "shop")}
    machine.podman.make_pod(ids["shop"], "shop")
    machine.docker.run(ids["web"], "web", Image="nginx:1.29", Labels={"team": "search"})
    machine.podman.run(ids["db"], "db", Image="postgres:18")
    machine.podman.run(ids["worker"], "worker", pod=ids["shop"])
    machine.tree.start(docker_group(ids["web"]))
    machine.tree.start(podman_group(ids["db"]))
    machine.tree.start(podman_group(ids["worker"], ids["shop"]))
    exporter, auditor = machine.watch("--kubernetes.labels=team")
    rows = {
        "web": {"namespace": "", "pod": "", "container": "web", "runtime": "docker"},
        "db": {"namespace": "", "pod": "", "container": "db", "runtime": "podman"},
        "worker": {"namespace": "", "pod": "shop", "container": "worker", "runtime": "podman"},
    }
    for name, row in rows.items():
        wait_for(lambda row=row: shown(exporter, **row), f"the name of {name}")  # type: ignore[misc]
    scrape = exporter.scrape()
    assert scrape.info(**rows["web"])["image"] == "nginx:1.29"
    assert scrape.info(**rows["web"])["label_team"] == "search"
    assert scrape.info(**rows["db"])["image"] == "localhost/postgres:18"
    assert scrape.info(**rows["worker"])["container_id"] == ids["worker"]

    machine.tree.start(docker_group(ids["late"]))
    wait_for(lambda: exporter.scrape().total("energy_unnamed_joules") > 0, "joules without a name")
    machine.docker.run(ids["late"], "late")
    wait_for(lambda: shown(exporter, container="late", runtime="docker"), "the late name")
    machine.docker.rename(ids["web"], "frontend")
    wait_for(lambda: shown(exporter, container="frontend", runtime="docker"), "the new name")
    before = scrape.total(JOULES, **rows["web"])
    scrape = exporter.scrape()
    assert not scrape.find(JOULES, **rows["web"])
    assert scrape.total(JOULES, container="frontend") > before, "all its joules came along"
    auditor.check()
    assert {seen[2] for seen in auditor.seen if seen[3] in ("docker", "podman")} == {
        *("web", "db", "worker", "late", "frontend"),
        "",  # the pod's own group
    }


# --- hostile names --------------------------------------------------------------------------------------

EVIL = {
    "newline": 'a\nb 1\n# TYPE energy_evil counter\nenergy_evil{x="',
    "quotes": 'a"} 1e9 "b\\',
    "long": "m" * 4000,
    "as long": "m" * 3999 + "n",
    "bidi": "\u202egpj.exe\u2066\u200f",
    "control": "\x00\x1b[2J\x7f\x85\u2028",
    "surrogate": "\ud800half",
    "percent": "100%s%d{}%",
}


def hostile_pods(machine: Machine) -> list[str]:
    """Pods with such text in every possible field; returns their names."""
    names = []
    for number, (kind, text) in enumerate(EVIL.items()):
        pod = machine.pod(
            f"pod-{number}",
            owner=("Job", text),
            labels={"team": text, f"odd-{number}": text},
            annotations={"ai-energy-exporter/model-name": text},
        )
        pod["spec"]["containers"][0]["image"] = text
        machine.run(pod)
        machine.server.add(pod)
        names.append(f"pod-{number}")
        identity = container_id(kind)
        machine.docker.run(identity, text, Image=text, Labels={"team": text, text: text})
        machine.tree.start(docker_group(identity))
    return names


def hostile_host(machine: Machine) -> None:
    """Groups and processes with such names; the kernel only forbids "/" and newline."""
    for name in (b'"evil\xff\xfe.service', b"back\\slash.service", b"\xe2\x80\xae.scope"):
        machine.tree.start(f"system.slice/{os.fsdecode(name)}")
    script = machine.folder / "vllm"
    script.write_text(f"import sys\nopen('/proc/self/comm', 'wb').write(sys.argv[3].encode()[:15])\n{BUSY}")
    for number, text in enumerate(EVIL.values()):
        word = text.replace("\0", "").encode("utf-8", "surrogatepass")
        machine.tree.start(
            f"system.slice/server-{number}.service",
            [sys.executable, str(script), "serve", os.fsdecode(word), f'"{number}\n}}'],
        )


def test_hostile_names_never_break_a_scrape(machine: Machine) -> None:
    """Faults 45 and 46: in labels, annotations, images, owners, names, command lines, units; none affects another."""
    pods = hostile_pods(machine)
    hostile_host(machine)
    labels = ["team", *(f"odd-{number}" for number in range(len(EVIL)))]
    exporter, auditor = machine.watch(*(f"--kubernetes.labels={label}" for label in labels), "--process.top=100")

    def all_exported() -> bool:
        scrape = exporter.scrape()
        named = {own["pod"] for own, joules in scrape.find(JOULES, namespace=NAMESPACE, container="main") if joules > 0}
        docker = [own for own, _ in scrape.find("energy_container_info", runtime="docker") if own["label_team"]]
        models = {own["namespace"] for own, _ in scrape.find(MODEL_JOULES)}
        return named >= set(pods) and len(docker) == len(EVIL) and models == {"", NAMESPACE}

    wait_for(all_exported, "every name")
    auditor.check()
    text = exporter.body()
    scrape = Scrape.parse(text)
    for name, own in scrape:
        assert name.startswith(("energy_", "process_", "python_")), name
        for label, value in own:
            assert len(value) <= 256, (name, label)
            assert all(letter.isprintable() or letter in "\n\ufffd" for letter in value), (name, label, value)
    docker = {own["container"] for own, _ in scrape.find("energy_container_info", runtime="docker")}
    assert docker >= {EVIL["newline"], EVIL["quotes"], EVIL["percent"]}, "unusual but valid names are unchanged"
    assert len(docker) == len(EVIL), "names that differ beyond the cut stay different"
    parse: Callable[[str], Iterable[Metric]] = openmetrics.text_string_to_metric_families
    families = {family.name for family in parse(exporter.body(OPENMETRICS))}
    assert all(family.startswith(("energy_", "process_", "python_")) for family in families)
    assert "energy_evil" not in families
    if PROMTOOL is not None:
        done = subprocess.run([PROMTOOL, "check", "metrics"], input=text.encode(), capture_output=True, check=False)
        complaints = done.stdout.decode() + done.stderr.decode()
        assert complaints == ""


def test_secrets_are_never_exported(machine: Machine) -> None:
    """Fault 47: command lines and variables are evidence for a model; no other word of them is exported or logged."""
    secret = "sk-proj-0123456789abcdefSECRET"
    script = machine.folder / "vllm"
    script.write_text(BUSY)
    pod = machine.pod("server", owner=("ReplicaSet", "server"))
    container = pod["spec"]["containers"][0]
    container["args"] = ["--api-key", secret]
    container["env"] = [{"name": "HF_TOKEN", "value": secret}]
    serve = ["/usr/bin/env", f"HF_TOKEN={secret}", sys.executable, str(script), "serve"]
    machine.run(pod, command=[*serve, "Qwen/Qwen3-8B", "--api-key", secret])
    machine.server.add(pod)
    identity = container_id("keyed")
    machine.docker.run(identity, "keyed", Env=[f"OPENAI_API_KEY={secret}"], Labels={"other": secret})
    machine.tree.start(docker_group(identity), [*serve, "https://user:hunter2-SECRET@models.example/llama-7b"])
    exporter, auditor = machine.watch("--log.level=debug", "--kubernetes.labels=team")
    wait_for(lambda: exporter.scrape().find(MODEL_JOULES, model_name="Qwen/Qwen3-8B"), "the model")
    wait_for(lambda: exporter.scrape().find(MODEL_JOULES, model_name="llama-7b"), "the other model")
    auditor.check()
    assert "SECRET" not in exporter.body() + "".join(exporter.log)
