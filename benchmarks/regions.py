"""How truly watts of short regions are estimated, in a simulation whose watts are known."""

from __future__ import annotations

from collections import Counter
from math import sqrt
from random import Random

from .region_simulation import SECONDS, WATTS, Meter, Run, simulate, steps
from .table import show

_STEPPING = Meter(1.0, clock_error=0.029)
"""A counter that steps each 0.1 s, as GPUs do, at a time between two reads that is not known."""

_LONGER = (1, 10, 20, 40)
_CASES = ((0.1, 60.0, 100), (0.1, 600.0, 20), (1.0, 600.0, 100), (1.0, 3600.0, 20))
"""Period of the meter and duration, in seconds, and the number of programs."""


def main() -> None:
    """Print errors, coverage of the 90 % intervals, and what a division by time gives."""
    rows = []
    for period, duration, seeds in _CASES:
        runs = [simulate(Random(seed), Meter(period), duration) for seed in range(seeds)]
        rows += [_row(f"{period:g} s, {duration:g} s", runs, region, watts) for region, watts in WATTS.items()]
        lost = max(abs(sum(run.joules.values()) / run.metered - 1.0) for run in runs)
        print(f"{period:g} s, {duration:g} s: {seeds} programs, joules lost or added: {lost:.1e} of them")
    head = ("meter, after", "region", "true W", "bias %", "sd %", "in the 90 % interval", "by time %")
    show("Watts of regions", head, rows)
    stepping = []
    for longer in _LONGER:
        runs = [_slower(seed, longer) for seed in range(10)]
        case = f"{longer * sum(SECONDS.values()):g} s"
        stepping += [[*_row(case, runs, region, watts), _methods(runs, region)] for region, watts in WATTS.items()]
    show("The same on a counter that steps each 0.1 s, after 600 s", ("steps of", *head[1:], "method"), stepping)


def _slower(seed: int, longer: int) -> Run:
    random = Random(seed)
    slow = {region: longer * seconds for region, seconds in SECONDS.items()}
    return simulate(random, _STEPPING, 600.0, steps(random, seconds=slow))


def _methods(runs: list[Run], region: str) -> str:
    counts = Counter(run.estimator.watts[region].method for run in runs)
    return ", ".join(f"{method} {count}" for method, count in counts.most_common())


def _row(case: str, runs: list[Run], region: str, watts: float) -> list[str]:
    errors = [100.0 * run.error(region, watts) for run in runs]
    inside = [run.estimator.watts[region].low <= watts <= run.estimator.watts[region].high for run in runs]
    return [
        case,
        region,
        f"{watts:g}",
        f"{sum(errors) / len(errors):+.1f}",
        f"{sqrt(sum(error * error for error in errors) / len(errors)):.1f}",
        f"{sum(inside) / len(inside):.0%}",
        f"{100.0 * sum(run.time_share_error(region) for run in runs) / len(runs):+.0f}",
    ]
