"""The facts that hourly growth of counters has: enough for stop_idle, host_cpu and free_gpus without a Prometheus."""

from __future__ import annotations

import math
from array import array
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Protocol

from .facts import Facts, Fleet, Grid, Steps, Subject
from .fleet_factors import Factor
from .fleet_queries import MODEL, QUIET_SHARE
from .growth import Labels
from .window import Window

HOUR_SECONDS = 3600.0

Hours = Mapping[Labels, Mapping[float, float]]
"""Values of labels → hour, by its start in Unix seconds → growth."""


class Hourly(Protocol):
    """Where the growth of counters in each hour is read, such as the history that an exporter keeps itself."""

    def hourly(self, metric: str, by: Sequence[str], window: Window, where: str = "") -> Hours:
        """Growth in each hour of ``window`` by some labels. Raises `QueryError`."""


def read(source: Hourly, window: Window) -> Fleet:
    """Models and nodes of whole hours. Raises `QueryError`.

    A gap is an hour without active GPU joules; shorter ones are not seen. Cards, activities and servers are unknown.
    """
    start = math.ceil(window.start / HOUR_SECONDS) * HOUR_SECONDS
    grid = Grid(start, HOUR_SECONDS, max(0, int((window.end - start) // HOUR_SECONDS)))

    def table(metric: str, by: Sequence[str], where: str = "") -> dict[Labels, Steps]:
        return {key: _steps(hours, grid) for key, hours in source.hourly(metric, by, window, where).items()}

    joules: defaultdict[Labels, dict[tuple[str, str], Steps]] = defaultdict(dict)
    for key, steps in table("energy_model_joules_total", (*MODEL, "component", "mode")).items():
        joules[key[:4]][key[4], key[5]] = steps
    tokens = table("energy_model_tokens_total", MODEL[:3], 'kind="output"')
    grams = {key: math.fsum(steps) for key, steps in table("energy_model_carbon_grams_total", MODEL).items()}
    money: defaultdict[Labels, defaultdict[str, float]] = defaultdict(lambda: defaultdict(float))
    for sign, counter in ((1.0, "cost"), (-1.0, "credit")):
        for key, steps in table(f"energy_model_{counter}_total", (*MODEL, "currency")).items():
            money[key[:4]][key[4]] += sign * math.fsum(steps)
    subjects = [_model(key, cells, tokens, grams, money[key], grid) for key, cells in joules.items()]
    free = table("energy_unattributed_joules_total", ("cluster", "instance"), 'component="gpu",reason="idle"')
    subjects += [Facts(Subject("node", key[0], "", key[1]), grid, idle=steps) for key, steps in free.items()]
    seen = next(iter(table("energy_node_joules_total", ()).values()), ())
    subjects = [replace(facts, seen=seen) for facts in subjects]
    reason = "the history of an exporter has hourly joules and tokens only; with --prometheus.url there is more"
    return Fleet(grid, subjects, missing={"cards, activities and server metrics": reason})


def _model(
    key: Labels,
    cells: Mapping[tuple[str, str], Steps],
    tokens: Mapping[Labels, Steps],
    grams: Mapping[Labels, float],
    money: Mapping[str, float],
    grid: Grid,
) -> Facts:
    zeros = array("d", [0.0]) * grid.length
    active, idle = cells.get(("gpu", "active"), zeros), cells.get(("gpu", "idle"), zeros)
    gap = [one <= QUIET_SHARE * (one + other) and other > 0 for one, other in zip(active, idle, strict=True)]
    cpu = [
        math.fsum(values)
        for values in zip(*(cells.get((name, "active"), zeros) for name in ("cpu", "dram")), strict=True)
    ]
    factor = Factor.of(math.fsum(map(math.fsum, cells.values())), grams.get(key), money)
    return Facts(
        Subject("model", *key),
        grid,
        active=active,
        idle=idle,
        cpu=cpu,
        quiet=[joules if there else 0.0 for joules, there in zip(idle, gap, strict=True)],
        quiet_seconds=[grid.step if there else 0.0 for there in gap],
        output_tokens=tokens.get(key[:3], ()) if key[3] != "training" else (),
        grams_per_joule=factor.grams,
        price_per_joule=factor.money,
    )


def _steps(hours: Mapping[float, float], grid: Grid) -> Steps:
    row = array("d", [0.0]) * grid.length
    for at, amount in hours.items():
        index = round((at - grid.start) / grid.step)
        if 0 <= index < grid.length:
            row[index] += amount
    return row
