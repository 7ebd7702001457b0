"""What a report consists of: lines of energy, grams, money and tokens. Pure values and their arithmetic."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

from .window import Window

JOULES_PER_KWH = 3.6e6
YEAR_SECONDS = 365 * 86400.0

Cell = tuple[str, str]
"""Component and mode; of a node's own energy, and of that of no workload, the mode is ""."""

Spread = Literal["none", "even", "proportional"]


@dataclass(frozen=True, slots=True)
class Amounts:
    """Joules by cell, grams of CO2e, money by currency, and generated tokens; None is unknown, never 0.

    ``unused`` are joules of GPUs that were held while nothing was done on them (docs/rules.md, Waste).
    """

    joules: Mapping[Cell, float] = field(default_factory=dict)
    grams: float | None = None
    cost: Mapping[str, float] = field(default_factory=dict)
    tokens: float | None = None
    unused: float | None = None

    @property
    def total_joules(self) -> float:
        """Of all components."""
        return sum(self.joules.values())

    @property
    def idle_joules(self) -> float:
        """Idle power of devices that were held, at work or not."""
        return self.of(mode="idle")

    @property
    def joules_per_token(self) -> float | None:
        """Joules for each generated token, idle power included; None without tokens."""
        return self.total_joules / self.tokens if self.tokens else None

    def of(self, *components: str, mode: str = "") -> float:
        """Joules of some components, all without any; of all modes unless one is given."""
        return sum(
            joules
            for (component, kind), joules in self.joules.items()
            if (not components or component in components) and (not mode or kind == mode)
        )

    def plus(self, other: Amounts, times: float = 1.0) -> Amounts:
        """The sum with ``times`` the other; grams that neither knows stay unknown."""
        joules = defaultdict(float, self.joules)
        cost = defaultdict(float, self.cost)
        for cell, amount in other.joules.items():
            joules[cell] += amount * times
        for currency, amount in other.cost.items():
            cost[currency] += amount * times
        return Amounts(
            dict(joules),
            _plus(self.grams, other.grams, times),
            dict(cost),
            _plus(self.tokens, other.tokens, times),
            _plus(self.unused, other.unused, times),
        )

    def by_component(self) -> Amounts:
        """The same without modes."""
        joules: defaultdict[Cell, float] = defaultdict(float)
        for (component, _), amount in self.joules.items():
            joules[component, ""] += amount
        return replace(self, joules=dict(joules))


def _plus(one: float | None, other: float | None, times: float) -> float | None:
    return one if other is None else (one or 0.0) + other * times


def add_up(amounts: Iterable[Amounts]) -> Amounts:
    """The sum of all."""
    total = Amounts()
    for each in amounts:
        total = total.plus(each)
    return total


@dataclass(frozen=True, slots=True)
class Period:
    """From when to when something ran, in Unix seconds, and GPU seconds: its cards times the time; None is unknown."""

    start: float
    end: float
    gpu_seconds: float | None = None

    def joined(self, other: Period | None) -> Period:
        """Of both together."""
        if other is None:
            return self
        gpu_seconds = _plus(self.gpu_seconds, other.gpu_seconds, 1.0)
        return Period(min(self.start, other.start), max(self.end, other.end), gpu_seconds)


@dataclass(frozen=True, slots=True)
class Line:
    """One line: the values of the report's labels, what it used, its share of what no line used, and when it ran."""

    names: tuple[str, ...]
    used: Amounts
    share: Amounts = field(default_factory=Amounts)
    period: Period | None = None


@dataclass(frozen=True, slots=True)
class Report:
    """``lines`` by falling energy, ``shared`` what no line used, ``total`` all of it: what the nodes used.

    ``labels`` are the names of the lines' labels. ``covered`` is the time for which there are samples, in seconds,
    and ``since`` the first of them in Unix time. ``source`` is where they were read, ``remarks`` what a
    reader must know of it.
    """

    window: Window
    labels: tuple[str, ...]
    lines: Sequence[Line]
    shared: Sequence[tuple[str, Amounts]]
    total: Amounts
    covered: float
    since: float
    source: str = ""
    remarks: Sequence[str] = ()
    spread: Spread = "none"

    @property
    def currencies(self) -> list[str]:
        """Currencies that occur."""
        return sorted(self.total.cost.keys() | {currency for line in self.lines for currency in line.used.cost})

    def kwh_per_year(self, amounts: Amounts) -> float:
        """Energy of a year at the mean power of the time that is covered."""
        return amounts.total_joules / JOULES_PER_KWH * YEAR_SECONDS / self.covered


def top(report: Report, count: int) -> Report:
    """The report with only the ``count`` largest lines, and one for all others; 0 keeps all."""
    kept, others = report.lines[:count], report.lines[count:]
    if count <= 0 or len(others) < 2:
        return report
    names = (*[""] * (len(report.labels) - 1), f"({len(others)} others)")
    rest = Line(names, add_up(line.used for line in others), add_up(line.share for line in others))
    return replace(report, lines=[*kept, rest])


def spread(report: Report, rule: Spread) -> Report:
    """The report with ``shared`` borne by the lines: the same by each, or in proportion to its own joules."""
    if rule == "none" or not report.lines:
        return report
    shared = add_up(amounts for _, amounts in report.shared)
    used = sum(line.used.total_joules for line in report.lines)
    weights = [
        line.used.total_joules / used if rule == "proportional" and used > 0 else 1 / len(report.lines)
        for line in report.lines
    ]
    lines = [
        replace(line, share=Amounts().plus(shared, weight)) for line, weight in zip(report.lines, weights, strict=True)
    ]
    return replace(report, lines=lines, spread=rule)
