"""What Prometheus and VictoriaMetrics make of containers that come and go, against the written truth.

``python -m benchmarks.stores [--minutes 60] [--folder FOLDER]``; needs Debian's packages prometheus and
victoria-metrics. The exporter's own ledger, sampler and HTTP server are scraped every 15 s by both, over the loopback
address, while containers of 10 to 120 seconds in five namespaces start and end. Only the meter and the cgroups are
written. Both evaluate the shipped recording rules. With ``--folder`` the stores are kept, and ``--ask FOLDER`` asks
them again.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import random
import shutil
import subprocess
import sys
import tempfile
import threading
import time
import urllib.parse
import urllib.request
from collections import defaultdict
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import NamedTuple

from exporter.config.value_types import Address
from exporter.exposition.metrics.render import Renderer
from exporter.exposition.status.history import History
from exporter.exposition.status.page import Page
from exporter.exposition.web.server import Server, ServerOptions
from exporter.host import Host
from exporter.records import (
    CpuUse,
    Device,
    EnergyReading,
    GroupKey,
    GroupUse,
    Model,
    Process,
    ProcessKey,
    ProcessUse,
    Reading,
    Workload,
)
from exporter.sampling.sampler import Sampler, SamplerOptions
from exporter.service.endpoints import Endpoints
from exporter.service.scrapers import ScrapeLog
from exporter.workloads.protocol import Namer
from grafana.generate import queries as q
from tests.support.patience import wait_for
from tests.support.program import free_port

from .table import show, verdict

SCRAPE_SECONDS = 15
LEAD_SECONDS = 390
"""Before the first container starts: the rules of runs and models count it from 0 if its node was scraped before."""
TAIL_SECONDS = 450
"""After the last container ended: its counter is exposed for five minutes, and recorded watts are of five minutes."""
WATTS_PER_CPU = 20.0
PACKAGE = Device("package-0", "cpu", "written", "measured", "package-0", 64.0, max_watts=1e5)
RULES = Path(__file__).resolve().parent.parent / "prometheus/rules"
RECORDING = ("nodes.yml", "workloads.yml", "models.yml")
"""The shipped rules behind the dashboards' kWh: recording rules only, so that vmalert needs no notifier."""
KINDS = ("train", "serve", "plain")
"""A pod of a namespace's training run, of its served model, or of no model."""
RUN = "sum by (run) (sum_over_time(run:energy_container_joules:difference4m[{}]))"
"""As run:energy_container_kwh:sum30d, which the dashboard of models shows."""
MODEL = "sum by (model_name) (sum_over_time(model:energy_model_watts:zero_filled[{}])) * 300"
"""As model:energy_model_kwh:sum30d."""
NODE = "sum(sum_over_time(node:energy_node_joules:rate5m[{}])) * 60"
LEVELS = (
    ("node", "", KINDS),
    ("container", "namespace", KINDS),
    ("model", "model_name", ("train", "serve")),
)
TOTAL_GOAL, PART_GOAL = 0.01, 0.03
NAMESPACES = ("team-a", "team-b", "team-c", "team-d", "team-e")


class Churn:
    """A package whose joules are 20 W for each busy CPU of containers that start and end at random, by ``seed``.

    ``alive`` is how many there are at any time from now on.
    """

    name = "written"

    def __init__(self, seed: int = 1) -> None:
        self.alive = 0
        self.truth: defaultdict[str, float] = defaultdict(float)
        self.containers = 0
        self._random = random.Random(seed)
        self._groups: dict[GroupKey, tuple[float, float, Process]] = {}  # end, CPUs
        self._joules = 0.0
        self._at: float | None = None

    def read(self, now: float) -> Reading:
        """Let the time since the last read pass."""
        seconds = 0.0 if self._at is None else now - self._at
        self._at = now
        uses = []
        for key, (_, cpus, process) in self._groups.items():
            used = cpus * seconds
            uses.append(GroupUse(key, used, (ProcessUse(process, used),)))
            self._joules += WATTS_PER_CPU * used
            self.truth["/".join(kind(key))] += WATTS_PER_CPU * used
        ended = [key for key, (end, *_) in self._groups.items() if end <= now or not self.alive]
        exited = tuple([self._groups.pop(key)[2].key for key in ended])
        started = []
        while len(self._groups) < self.alive:
            started.append(self._start(now))
        busy = sum(use.seconds for use in uses)
        cpu = CpuUse(now, seconds, busy, tuple(uses), 0.0, 0.0, tuple(started), tuple(ended), exited)
        return Reading(meters=(EnergyReading(PACKAGE, now, self._joules, None),), cpu=cpu)

    def close(self) -> None:
        """Nothing is open."""

    def _start(self, now: float) -> GroupKey:
        self.containers += 1
        number, choose = self.containers, self._random
        key = GroupKey(f"/{choose.choice(NAMESPACES)}/{choose.choice(KINDS)}/c{number}", number)
        process = Process(ProcessKey(number, number), "python3")
        self._groups[key] = (now + choose.uniform(10, 120), choose.uniform(0.1, 2.0), process)
        return key


