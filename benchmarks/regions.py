"""How truly watts of short regions are estimated, in a simulation whose watts are known."""

from __future__ import annotations

from collections import Counter
from math import sqrt
from random import Random

from .region_simulation import SECONDS, WATTS, Card, Meter, Run, simulate, simulate_card, steps
from .table import show

_LAG_SECONDS = 0.0523
"""Delay of the meter: none of those that the estimate tries first."""

_LONGER = (4, 10, 20, 40)
_CARD_SECONDS = 300.0
_CARD_PROGRAMS = 20
_CASES = ((0.1, 60.0, 100), (0.1, 600.0, 10), (1.0, 600.0, 100), (1.0, 3600.0, 10))
"""Period of the meter and duration, in seconds, and the number of programs."""


def main() -> None:
    """Print errors, coverage of the 90 % intervals, and what a division by time gives."""
    rows = []
    for period, duration, seeds in _CASES:
        runs = [simulate(Random(seed), Meter(period, lag=_LAG_SECONDS), duration) for seed in range(seeds)]
        rows += [_row(f"{period:g} s, {duration:g} s", runs, region, watts) for region, watts in WATTS.items()]
        lost = max(abs(sum(run.joules.values()) / run.metered - 1.0) for run in runs)
        print(f"{period:g} s, {duration:g} s: {seeds} programs, joules lost or added: {lost:.1e} of them")
    head = ("meter, after", "region", "true W", "bias %", "sd %", "in the 90 % interval", "by time %")
    show("Watts of regions", head, rows)
    cards = []
    for longer in _LONGER:
        for fast in (False, True):
            runs = [_on_a_card(seed, longer, fast=fast) for seed in range(_CARD_PROGRAMS)]
            case = f"{longer * sum(SECONDS.values()):g} s, {20 if fast else 1}"
            cards += [[*_row(case, runs, region, watts), _methods(runs, region)] for region, watts in WATTS.items()]
    title = f"The same on a counter that steps each 0.1 s, after {_CARD_SECONDS:g} s"
    show(title, ("steps of, reads a second", *head[1:], "method"), cards)


def _on_a_card(seed: int, longer: int, *, fast: bool) -> Run:
    random = Random(seed)
    slow = {region: longer * seconds for region, seconds in SECONDS.items()}
    return simulate_card(random, Card(fast=fast), _CARD_SECONDS, steps(random, seconds=slow))


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
