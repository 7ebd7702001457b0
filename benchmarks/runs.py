"""What ``ai-energy-exporter run`` costs: repeats of a command with and without it, in turns, as of ``perf stat -r``."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import NamedTuple

from tests.support.live import Exporter, Meter

from .table import show

ROUNDS = 9
SPIN = "import time\nend = time.process_time() + 2\nwhile time.process_time() < end: pass\n"
MAKEFILE = "all: {names}\nt%:\n\t@/bin/true; n=0; while [ $$n -lt 2000 ]; do n=$$((n+1)); done\n"
SHORT_PROCESSES = 300
LENGTHS = {"short": 5, "medium": 20, "long": 60}
"""Seconds of commands whose joules are compared."""

_PUBLISHED_SECONDS = 240.0
"""How long a counter may be at 0: until whoever seems to scrape regularly has it, or has missed three scrapes."""

BURSTS = """
import sys, time
end = time.monotonic() + float(sys.argv[1])
while time.monotonic() < end:
    until = time.process_time() + 0.05
    while time.process_time() < until: pass
    time.sleep(0.05)
"""


class Cost(NamedTuple):
    """Wall clock and CPU time of a command and of all that it started, in seconds."""

    wall: float
    cpu: float


class Round(NamedTuple):
    """The command by itself, the whole run, and the command as the run has timed it."""

    bare: Cost
    run: Cost
    inner: Cost


def main() -> None:
    """Measure three commands, compare joules, and print two tables."""
    _agreement()
    with tempfile.TemporaryDirectory() as folder:
        makefile = Path(folder, "Makefile")
        makefile.write_text(MAKEFILE.format(names=" ".join(f"t{number}" for number in range(SHORT_PROCESSES))))
        spin = Path(folder, "spin.py")
        spin.write_text(SPIN)
        commands = {
            "true": ["true"],
            "2 s of one CPU": [sys.executable, "-S", "-E", str(spin)],
            f"make of {2 * SHORT_PROCESSES} processes": ["make", "-s", "-j2", "-f", str(makefile)],
        }
        rows = [_row(name, [_round(command, folder) for _ in range(ROUNDS)]) for name, command in commands.items()]
    show(
        f"Run: medians of {ROUNDS} rounds in turns, in seconds",
        ("command", "bare", "bare, CPU", "in a run", "in a run, CPU", "x CPU", "run adds", "run's own CPU"),
        rows,
    )


def _agreement() -> None:
    """Joules of a run that reads the meter itself, and of the exporter's row of it, at ticks of their own."""
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        sysfs = Path(folder, "sys")
        meter = Meter(sysfs)
        shared = ["--path.sysfs", str(sysfs), "--path.cgroupfs", "/sys/fs/cgroup"]
        shared += ["--attribution.cpu-scope", "machine", "--idle.watts", "package-0=0"]
        exporter = Exporter(*shared, "--sample.interval", "1s", "--no-source.regions")
        try:
            exporter.scrape()
            for name, length in LENGTHS.items():
                found = Path(folder, f"{name}.json")
                words = [sys.executable, "-m", "exporter", "run", f"--exporter.url={exporter.url}", *shared]
                words += ["--quiet", "--name", name, "--json", str(found)]
                subprocess.run([*words, "--", sys.executable, "-S", "-c", BURSTS, str(length)], check=True)
                until = time.monotonic() + _PUBLISHED_SECONDS
                time.sleep(3.0)
                scrape = exporter.scrape()
                while not scrape.total("energy_container_joules_total", container=name) and time.monotonic() < until:
                    time.sleep(1.0)
                    scrape = exporter.scrape()
                run = json.loads(found.read_text())["joules"]
                row = scrape.total("energy_container_joules_total", container=name)
                rows.append((f"{length}", f"{run:.1f}", f"{row:.1f}", f"{100.0 * (run / row - 1.0):+.2f}"))
        finally:
            exporter.end()
            meter.stop()
    show(
        "A run and an exporter that take samples each second, at moments of their own; a written meter",
        ("seconds", "run, J", "exporter, J", "difference, %"),
        rows,
    )


def _row(name: str, rounds: Sequence[Round]) -> tuple[str, ...]:
    bare, bare_cpu = median(each.bare.wall for each in rounds), median(each.bare.cpu for each in rounds)
    inner, inner_cpu = median(each.inner.wall for each in rounds), median(each.inner.cpu for each in rounds)
    added = median(each.run.wall - each.inner.wall for each in rounds)
    own = median(each.run.cpu - each.inner.cpu for each in rounds)
    values = (bare, bare_cpu, inner, inner_cpu)
    ratio = f"{inner_cpu / bare_cpu:.3f}" if bare_cpu >= 0.1 else "-"
    return (name, *(f"{value:.3f}" for value in values), ratio, f"{added:.2f}", f"{own:.2f}")


def _round(command: Sequence[str], folder: str) -> Round:
    bare = _timed(command)
    found = Path(folder, "run.json")
    words = [sys.executable, "-m", "exporter", "run", "--exporter.url=", "--quiet", "--json", str(found)]
    whole = _timed([*words, "--", *command])
    written = json.loads(found.read_text())
    return Round(bare, whole, Cost(written["duration_seconds"], written["cpu_seconds"]))


def _timed(command: Sequence[str]) -> Cost:
    began = time.perf_counter()
    before = os.times()
    subprocess.run(command, check=True)
    after = os.times()
    used = after.children_user + after.children_system - before.children_user - before.children_system
    return Cost(time.perf_counter() - began, used)
