"""Grams of CO2e and money for a joule, of models and nodes, as the exporters counted them."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import NamedTuple

from .fleet_queries import MODEL, NODE, Queries
from .growth import Labels
from .steps import StepReader


class Factor(NamedTuple):
    """Grams of CO2e and money by currency for a joule; None where the exporters count no grams."""

    grams: float | None = None
    money: Mapping[str, float] = {}

    @classmethod
    def of(cls, joules: float, grams: float | None, money: Mapping[str, float]) -> Factor:
        """The means of what was counted."""
        if joules <= 0:
            return cls()
        return cls(None if grams is None else grams / joules, {name: cost / joules for name, cost in money.items()})


class Factors(NamedTuple):
    """``grams`` and ``money`` of models, and the factor of each node by cluster and instance."""

    grams: Mapping[Labels, float]
    money: Mapping[Labels, Mapping[str, float]]
    nodes: Mapping[Labels, Factor]

    def on(self, nodes: Iterable[Labels]) -> Factor:
        """The mean of some nodes, as far as each of them has one."""
        known = [self.nodes.get(node, Factor()) for node in sorted(set(nodes))]
        grams = [each.grams for each in known if each.grams is not None]
        currencies = set.intersection(*(set(each.money) for each in known)) if known else set()
        return Factor(
            math.fsum(grams) / len(grams) if known and len(grams) == len(known) else None,
            {name: math.fsum(each.money[name] for each in known) / len(known) for name in currencies},
        )

    @classmethod
    def read(cls, reader: StepReader, queries: Queries) -> Factors:
        """Those of a fleet. Raises `QueryError`."""
        grams = _sums(reader, queries.grams(), MODEL)
        return cls(grams, _money(reader, queries.money, MODEL), _nodes(reader, queries))


def _nodes(reader: StepReader, queries: Queries) -> dict[Labels, Factor]:
    joules = _sums(reader, queries.of_nodes("joules"), NODE)
    grams = _sums(reader, queries.of_nodes("carbon_grams"), NODE)
    money = _money(reader, queries.of_nodes, NODE)
    return {node: Factor.of(used, grams.get(node), money.get(node, {})) for node, used in joules.items()}


def _sums(reader: StepReader, query: str, labels: Sequence[str]) -> dict[Labels, float]:
    return {key: math.fsum(steps) for key, steps in reader.read(query, labels).items()}


def _money(reader: StepReader, query: Callable[[str], str], labels: Sequence[str]) -> dict[Labels, dict[str, float]]:
    """Cost less credit, by currency."""
    money: defaultdict[Labels, defaultdict[str, float]] = defaultdict(lambda: defaultdict(float))
    for sign, counter in ((1.0, "cost"), (-1.0, "credit")):
        for key, amount in _sums(reader, query(counter), (*labels, "currency")).items():
            money[key[:-1]][key[-1]] += sign * amount
    return {key: dict(by) for key, by in money.items()}
