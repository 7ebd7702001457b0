"""Time and memory of ``advise`` and of ``report`` with 200 models of 30 days in a real Prometheus.

``python -m benchmarks.advise_speed [--copies 20] [--every 120] [--folder FOLDER]``: copies of the ten models of
`benchmarks.advice_fleet`, each in a namespace and on nodes of its own, written by remote write as a scrape every
``--every`` seconds and the recording rule of models' watts every minute would have. Debian's package prometheus.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import math
import os
import re
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from itertools import accumulate
from pathlib import Path
from typing import NamedTuple

from tests.support.patience import wait_for
from tests.support.program import free_port
from tests.support.stack import Server

from . import remote_write
from .advice_fleet import DAYS, START, STEP, Values, Written, counters, gauges
from .table import show, verdict

HOURS = 1
"""Written at once: a head of Prometheus takes no sample that is older than its newest by more."""
SECONDS_GOAL, MEMORY_GOAL = 20.0, 150.0
_LABEL = re.compile(r'(\w+)="([^"]*)"')


@contextlib.contextmanager
def prometheus(folder: Path) -> Iterator[str]:
    """A Prometheus that takes remote write, with its data in ``folder``."""
    (folder / "prometheus.yml").write_text("", encoding="utf-8")
    address = f"127.0.0.1:{free_port()}"
    command = ["prometheus", "--config.file=prometheus.yml", "--storage.tsdb.path=data"]
    command += [f"--web.listen-address={address}", "--web.enable-remote-write-receiver"]
    command += ["--storage.tsdb.retention.time=100y"]
    with (folder / "log").open("ab") as log, subprocess.Popen(command, cwd=folder, stdout=log, stderr=log) as process:
        try:
            wait_for(Server(f"http://{address}").is_ready, "Prometheus", 120.0)
            yield f"http://{address}"
        finally:
            process.terminate()


def _series(name: str, labels: str, copy: int) -> bytes:
    found = dict(_LABEL.findall(labels))
    for label in ("instance", "namespace", "uuid"):
        if label in found:
            found[label] += f"-{copy}"
    return remote_write.series(
        {"__name__": name, "job": "energy", **{key: value for key, value in found.items() if value}}
    )


def write(url: str, copies: int, every: int) -> int:
    """Write everything. Returns the number of series."""
    written = Written(0)
    grown = [(name, labels, [0.0, *accumulate(values)]) for name, labels, values in counters(written)]
    steady = [(name, labels, values) for name, labels, values in gauges(written)]
    recorded = []
    for name, labels, values in counters(written):
        if name == "energy_model_joules_total":
            kept = ",".join(part for part in labels.split(",") if not part.startswith("instance"))
            recorded.append(("model:energy_model_joules:rate5m", kept, [joules / STEP for joules in values]))
    everything = {
        copy: [[_series(name, labels, copy) for name, labels, _ in rows] for rows in (grown, steady, recorded)]
        for copy in range(copies)
    }
    for first in range(0, written.steps * STEP, HOURS * 3600):
        slow, fast = (range(first, first + HOURS * 3600, step) for step in (every, 60))
        times = [remote_write.stamps([START + second for second in each]) for each in (slow, fast)]
        parts: list[tuple[list[Values], list[bytes]]] = [
            ([_counted(values, slow) for *_, values in grown], times[0]),
            ([[_known(values[second // STEP]) for second in slow] for *_, values in steady], times[0]),
            ([[values[second // STEP] for second in fast] for *_, values in recorded], times[1]),
        ]
        for copy in range(copies):
            for series, (held, stamps) in zip(everything[copy], parts, strict=True):
                remote_write.send_many(url, zip(series, held, strict=True), stamps)
        print(f"\rwritten: {(first // 3600 + HOURS) / 24:.1f} of {DAYS} days", end="", flush=True)
    print()
    return copies * (len(grown) + len(steady) + len(recorded))


def _counted(held: Values, seconds: range) -> Values:
    found = []
    for second in seconds:
        step, rest = divmod(second, STEP)
        found.append(held[step] + (held[step + 1] - held[step]) * rest / STEP)
    return found


def _known(value: float) -> float:
    return 0.0 if math.isnan(value) else value


class Measured(NamedTuple):
    """Seconds of a command, CPU seconds of it and of Prometheus meanwhile, MiB of its resident memory, its output."""

    seconds: float
    cpu: float
    server_cpu: float
    memory: float
    output: str


def measure(url: str, command: str) -> Measured:
    """Run a command on 30 days."""
    words = [sys.executable, "-m", "exporter", command, "--prometheus.url", url, "--since", "30d"]
    words = [*words[:-1], _date(START), "--until", _date(START + DAYS * 86400), "--format", "json"]
    before, began = _cpu(url), time.monotonic()
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout
        out = process.stdout.read()
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode and process.stderr:
            raise SystemExit(process.stderr.read())
    seconds = time.monotonic() - began
    return Measured(seconds, usage.ru_utime + usage.ru_stime, _cpu(url) - before, usage.ru_maxrss / 1024, out)


def _cpu(url: str) -> float:
    with urllib.request.urlopen(f"{url}/metrics", timeout=60) as answer:
        text = answer.read().decode()
    found = re.search(r"^process_cpu_seconds_total ([0-9.e+]+)$", text, re.MULTILINE)
    return float(found[1]) if found else math.nan


def _date(unix: int) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(unix))


def main() -> int:
    """Write, measure, print. Returns the exit status: 1 if a goal is missed."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.advise_speed", description=__doc__)
    parser.add_argument("--copies", type=int, default=20, help="of the ten models")
    parser.add_argument("--every", type=int, default=120, help="seconds between two scrapes")
    parser.add_argument("--folder", type=Path, help="keep the data here, or take them from here")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = given.folder or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        is_there = (folder / "data").exists()
        with prometheus(folder) as url:
            if not is_there:
                print(f"{write(url, given.copies, given.every)} series")
            rows = []
            for command in ("advise", "report"):
                seconds, cpu, server, memory, out = measure(url, command)
                lines = len(json.loads(out)["recommended" if command == "advise" else "lines"])
                rows.append(
                    (command, *(f"{value:.1f}" for value in (seconds, cpu, server)), f"{memory:.0f}", str(lines))
                )
                if command == "advise":
                    met = seconds <= SECONDS_GOAL and memory <= MEMORY_GOAL
                    calm = cpu + server <= SECONDS_GOAL
            head = ("command", "s", "CPU s", "Prometheus's CPU s", "MiB", "lines")
            show(f"{10 * given.copies} models, {DAYS} days", head, rows)
    print(f"advise: {SECONDS_GOAL:.0f} s and {MEMORY_GOAL:.0f} MiB: {verdict(met)}; its CPU seconds: {verdict(calm)}")
    return 0 if met else 1


if __name__ == "__main__":
    sys.exit(main())
