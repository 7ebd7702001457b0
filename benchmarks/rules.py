"""What the shipped rules cost Prometheus and VictoriaMetrics that watch a thousand nodes, with a month of history."""

from __future__ import annotations

import itertools
import json
import os
import re
import shutil
import subprocess
import tempfile
import time
import urllib.request
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any

import yaml

from grafana.generate.recorded import seconds
from tests.support.patience import wait_for
from tests.support.program import free_port

from .engines import is_ready
from .fleet import CONTAINERS, GPUS, NODES, RULES, fleet, history
from .native import CannotMeasure
from .remote_write import send
from .table import quantile, show, verdict

SCRAPE_SECONDS = 15
GOALS = {"Prometheus": 0.07, "VictoriaMetrics": 0.05}
MEASURE_SECONDS = 360
DEAREST = 12
HISTORY_LINES = 100_000
"""Lines of history that VictoriaMetrics gets at once."""


def main() -> None:
    """Fill Prometheus, wait until every group was evaluated, print its tables. Takes about eight minutes."""
    _need("prometheus", "promtool")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        _write_blocks(folder, int(time.time()) - 600)
        with _running(_prometheus(folder), "/-/ready") as (url,):
            _report("Prometheus", *_measure(url, [url], _OfPrometheus(url)))


def victoria_metrics() -> None:
    """The same for VictoriaMetrics with vmalert, without alerts."""
    _need("victoria-metrics", "vmalert")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        _write_recording_rules(folder)
        with _running(_victoria_metrics(folder), "/health") as (url, vmalert):
            _import_history(url, int(time.time()) - 600)
            _report("VictoriaMetrics", *_measure(url, [url, vmalert], _OfVmalert(vmalert)))


def _need(*programs: str) -> None:
    for program in programs:
        if shutil.which(program) is None:
            package = "victoria-metrics" if program.startswith("v") else "prometheus"
            raise CannotMeasure(f"no {program}: apt-get install {package}")


def _write_blocks(folder: Path, end: int) -> None:
    text = folder / "history.om"
    with text.open("w", encoding="utf-8") as file:
        for name, group in itertools.groupby(sorted(history()), key=lambda row: row.name):
            file.write(f"# TYPE {name} gauge\n")
            for row in group:
                times = range(end - row.window, end, row.step)
                file.writelines(f"{name}{{{row.labels}}} {row.value} {at}\n" for at in times)
        file.write("# EOF\n")
    command = ["promtool", "tsdb", "create-blocks-from", "--max-block-duration=486h"]
    subprocess.run([*command, "openmetrics", str(text), str(folder / "data")], check=True, capture_output=True)
    text.unlink()


def _import_history(url: str, end: int) -> None:
    lines = (
        f"{row.name}{{{row.labels}}} {row.value} {at}000"
        for row in history()
        for at in range(end - row.window, end, row.step)
    )
    while batch := list(itertools.islice(lines, HISTORY_LINES)):
        body = "\n".join(batch).encode()
        urllib.request.urlopen(f"{url}/api/v1/import/prometheus", body, timeout=120).close()


def _write_recording_rules(folder: Path) -> None:
    """The groups without alerts, for which vmalert would need a notifier; Debian's knows no ``keep_firing_for``."""
    (folder / "rules").mkdir()
    for path in RULES.glob("*.yml"):
        groups = yaml.safe_load(path.read_text(encoding="utf-8"))["groups"]
        kept = [group for group in groups if all("record" in rule for rule in group["rules"])]
        if kept:
            (folder / "rules" / path.name).write_text(yaml.safe_dump({"groups": kept}), encoding="utf-8")


Commands = Sequence[tuple[str, list[str]]]
"""Address and command of each program."""


def _prometheus(folder: Path) -> Commands:
    address = f"127.0.0.1:{free_port()}"
    config = {"global": {"evaluation_interval": "1m"}, "rule_files": [f"{RULES}/*.yml"]}
    (folder / "prometheus.json").write_text(json.dumps(config))
    command = ["prometheus", f"--config.file={folder}/prometheus.json", f"--storage.tsdb.path={folder}/data"]
    command += ["--storage.tsdb.retention.time=45d", f"--web.listen-address={address}"]
    return [(address, [*command, "--web.enable-remote-write-receiver"])]


def _victoria_metrics(folder: Path) -> Commands:
    store, vmalert = f"127.0.0.1:{free_port()}", f"127.0.0.1:{free_port()}"
    flags = [f"-datasource.url=http://{store}", f"-remoteWrite.url=http://{store}", f"-rule={folder}/rules/*.yml"]
    return [
        (store, ["victoria-metrics", f"-storageDataPath={folder}/data", f"-httpListenAddr={store}"]),
        (vmalert, ["vmalert", *flags, f"-httpListenAddr={vmalert}"]),
    ]


@contextmanager
def _running(commands: Commands, ready: str) -> Iterator[list[str]]:
    """The addresses of these programs while they run."""
    started: list[subprocess.Popen[bytes]] = []
    try:
        for address, command in commands:
            started.append(subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL))
            wait_for(partial(is_ready, f"http://{address}{ready}"), command[0], 60.0)
        yield [f"http://{address}" for address, _ in commands]
    finally:
        for process in reversed(started):
            process.terminate()
            process.wait(60)


class Evaluations:
    """Seconds of evaluations, by group and its interval, and by rule where an engine says so."""

    def __init__(self) -> None:
        self.groups: defaultdict[tuple[str, float], list[float]] = defaultdict(list)
        self.rules: defaultdict[tuple[str, float], list[float]] = defaultdict(list)

    def look(self, since: float) -> None:
        """Add what was evaluated after a time and is not known yet."""
        raise NotImplementedError


