"""How much of each budget is used, from the series that the rules of budgets record."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Literal

from .cells import markdown_cell, padded, printable, spreadsheet_cell, width
from .formats import quantity
from .prometheus import Prometheus, QueryError, Sample

_RATIO = "budget:energy_used:ratio"
_SELECTED = "budget:energy_selected:bool"
_BURN = "budget:energy_burn:ratio"
_LEFT = "budget:energy_exhausted_in:seconds"

_UNITS = {"joules": (3.6e6, "kWh"), "carbon_grams": (1000.0, "kg CO2e"), "cost": (1.0, "")}
"""What names of recorded series have of a budget's unit → how much of it one of the shown unit is, and that; the unit
of money is the label ``currency``."""

_LONGEST = ("slow", "long")
"""The burn rate over the longest span."""

_IDENTITY = ("budget", "window", "cluster")

Verdict = Literal["used up", "will be used up", "no data", "within"]


@dataclass(frozen=True, slots=True)
class Status:
    """One budget now. ``used`` and ``amount`` are in ``unit``; None is unknown.

    ``burn_ratio`` is the consumption of the longest span that is recorded, by what the budget allows in it.
    ``exhausted_seconds`` is the time until it is used up, None while that is not in sight. ``selected`` is False if its
    selector has matched no series in the whole window.
    """

    budget: str
    owner: str
    window: str
    unit: str
    used: float | None
    amount: float
    used_ratio: float | None
    burn_ratio: float | None
    exhausted_seconds: float | None
    selected: bool

    @property
    def verdict(self) -> Verdict:
        """One of used up, will be used up (before the window moves on), no data, within."""
        if self.used_ratio is None or not self.selected:
            return "no data"
        if self.used_ratio > 1:
            return "used up"
        return "within" if self.exhausted_seconds is None else "will be used up"


def collect(prometheus: Prometheus, at: float, matchers: str = "", owner: str = "") -> list[Status]:
    """The budgets of ``owner``, or all, at Unix time ``at``, the fullest first. Raises `QueryError` without any."""

    def read(name: str) -> list[Sample]:
        return prometheus.instant(f"{name}{{{matchers}}}", at)

    def by_budget(name: str) -> dict[tuple[str, ...], float]:
        return {_identity(sample): sample.value for sample in read(name)}

    ratios, selected, left = by_budget(_RATIO), by_budget(_SELECTED), by_budget(_LEFT)
    burns: dict[tuple[str, ...], float] = {}
    for sample in read(_BURN):
        if (sample.labels.get("burn"), sample.labels.get("span")) == _LONGEST:
            burns[_identity(sample)] = sample.value
    found = []
    for kind, (scale, unit) in _UNITS.items():
        used = by_budget(f"budget:energy_used_{kind}:sum")
        for sample in read(f"energy_budget_{kind}"):
            key, labels = _identity(sample), sample.labels
            found.append(
                Status(
                    labels.get("budget", ""),
                    labels.get("owner", ""),
                    labels.get("window", ""),
                    unit or labels.get("currency", ""),
                    used[key] / scale if key in used else None,
                    sample.value / scale,
                    ratios.get(key),
                    burns.get(key),
                    left.get(key),
                    selected.get(key, 1.0) > 0,
                )
            )
    if owner and (names := sorted({status.owner for status in found})):
        found = [status for status in found if status.owner == owner]
        if not found:
            raise QueryError(f"{prometheus.url}: no budget of {owner}; there are some of {', '.join(names)}")
    if not found:
        raise QueryError(
            f"{prometheus.url}: no budgets; load the rules that ai-energy-exporter budgets FILE writes (docs/rules.md)"
        )
    return sorted(found, key=lambda status: (-(status.used_ratio or 0.0), status.budget, status.window))


def _identity(sample: Sample) -> tuple[str, ...]:
    return tuple([sample.labels.get(name, "") for name in _IDENTITY])


def text(statuses: Sequence[Status]) -> str:
    """For a terminal."""
    head, *rows = [_HEAD, *map(_cells, statuses)]
    widths = [max(map(width, column)) for column in zip(head, *rows, strict=True)]

    def line(cells: Sequence[str]) -> str:
        aligned = [
            padded(cell, columns, right=number in _NUMBERS)
            for number, (cell, columns) in enumerate(zip(cells, widths, strict=True))
        ]
        return "   ".join(aligned).rstrip()

    rule = "─" * (sum(widths) + 3 * (len(widths) - 1))
    return "\n".join([line(head), rule, *map(line, rows), ""])


def markdown(statuses: Sequence[Status]) -> str:
    """A table."""
    rule = ["--:" if column in _NUMBERS else "---" for column in range(len(_HEAD))]
    rows = [[*map(markdown_cell, _cells(status))] for status in statuses]
    return "\n".join([*(f"| {' | '.join(row)} |" for row in (_HEAD, rule, *rows)), ""])


def comma_separated(statuses: Sequence[Status]) -> str:
    """One row for each, not rounded."""
    out = io.StringIO()
    writer = csv.DictWriter(out, list(_as_mapping(statuses[0])), lineterminator="\n")
    writer.writeheader()
    for status in statuses:
        names = {"budget": spreadsheet_cell(status.budget), "owner": spreadsheet_cell(status.owner)}
        writer.writerow(_as_mapping(status) | names)
    return out.getvalue()


def as_json(statuses: Sequence[Status]) -> str:
    """A list of objects; null is unknown."""
    return json.dumps([_as_mapping(status) for status in statuses], indent=2) + "\n"


def _as_mapping(status: Status) -> dict[str, str | float | bool | None]:
    return asdict(status) | {"verdict": status.verdict}


_HEAD = ["budget", "owner", "window", "used", "of", "", "share", "burn rate", "used up in", "verdict"]
_NUMBERS = {3, 4, 6, 7, 8}


def _cells(status: Status) -> list[str]:
    return [
        printable(status.budget),
        printable(status.owner),
        status.window,
        quantity(status.used),
        quantity(status.amount),
        status.unit,
        "" if status.used_ratio is None else f"{status.used_ratio:.0%}",
        "" if status.burn_ratio is None else f"{status.burn_ratio:.2f}",
        "" if status.exhausted_seconds is None else _duration(status.exhausted_seconds),
        status.verdict,
    ]


def _duration(seconds: float) -> str:
    for name, unit in (("d", 86400.0), ("h", 3600.0)):
        if seconds >= unit:
            return f"{seconds / unit:.1f} {name}"
    return f"{seconds / 60:.0f} min"
