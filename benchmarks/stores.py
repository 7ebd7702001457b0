"""What Prometheus and VictoriaMetrics make of containers that come and go, against the written truth.

``python -m benchmarks.stores [--minutes 12]``; needs Debian's packages prometheus and victoria-metrics. The exporter's
own ledger, sampler and HTTP server are scraped every 15 s by both, over the loopback address, while containers of 10 to
120 seconds in five namespaces start and end. Only the meter and the cgroups are written. Two queries are compared:
``increase()``, and the difference of the highest and the lowest value, which is not extrapolated.
"""

from __future__ import annotations

import argparse
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
from pathlib import Path

from exporter.config.value_types import Address
from exporter.exposition.metrics.render import Renderer
from exporter.exposition.status.history import History
from exporter.exposition.status.page import Page
from exporter.exposition.web.server import Server, ServerOptions
from exporter.host import Host
from exporter.records import CpuUse, Device, EnergyReading, GroupKey, GroupUse, Process, Reading, Workload
from exporter.sampling.sampler import Sampler, SamplerOptions
from exporter.service.endpoints import Endpoints
from exporter.service.scrapers import ScrapeLog
from exporter.workloads.protocol import Namer

from .table import show

COUNTER = "energy_container_joules_total"
SCRAPE_SECONDS = 15
TOTAL_GOAL, NAMESPACE_GOAL = 0.01, 0.03
PACKAGE = Device("package-0", "cpu", "written", "measured", "package-0", 64.0, max_watts=1e5)
QUERIES = {
    "max - min": "sum by (namespace) (max_over_time({0}[{1}]) - min_over_time({0}[{1}]))",
    "increase()": "sum by (namespace) (increase({0}[{1}]))",
}
"""The first has the goals: Prometheus extrapolates increase() by half a scrape interval beyond a series' end."""
NAMESPACES = ("team-a", "team-b", "team-c", "team-d", "team-e")


class Churn:
    """A package whose joules are 20 W for each busy CPU of containers that start and end at random, by ``seed``."""

    name = "written"

    def __init__(self, alive: int, seed: int = 1) -> None:
        self.truth: defaultdict[str, float] = defaultdict(float)
        self.containers = 0
        self.stopped = False
        self._alive = alive
        self._random = random.Random(seed)
        self._groups: dict[GroupKey, tuple[float, float]] = {}  # end, CPUs
        self._joules = 0.0
        self._at: float | None = None

    def read(self, now: float) -> Reading:
        """Let the time since the last read pass."""
        seconds = 0.0 if self._at is None else now - self._at
        self._at = now
        uses = []
        for key, (_, cpus) in self._groups.items():
            used = cpus * seconds
            uses.append(GroupUse(key, used, ()))
            self._joules += 20.0 * used
            self.truth[namespace(key)] += 20.0 * used
        ended = tuple([key for key, (end, _) in self._groups.items() if end <= now or self.stopped])
        for key in ended:
            del self._groups[key]
        started = []
        while len(self._groups) < self._alive and not self.stopped:
            key = GroupKey(f"/{self._random.choice(NAMESPACES)}/c{self.containers}", self.containers + 1)
            self._groups[key] = (now + self._random.uniform(10, 120), self._random.uniform(0.1, 2.0))
            started.append(key)
            self.containers += 1
        busy = sum(use.seconds for use in uses)
        cpu = CpuUse(now, seconds, busy, tuple(uses), 0.0, 0.0, tuple(started), ended)
        return Reading(meters=(EnergyReading(PACKAGE, now, self._joules, None),), cpu=cpu)

    def close(self) -> None:
        """Nothing is open."""


def namespace(group: GroupKey) -> str:
    """The namespace in a written cgroup's path."""
    return group.path.split("/")[1]


class Names(Namer):
    """``/NAMESPACE/NAME`` is a pod of that name."""

    def workload(self, group: GroupKey) -> Workload:
        name = group.path.rpartition("/")[2]
        return Workload(namespace(group), f"pod-{name}", "main", "kubernetes", f"{group.inode:064x}")

    def model(self, group: GroupKey | None, process: Process) -> None:
        return None


