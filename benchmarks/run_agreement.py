"""Joules of a run that reads the meter itself, beside the exporter's row of it: both free-running, real processes."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

from tests.support.live import Exporter, Meter

from .table import show, verdict

REPEATS = 3
LENGTHS = (5, 20, 60)
"""Seconds of the commands."""

INTERVAL_SECONDS = 1.0
GOAL_PERCENT = 1.0

IDLE_WATTS = 20.0
WATTS_PER_CPU = 30.0
CONSTANT_WATTS = 60.0

_SETTLE_SECONDS = 2.5
"""After a run, until the exporter has sampled and rendered what it used last."""

_PUBLISHED_SECONDS = 60.0

BURSTS = """
import sys, time
end = time.monotonic() + float(sys.argv[1])
while time.monotonic() < end:
    until = time.process_time() + 0.05
    while time.process_time() < until: pass
    time.sleep(0.05)
"""


class Follows(Meter):
    """A package as real ones are: idle power, and so many watts for each CPU that is busy on the machine."""

    period_seconds = 0.01

    def joules(self) -> float:
        """Joules since the zone began."""
        return (time.monotonic() - self._began) * IDLE_WATTS + WATTS_PER_CPU * (_busy_seconds() - self._busy)

    def __init__(self, sysfs: Path) -> None:
        self._busy = _busy_seconds()
        super().__init__(sysfs)


def _busy_seconds() -> float:
    """CPU seconds of all processes since boot."""
    counter = Path("/sys/fs/cgroup/cpuacct/cpuacct.usage")
    if counter.exists():
        return int(counter.read_bytes()) / 1e9
    return int(Path("/sys/fs/cgroup/cpu.stat").read_bytes().split(None, 2)[1]) / 1e6


class _Case(NamedTuple):
    """A meter, what of its power is known to be idle, and the watts that neither follow use nor are known as idle."""

    meter: type[Meter]
    idle_watts: float
    unknown_watts: float


CASES = {
    f"{IDLE_WATTS:g} W and {WATTS_PER_CPU:g} W a busy CPU": _Case(Follows, IDLE_WATTS, 0.0),
    f"{CONSTANT_WATTS:g} W under any load": _Case(Meter, 0.0, CONSTANT_WATTS),
}


def main() -> None:
    """Compare, and print a row for each run as it ends."""
    rows: list[tuple[str, ...]] = []
    for name, case in CASES.items():
        with tempfile.TemporaryDirectory() as folder:
            rows += _compare(name, case, Path(folder))
    show(
        f"A run and an exporter that take samples each {INTERVAL_SECONDS:g} s; a written meter",
        ("meter", "seconds", "run, J", "exporter, J", "difference, %", "edges may be, %", f"≤ {GOAL_PERCENT:g} %"),
        rows,
    )


def _compare(name: str, case: _Case, folder: Path) -> list[tuple[str, ...]]:
    rows: list[tuple[str, ...]] = []
    meter = case.meter(folder / "sys")
    shared = ["--path.sysfs", str(folder / "sys"), "--path.cgroupfs", "/sys/fs/cgroup"]
    shared += ["--attribution.cpu-scope", "machine", "--idle.watts", f"package-0={case.idle_watts:g}"]
    exporter = Exporter(*shared, "--sample.interval", f"{INTERVAL_SECONDS:g}s", "--no-source.regions")
    try:
        exporter.scrape()
        for length in LENGTHS:
            for repeat in range(REPEATS):
                found, run = folder / "run.json", f"{length}s-{repeat}"
                words = [sys.executable, "-m", "exporter", "run", f"--exporter.url={exporter.url}", *shared]
                words += ["--quiet", "--name", run, "--json", str(found)]
                subprocess.run([*words, "--", sys.executable, "-S", "-c", BURSTS, str(length)], check=True)
                time.sleep(_SETTLE_SECONDS)
                joules = json.loads(found.read_text())["joules"]
                row = _row(exporter, run)
                percent = 100.0 * (joules / row - 1.0)
                edges = 100.0 * 2.0 * case.unknown_watts * INTERVAL_SECONDS / row
                met = verdict(abs(percent) <= max(GOAL_PERCENT, edges))
                rows.append((name, f"{length}", f"{joules:.1f}", f"{row:.1f}", f"{percent:+.2f}", f"{edges:.1f}", met))
                print(" | ".join(rows[-1]), flush=True)
    finally:
        exporter.end()
        meter.stop()
    return rows


def _row(exporter: Exporter, run: str) -> float:
    """Joules of the run by the exporter; a new counter is at 0 until who seems to scrape has it."""
    until = time.monotonic() + _PUBLISHED_SECONDS
    while True:
        joules = exporter.scrape().total("energy_container_joules_total", container=run)
        if joules or time.monotonic() > until:
            return joules
        time.sleep(INTERVAL_SECONDS)
