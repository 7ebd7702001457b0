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

from .table import show

ROUNDS = 9
SPIN = "import time\nend = time.process_time() + 2\nwhile time.process_time() < end: pass\n"
MAKEFILE = "all: {names}\nt%:\n\t@/bin/true; n=0; while [ $$n -lt 2000 ]; do n=$$((n+1)); done\n"
SHORT_PROCESSES = 300


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
    """Measure three commands, and print a table."""
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