def query(base: str, expression: str) -> dict[str, float]:
    """Value by namespace ("" for a sum) of an instant query."""
    url = f"{base}/api/v1/query?{urllib.parse.urlencode({'query': expression})}"
    with urllib.request.urlopen(url, timeout=30) as answer:
        result = json.load(answer)["data"]["result"]
    return {sample["metric"].get("namespace", ""): float(sample["value"][1]) for sample in result}


def measure(minutes: float, alive: int) -> bool:
    """Run for ``minutes`` and print both stores' answers beside the truth. Returns whether the goals are met."""
    host, source, scrapes, stop = Host(), Churn(alive), ScrapeLog(), threading.Event()
    sampler = Sampler([source], Names(), host, SamplerOptions(), received_by_all=scrapes.received_by_all)
    renderer, page = Renderer(), Page(History(), "node", "/metrics")
    endpoints = Endpoints(lambda: sampler.snapshot, renderer.body, page, host.clock, scrapes)
    options = ServerOptions(listen=(Address("127.0.0.1", 0),))
    server = Server(endpoints.pages("/metrics"), endpoints.health(), options)
    ((_, port),) = server.start()
    with tempfile.TemporaryDirectory() as folder:
        config = Path(folder, "scrape.yml")
        job = {"job_name": "energy", "honor_labels": True, "static_configs": [{"targets": [f"127.0.0.1:{port}"]}]}
        config.write_text(json.dumps({"global": {"scrape_interval": f"{SCRAPE_SECONDS}s"}, "scrape_configs": [job]}))
        bases = {"Prometheus": "http://127.0.0.1:24103", "VictoriaMetrics": "http://127.0.0.1:24104"}
        stores = [
            ["prometheus", f"--config.file={config}", f"--storage.tsdb.path={folder}/p"],
            ["victoria-metrics", f"-promscrape.config={config}", f"-storageDataPath={folder}/v"],
        ]
        stores[0] += ["--web.listen-address=127.0.0.1:24103"]
        stores[1] += ["-httpListenAddr=127.0.0.1:24104", "-retentionPeriod=1", "-search.latencyOffset=0s"]
        running = [subprocess.Popen(c, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) for c in stores]
        thread = threading.Thread(target=sampler.run, args=(stop,), daemon=True)
        try:
            time.sleep(2 * SCRAPE_SECONDS)  # both scrape before the first container starts
            thread.start()
            time.sleep(60 * minutes)
            source.stopped = True
            time.sleep(3 * SCRAPE_SECONDS)  # the last ones are seen twice
            span = f"{int(60 * minutes + 6 * SCRAPE_SECONDS)}s"
            answers = {
                name: {store: query(base, text.format(COUNTER, span)) for store, base in bases.items()}
                for name, text in QUERIES.items()
            }
        finally:
            for process in running:
                process.terminate()
                process.wait()
            stop.set()
            server.stop()
    print(f"{source.containers} containers; goal {TOTAL_GOAL:.0%} in all, {NAMESPACE_GOAL:.0%} by namespace")
    met = [report(name, source, found) for name, found in answers.items()]
    return met[0]


def report(title: str, source: Churn, answers: dict[str, dict[str, float]]) -> bool:
    """Print truth and both stores' answers to a query by namespace. Returns whether the goals are met."""
    met, rows = True, []
    truth = {**source.truth, "all": sum(source.truth.values())}
    for name, joules in sorted(truth.items()):
        row = [name, f"{joules:.0f}"]
        for answer in answers.values():
            value = sum(answer.values()) if name == "all" else answer.get(name, 0.0)
            error = value / joules - 1
            met &= abs(error) <= (TOTAL_GOAL if name == "all" else NAMESPACE_GOAL)
            row += [f"{value:.0f}", f"{error:+.2%}"]
        rows.append(row)
    show(
        title,
        ["namespace", "truth J", *[text for store in answers for text in (store, "error")]],
        rows,
    )
    return met


def main() -> int:
    """Measure. Returns 1 if a goal is missed, 2 if a store is missing."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=12.0)
    parser.add_argument("--alive", type=int, default=20, help="containers at any time (default 20)")
    options = parser.parse_args()
    if missing := [name for name in ("prometheus", "victoria-metrics") if shutil.which(name) is None]:
        print(f"missing: apt-get install {' '.join(missing)}", file=sys.stderr)
        return 2
    return 0 if measure(options.minutes, options.alive) else 1


if __name__ == "__main__":
    sys.exit(main())
