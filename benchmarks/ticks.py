"""What a tick costs, over what a C program pays for the unavoidable reads alone; both once a second, in turns."""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from statistics import fmean, median

from .crowd import Crowd, crowd
from .native import build
from .table import show, verdict

SIZES = ((200, 50), (2_000, 200), (10_000, 1_000))
GOAL = 2.0
WARM_UP = 45
"""Rounds until the exporter has found who is active; it looks at 512 unknown processes per tick at most."""


@dataclass(frozen=True, slots=True)
class Costs:
    """CPU seconds of each round: the exporter's tick, and the C program's reads with either way to read a process."""

    ticks: list[float]
    with_stat: list[float]
    with_clock: list[float]


class _Answering:
    """A process that answers each line with one line of numbers."""

    def __init__(self, command: list[str]) -> None:
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def tell(self, text: str) -> None:
        """Send lines that are not answered."""
        assert self.process.stdin
        self.process.stdin.write(text)
        self.process.stdin.flush()

    def ask(self) -> list[float]:
        """One round."""
        self.tell("go\n")
        assert self.process.stdout
        return [float(number) for number in self.process.stdout.readline().split()]

    def close(self) -> None:
        """Let it end."""
        self.process.communicate()


def measure(on: Crowd, rounds: int, warm_up: int) -> Costs:
    """Run both, half a second apart, so that each finds the caches as a second of other work leaves them."""
    costs = Costs([], [], [])
    with tempfile.TemporaryDirectory() as folder:
        reader = _Answering([build("reads", Path(folder))])
        reader.tell("".join([f"f {path}\n" for path in on.reads()] + [f"p {pid}\n" for pid in on.active]) + "\n")
        ticker = _Answering([sys.executable, "-m", "benchmarks.ticker", *on.flags])
        try:
            due = time.monotonic()
            for number in range(warm_up + rounds):
                _wait(due)
                files, stat, clock, failed = reader.ask()
                _wait(due + 0.5)
                cpu, _ = ticker.ask()
                due += 1.0
                assert not failed, "a read of the reference failed"
                if number >= warm_up:
                    costs.ticks.append(cpu)
                    costs.with_stat.append((files + stat) * 1e-9)
                    costs.with_clock.append((files + clock) * 1e-9)
        finally:
            reader.close()
            ticker.close()
    return costs


def _wait(until: float) -> None:
    time.sleep(max(0.0, until - time.monotonic()))


def main(rounds: int = 30) -> None:
    """Print the table."""
    rows = []
    for (processes, groups), packed in product(SIZES, (True, False)):
        with crowd(processes, groups, packed=packed) as on:
            costs = measure(on, rounds, warm_up=WARM_UP + processes // 400)
        tick, stat, clock = median(costs.ticks), median(costs.with_stat), median(costs.with_clock)
        rows.append(
            (
                f"{processes:,}",
                f"{groups:,}",
                f"{len(on.active):,} {'packed' if packed else 'spread'}",
                f"{tick * 1e3:.2f}",
                f"{fmean(costs.ticks) * 1e3:.2f}",
                f"{stat * 1e3:.2f}",
                f"{clock * 1e3:.2f}",
                f"{tick / stat:.2f}",
                f"{tick / clock:.2f}",
                verdict(tick / stat <= GOAL),
                verdict(tick / clock <= GOAL),
            )
        )
    show(
        f"Tick: CPU milliseconds, median of {rounds} (goal: at most {GOAL:g} x the reads in C)",
        (
            "processes",
            "cgroups",
            "active",
            "tick",
            "tick, mean",
            "C, stat",
            "C, clock",
            "x stat",
            "x clock",
            "by stat",
            "by clock",
        ),
        rows,
    )
