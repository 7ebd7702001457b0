"""Resident memory over simulated ticks with churn, in a process of its own."""

from __future__ import annotations

import subprocess
import sys

from .table import show, verdict

GOAL_GROWTH_MIB = 1.0


def main(ticks: int = 100_000) -> None:
    """Print the table."""
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.churn", str(ticks)], stdout=subprocess.PIPE, text=True, check=True
    )
    *marks, error = done.stdout.splitlines()
    rows = [tuple(line.split()) for line in marks]
    growth = float(rows[-1][1]) - float(rows[0][1])
    show(
        f"Memory: {ticks:,} simulated ticks, a container born and one ended in each, a scrape every 15",
        ("tick", "resident MiB", "lines in a scrape"),
        [(f"{int(tick):,}", mib, lines) for tick, mib, lines in rows],
    )
    print(
        f"growth over the last nine tenths: {growth:+.2f} MiB "
        f"(goal: flat, within {GOAL_GROWTH_MIB:g} MiB: {verdict(growth <= GOAL_GROWTH_MIB)}); "
        f"conservation error {error}"
    )