def kind(group: GroupKey) -> list[str]:
    """Namespace and kind in a written cgroup's path."""
    return group.path.split("/")[1:3]


class Names(Namer):
    """``/NAMESPACE/KIND/NAME`` is a pod of that name, and of the namespace's run or model."""

    def workload(self, group: GroupKey) -> Workload:
        name = group.path.rpartition("/")[2]
        namespace, what = kind(group)
        owner = {"train": ("Job", f"run-{namespace}"), "serve": ("Deployment", f"server-{namespace}")}
        owner_kind, owner_name = owner.get(what, ("", ""))
        container_id = f"{group.inode:064x}"
        return Workload(
            namespace,
            f"pod-{name}",
            "main",
            "kubernetes",
            container_id,
            owner_kind=owner_kind,
            owner_name=owner_name,
        )

    def model(self, group: GroupKey | None, process: Process) -> Model | None:
        if group is None:
            return None
        namespace, what = kind(group)
        phase = {"train": "training", "serve": "inference"}.get(what)
        return Model(f"{what}-{namespace}", namespace, phase, "label") if phase else None


def record(folder: Path, minutes: float, alive: int) -> int:
    """Let both stores scrape the exporter for ``minutes``, and write the truth. Returns how many containers ran."""
    host, source, scrapes, stop = Host(), Churn(), ScrapeLog(), threading.Event()
    sampler = Sampler([source], Names(), host, SamplerOptions(), received_by_all=scrapes.received_by_all)
    renderer, page = Renderer(), Page(History(), "node", "/metrics")
    endpoints = Endpoints(lambda: sampler.snapshot, renderer.body, page, host.clock, scrapes)
    options = ServerOptions(listen=(Address("127.0.0.1", 0),))
    server = Server(endpoints.pages("/metrics"), endpoints.health(), options)
    ((_, port),) = server.start()
    thread = threading.Thread(target=sampler.run, args=(stop,), daemon=True)
    try:
        with stores(folder, port):
            thread.start()
            began = time.time()
            time.sleep(LEAD_SECONDS)
            source.alive = alive
            time.sleep(60 * minutes)
            source.alive = 0
            time.sleep(TAIL_SECONDS)
            ended = time.time()
    finally:
        stop.set()
        server.stop()
    truth = {"began": began, "ended": ended, "containers": source.containers, "joules": source.truth}
    (folder / "truth.json").write_text(json.dumps(truth))
    return source.containers


@contextlib.contextmanager
def stores(folder: Path, port: int | None = None) -> Iterator[dict[str, str]]:
    """Both stores on the data in ``folder``: name to address. With a port they scrape it and evaluate the rules."""
    job = {"job_name": "energy", "honor_labels": True, "static_configs": [{"targets": [f"127.0.0.1:{port}"]}]}
    scrape = {"scrape_configs": [job] if port else []}
    every = {"scrape_interval": f"{SCRAPE_SECONDS}s", "evaluation_interval": "1m"}
    rules = {"rule_files": [str(RULES / name) for name in RECORDING] if port else []}
    (folder / "prometheus.yml").write_text(json.dumps({"global": every, **scrape, **rules}))
    (folder / "scrape.yml").write_text(json.dumps({"global": {"scrape_interval": f"{SCRAPE_SECONDS}s"}, **scrape}))
    addresses = [f"127.0.0.1:{free_port()}" for _ in range(3)]
    prometheus, victoria, vmalert = addresses
    commands = [
        ["prometheus", f"--config.file={folder}/prometheus.yml", f"--storage.tsdb.path={folder}/p"],
        ["victoria-metrics", f"-promscrape.config={folder}/scrape.yml", f"-storageDataPath={folder}/v"],
    ]
    commands[0] += [f"--web.listen-address={prometheus}"]
    commands[1] += [f"-httpListenAddr={victoria}", "-retentionPeriod=1", "-search.latencyOffset=0s"]
    if port:
        alert = ["vmalert", *(f"-rule={RULES / name}" for name in RECORDING), f"-httpListenAddr={vmalert}"]
        alert += [f"-datasource.url=http://{victoria}", f"-remoteWrite.url=http://{victoria}"]
        commands.append(alert)
    running: list[subprocess.Popen[bytes]] = []
    with (folder / "log").open("ab") as log:
        try:
            for command, address in zip(commands, addresses, strict=False):
                running.append(subprocess.Popen(command, stdout=log, stderr=log))
                wait_for(partial(is_ready, f"http://{address}/-/ready"), command[0], 60.0)
            yield {"Prometheus": f"http://{prometheus}", "VictoriaMetrics": f"http://{victoria}"}
        finally:
            for process in reversed(running):
                process.terminate()
                process.wait()