class _OfPrometheus(Evaluations):
    def __init__(self, url: str) -> None:
        super().__init__()
        self._url = url
        self._seen: set[tuple[str, str]] = set()

    def look(self, since: float) -> None:
        for group in _get(f"{self._url}/api/v1/rules")["groups"]:
            key = (group["name"], group["lastEvaluation"])
            if key in self._seen or datetime.fromisoformat(group["lastEvaluation"]).timestamp() < since:
                continue
            self._seen.add(key)
            self.groups[group["name"], group["interval"]].append(group["evaluationTime"])
            for rule in group["rules"]:
                self.rules[rule["name"], group["interval"]].append(rule["evaluationTime"])


class _OfVmalert(Evaluations):
    """Means, because vmalert has sums and quantiles of unknown windows."""

    def __init__(self, url: str) -> None:
        super().__init__()
        self._url = url
        groups = [group for path in RULES.glob("*.yml") for group in yaml.safe_load(path.read_text())["groups"]]
        self._interval = {group["name"]: seconds(group["interval"]) for group in groups}
        self._before: dict[str, tuple[float, float]] | None = None

    def _totals(self) -> dict[str, tuple[float, float]]:
        text = _text(f"{self._url}/metrics")
        found = re.findall(r'vmalert_iteration_duration_seconds_(sum|count)\{.*?group="(.*?)".*?\} (\S+)', text)
        totals: defaultdict[str, dict[str, float]] = defaultdict(dict)
        for kind, group, value in found:
            totals[group][kind] = float(value)
        return {group: (own["sum"], own["count"]) for group, own in totals.items()}

    def look(self, since: float) -> None:
        totals = self._totals()
        if self._before is None:
            self._before = totals
        self.groups.clear()
        for group, (total, count) in totals.items():
            before, earlier = self._before.get(group, (0.0, 0.0))
            if count > earlier:
                number = round(count - earlier)
                self.groups[group, self._interval[group]] = [(total - before) / number] * number


def _measure(url: str, programs: Sequence[str], evaluations: Evaluations) -> tuple[Evaluations, int, int, float, float]:
    """Evaluations once all samples are there, series sent and recorded, CPUs in use, bytes resident."""
    own = list(fleet())
    now = time.time()
    backlog = [(age, int((now - age) * 1000)) for age in range(20 * SCRAPE_SECONDS, -1, -SCRAPE_SECONDS)]
    send(url, ((name, [(start + (300 - age) * growth, at) for age, at in backlog]) for name, start, growth in own))
    filled, used = time.time(), sum(map(_cpu_seconds, programs))
    evaluations.look(filled)
    newest = now
    while time.time() < filled + MEASURE_SECONDS:
        # four samples at a time: as many as from scraping, for a quarter of the work of making them
        time.sleep(max(0.0, newest + 4 * SCRAPE_SECONDS - time.time()))
        fresh = [newest + step * SCRAPE_SECONDS for step in range(1, 5)]
        samples = [(at - now + 300, int(at * 1000)) for at in fresh]
        send(url, ((name, [(start + age * growth, at) for age, at in samples]) for name, start, growth in own))
        newest = fresh[-1]
        evaluations.look(filled)
    cpu = (sum(map(_cpu_seconds, programs)) - used) / (time.time() - filled)
    recorded = _get(f"{url}/api/v1/query?query=count(%7B__name__=~%22.%2B:.%2B:.%2B%22%7D)")["result"]
    resident = sum(_process(program, "resident_memory_bytes") for program in programs)
    return evaluations, len(own), int(recorded[0]["value"][1]), cpu, resident


def _get(url: str) -> Any:
    return json.loads(_text(url))["data"]


def _text(url: str) -> str:
    with urllib.request.urlopen(url, timeout=60) as answer:
        return str(answer.read().decode())


def _cpu_seconds(url: str) -> float:
    return _process(url, "cpu_seconds_total")


def _process(url: str, name: str) -> float:
    lines = _text(f"{url}/metrics").splitlines()
    return float(next(line for line in lines if line.startswith(f"process_{name} ")).split()[1])


def _report(store: str, evaluations: Evaluations, count: int, recorded: int, cpu: float, resident: float) -> None:
    rows, share = [], 0.0
    for (name, interval), found in sorted(evaluations.groups.items()):
        median = quantile(found, 0.5)
        if "alerts" not in name:
            share += median / interval
        times = (f"{min(found):.2f}", f"{median:.2f}", f"{max(found):.2f}")
        rows.append((name, f"{interval:g}", str(len(found)), *times, f"{median / interval:.2%}"))
    head = ("group", "every, s", "evaluations", "least, s", "median, s", "most, s", "of interval")
    nodes = f"{NODES:,} nodes, {CONTAINERS} containers, {GPUS} GPUs each"
    show(f"{store}: {nodes}: {count:,} series, {recorded:,} recorded", head, rows)
    dearest = sorted(
        ((quantile(found, 0.5) / key[1], key[0]) for key, found in evaluations.rules.items()), reverse=True
    )
    if dearest:
        show("The dearest rules", ("rule", "of interval"), [(name, f"{part:.2%}") for part, name in dearest[:DEAREST]])
    print(f"all of {store}, receiving too: {cpu:.2f} CPUs, {resident / 2**30:.1f} GiB; load: {os.getloadavg()[1]:.1f}")
    goal = GOALS[store]
    print(f"goal: recording rules together below {goal:.0%} of their intervals: {share:.2%}, {verdict(share < goal)}")
