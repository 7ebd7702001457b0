"""Joules, grams, money and tokens of some counters, as a `Source` has them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

from .growth import PLACE, Growth, Labels, Source
from .lines import Amounts
from .window import Window

UNUSED = {
    "model": ("energy_model_activity_joules_total", 'activity="idle"'),
    "container": ("energy_container_gpu_unused_joules_total", ""),
}
"""Family of metrics → the counter of GPU joules while nothing was done on them, and its matchers."""


def read(source: Source, family: str, labels: Sequence[str], window: Window) -> dict[Labels, Amounts]:
    """Joules, grams and money of a family of counters by some labels. Raises `QueryError`."""
    cell = {"node": ("component",), "unattributed": ("component",)}.get(family, ("component", "mode"))
    count = len(labels)

    def grown(metric: str, *further: str) -> Growth:
        return source.of(f"energy_{family}_{metric}_total", (*labels, *further), window)

    joules: defaultdict[Labels, dict[tuple[str, str], float]] = defaultdict(dict)
    for key, amount in grown("joules", *cell).items():
        joules[key[:count]][key[count], key[count + 1] if len(cell) > 1 else ""] = amount
    grams = grown("carbon_grams")
    cost: defaultdict[Labels, defaultdict[str, float]] = defaultdict(lambda: defaultdict(float))
    for sign, metric in ((1.0, "cost"), (-1.0, "credit")):
        for key, amount in grown(metric, "currency").items():
            cost[key[:count]][key[count]] += sign * amount
    unused = source.of(UNUSED[family][0], labels, window, UNUSED[family][1]) if family in UNUSED else {}

    def unused_of(key: Labels) -> float | None:
        """0 without a GPU; unknown where the exporter, or the history, does not count it."""
        known = unused.get(key)
        return known if known is not None or any(component == "gpu" for component, _ in joules[key]) else 0.0

    return {
        key: Amounts(cells, grams.get(key), dict(cost.get(key, {})), unused=unused_of(key) if unused else None)
        for key, cells in joules.items()
    }


def of_containers(source: Source, window: Window) -> dict[Labels, Amounts]:
    """Amounts of each container, with its generated tokens, by `PLACE`. Raises `QueryError`."""
    tokens = source.of("energy_container_tokens_total", PLACE, window, 'kind="output"')
    found = read(source, "container", PLACE, window)
    return {
        place: amounts.plus(Amounts(tokens=tokens[place])) if place in tokens else amounts
        for place, amounts in found.items()
    }