def is_ready(url: str) -> bool:
    """Whether something answers there with 200."""
    try:
        with urllib.request.urlopen(url, timeout=5):
            return True
    except OSError:
        return False


def ask(folder: Path) -> bool:
    """Start both stores on what they recorded, and print their answers beside the truth. Returns whether goals are met.

    A query with a goal is one that the documents or a dashboard give for a bill.
    """
    truth = json.loads((folder / "truth.json").read_text())
    span, at = f"{int(truth['ended'] - truth['began']) + 2 * SCRAPE_SECONDS}s", truth["ended"]
    print(f"{truth['containers']} containers in {span}; goals {TOTAL_GOAL:.0%} in all, {PART_GOAL:.0%} for each")
    met = True
    with stores(folder) as bases:
        for question in questions(span):
            answers = {store: query(base, question.expression, at) for store, base in bases.items()}
            met &= report(question, question.truth(truth["joules"]), answers) or not question.judged
    return met


class Question(NamedTuple):
    """An expression that gives joules by the label ``by``, and the truth of the namespaces and kinds of pods."""

    title: str
    expression: str
    by: str
    kinds: tuple[str, ...] = KINDS
    judged: bool = True

    def truth(self, joules: Mapping[str, float]) -> dict[str, float]:
        """Joules by the label, of the pods of these kinds."""
        found: defaultdict[str, float] = defaultdict(float)
        for name, amount in joules.items():
            namespace, what = name.split("/")
            label = {"model_name": f"{what}-{namespace}", "run": f"run-{namespace}", "namespace": namespace}
            if what in self.kinds:
                found[label.get(self.by, "node")] += amount
        return dict(found)


def questions(span: str) -> Iterator[Question]:
    """`increase()`, and the kWh of the shipped dashboards and rules, in joules over ``span``."""
    for level, by, kinds in LEVELS:
        counter = f"energy_{level}_joules_total"
        yield Question(f"{level}: increase()", f"sum by ({by}) (increase({counter}[{span}]))", by, kinds, judged=False)
        shown = q.kwh(level, by).replace("$__range", span).replace(f"{{{q.NODE}}}", "")
        yield Question(f"{level}: the dashboards' kWh", f"{shown} * {q.KWH:g}", by, kinds)
    yield Question("run: the dashboards' kWh", RUN.format(span), "run", ("train",))
    yield Question("model: recorded watts", MODEL.format(span), "model_name", ("train", "serve"))
    yield Question("node: recorded watts", NODE.format(span), "", KINDS)


def query(base: str, expression: str, at: float) -> dict[str, float]:
    """Value by the one label that an instant query keeps; without one it is called "node"."""
    url = f"{base}/api/v1/query?{urllib.parse.urlencode({'query': expression, 'time': at})}"
    with urllib.request.urlopen(url, timeout=60) as answer:
        result = json.load(answer)["data"]["result"]
    return {next(iter(sample["metric"].values()), "node"): float(sample["value"][1]) for sample in result}


def report(question: Question, truth: dict[str, float], answers: dict[str, dict[str, float]]) -> bool:
    """Print truth and both stores' answers, and the errors. Returns whether the goals are met."""
    met, rows = True, []
    whole = {"all": sum(truth.values())} if len(truth) > 1 else {}
    for name, joules in (*sorted(truth.items()), *whole.items()):
        row = [name, f"{joules:.0f}"]
        for answer in answers.values():
            value = sum(answer.values()) if name == "all" else answer.get(name, 0.0)
            error = value / joules - 1
            met &= abs(error) <= (PART_GOAL if name in truth and whole else TOTAL_GOAL)
            row += [f"{value:.0f}", f"{error:+.2%}"]
        rows.append(row)
    judgement = f", {verdict(met)}" if question.judged else ""
    columns = [text for store in answers for text in (store, "error")]
    show(question.title + judgement, [question.by or "node", "truth J", *columns], rows)
    return met


def main() -> int:
    """Measure. Returns 1 if a goal is missed, 2 if a store is missing."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=60.0)
    parser.add_argument("--alive", type=int, default=20, help="containers at any time (default 20)")
    parser.add_argument("--folder", type=Path, help="keep the stores there")
    parser.add_argument("--ask", type=Path, help="ask the stores that an earlier run kept")
    options = parser.parse_args()
    if missing := [name for name in ("prometheus", "victoria-metrics") if shutil.which(name) is None]:
        print(f"missing: apt-get install {' '.join(missing)}", file=sys.stderr)
        return 2
    if options.ask:
        return 0 if ask(options.ask) else 1
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.folder or Path(temporary)
        folder.mkdir(exist_ok=True)
        record(folder, options.minutes, options.alive)
        return 0 if ask(folder) else 1


if __name__ == "__main__":
    sys.exit(main())
