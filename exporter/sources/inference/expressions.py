"""Sums of metrics, as the table of dialects has them, and their value from the counts of a server."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import NamedTuple

Labels = tuple[tuple[str, str], ...]
"""Names and values of the labels of a series, sorted by name."""

Series = tuple[str, Labels]
"""Folded name and labels."""


class Term(NamedTuple):
    """A metric in a sum: only series whose ``label`` has a value of ``values``, or none of them if ``excluded``."""

    name: str
    sign: float
    label: str = ""
    values: frozenset[str] = frozenset()
    excluded: bool = False

    def matches(self, labels: Labels) -> bool:
        """Whether a series of its name counts."""
        if not self.label:
            return True
        return (dict(labels).get(self.label, "") in self.values) is not self.excluded


Sum = tuple[Term, ...]


def parse(text: str) -> tuple[Sum, ...]:
    """The sums of an expression (see `Dialect`), in order of preference."""
    return tuple(tuple(_terms(part)) for part in text.split("|") if part.strip())


def names(sums: Iterable[Sum]) -> set[str]:
    """Names of all metrics in ``sums``."""
    return {term.name for one in sums for term in one}


def value(one: Sum, counts: Mapping[Series, float], ranks: frozenset[str], model: str, *, members: bool) -> float:
    """The value of a sum; of series that count the same the highest (see `Dialect`)."""
    by_model: dict[str, float] = {}
    for term in one:
        distinct: dict[Labels, float] = {}
        for (name, labels), count in counts.items():
            if name == term.name and term.matches(labels):
                counted = tuple(pair for pair in labels if pair[0] not in ranks) if ranks else labels
                distinct[counted] = max(distinct.get(counted, 0.0), count)
        for labels, count in distinct.items():
            served = dict(labels).get(model, "")
            by_model[served] = by_model.get(served, 0.0) + term.sign * count
    return (max if members else sum)(by_model.values() or (0.0,))


def _terms(text: str) -> Iterable[Term]:
    sign = 1.0
    for word in text.split():
        if word == "-":
            sign = -1.0
            continue
        name, _, selector = word.rstrip("}").partition("{")
        pairs = [pair.partition("=") for pair in selector.split(",") if pair]
        excluded = bool(pairs) and pairs[0][0].endswith("!")
        label = pairs[0][0].rstrip("!") if pairs else ""
        yield Term(name, sign, label, frozenset(value for _, _, value in pairs), excluded)
        sign = 1.0
