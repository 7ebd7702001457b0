"""HTML elements of the status page; text from outside is cleaned and escaped here."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape
from typing import NamedTuple

from ..metrics.labels import clean

UNKNOWN = "–"
_EMPTY = {"", UNKNOWN}
_SPARK_POINTS, _SPARK_HEIGHT = 32, 40


def text(value: str) -> str:
    """Escape a text for HTML; control characters and direction overrides are made visible."""
    return escape(clean(value))


def name(value: str) -> str:
    """Escape a name and isolate its writing direction from the surrounding text."""
    return f"<bdi>{text(value)}</bdi>"


def number(value: float) -> str:
    """Format with three significant digits, thousands grouped: 1,284 · 93.5 · 7.25 · 0.08."""
    if value >= 99.95:
        return f"{value:,.0f}"
    return f"{value:.1f}" if value >= 9.995 else f"{value:.2f}"


def column(values: Sequence[float | None]) -> list[str]:
    """Format the numbers of a column with equal decimals, so that they compare by eye; None is a dash.

    The largest has at least three digits. What would round to 0 is "< 0.1", or whatever the last decimal is.
    """
    largest = max([value for value in values if value is not None], default=0.0)
    decimals = 0 if largest >= 999.5 else 1 if largest >= 9.995 else 2
    least = 10.0**-decimals

    def show(value: float | None) -> str:
        if value is None:
            return UNKNOWN
        return f"&lt; {least:g}" if 0 < value < least / 2 else f"{value:,.{decimals}f}" if value > 0 else "0"

    return [show(value) for value in values]


class EnergyUnit(NamedTuple):
    """A unit of energy and its joules."""

    symbol: str
    joules: float

    @classmethod
    def of(cls, largest_joules: float) -> EnergyUnit:
        """The unit for amounts of up to so many joules: J below 1 Wh, Wh below 1 kWh, kWh from there."""
        if largest_joules < 3600:
            return cls("J", 1.0)
        return cls("Wh", 3600.0) if largest_joules < 3.6e6 else cls("kWh", 3.6e6)

    def column(self, joules: Sequence[float | None]) -> list[str]:
        """Format a column in this unit."""
        return column([None if value is None else value / self.joules for value in joules])

    def amount(self, joules: float) -> str:
        """Format one amount, without the unit."""
        return number(joules / self.joules)


def percent(ratio: float | None) -> str:
    """Format a ratio as a percentage; None is a dash."""
    if ratio is None:
        return UNKNOWN
    if 0 < ratio < 0.001:
        return "&lt; 0.1 %"
    return f"{100 * ratio:.0f} %" if ratio >= 0.0995 or ratio == 0 else f"{100 * ratio:.1f} %"


def tag(label: str, kind: str = "") -> str:
    """Return a small badge; ``kind`` is good, bad, warn or ""."""
    return f'<span class="tag {kind}">{text(label)}</span>' if kind else f'<span class="tag">{text(label)}</span>'


def term(word: str, shown: str = "") -> str:
    """Return a word that links to its explanation at the end of the page."""
    return f'<a class="term" href="#word-{word}">{shown or word}</a>'


def note(*parts: str) -> str:
    """Return the small second line of a cell: HTML parts, without the empty ones."""
    line = " · ".join([part for part in parts if part])
    return f"<small>{line}</small>" if line else ""


class Layer(NamedTuple):
    """One area of a sparkline: its colour, and a value for each point."""

    kind: str
    values: Sequence[float]


def spark(layers: Sequence[Layer], most: float, label: str, tall: bool = False) -> str:
    """Return a sparkline of areas that lie over each other, drawn from 0 to ``most``; "" for fewer than two points."""
    if not layers or len(layers[0].values) < 2 or most <= 0:
        return ""
    drawn = "".join([_layer(layer, most) for layer in layers if max(layer.values) > 0])
    width = len(_thin(layers[0].values)) - 1
    return (
        f'<svg class="spark{" tall" if tall else ""}" viewBox="0 0 {width} {_SPARK_HEIGHT}" preserveAspectRatio="none" '
        f'role="img" aria-label="{text(label)}">{drawn}</svg>'
    )


def _layer(layer: Layer, most: float) -> str:
    heights = [round(_SPARK_HEIGHT * (1 - min(value / most, 1.0))) for value in _thin(layer.values)]
    last = len(heights)
    # The edges lie outside of the picture; what continues a level line needs no point of its own.
    edged = [heights[0], *heights, heights[-1]]
    bends = [f"{x} {edged[x + 1]}" for x in range(last) if not edged[x] == edged[x + 1] == edged[x + 2]]
    line = " ".join([*bends, f"{last} {edged[-1]}"])
    return f'<path class="c-{layer.kind}" d="M-1 {edged[0]}L{line}V{_SPARK_HEIGHT + 9}H-1Z"/>'


def _thin(values: Sequence[float]) -> list[float]:
    """Means of runs of equal length, at most `_SPARK_POINTS` of them."""
    run = -(-len(values) // _SPARK_POINTS)
    parts = [values[max(0, end - run) : end] for end in range(len(values), 0, -run)]
    return [sum(part) / len(part) for part in reversed(parts)]


def bar(parts: Iterable[tuple[str, float]], css: str = "bar") -> str:
    """Return a stacked bar of (kind, ratio) parts, which sum to at most 1."""
    at, rects = 0.0, []
    for kind, ratio in parts:
        width = 100 * min(max(ratio, 0.0), 1.0)
        if width:
            left = f' x="{at:.3g}%"' if at else ""
            rects.append(f'<rect class="c-{kind}"{left} width="{width:.3g}%"/>')
        at += width
    return f'<svg class="{css}" aria-hidden="true">{"".join(rects)}</svg>'


def meter(ratio: float | None, kind: str) -> str:
    """Return a small bar with its percentage."""
    return UNKNOWN if ratio is None else bar([(kind, ratio)], "meter") + percent(ratio)


LABELS = {
    "power": "Power, W",
    "idle-now": "Idle now, W",
    "share": "Share",
    "energy-J": "Energy, J",
    "energy-Wh": "Energy, Wh",
    "energy-kWh": "Energy, kWh",
    "idle-part": "Idle energy",
    "idle-power": "Idle power, W",
    "limit": "Limit, W",
    "busy": "Busy",
    "sm": "SM active",
    "tensor": "Tensor active",
    "dram": "DRAM active",
    "memory": "Memory",
    "heat": "Temperature, °C",
    "name": "Held by",
    "labels": "Labels",
    "last": "Last success",
}
"""Class of a column → its label beside each value, where the rows of a table are stacked."""


class Head(NamedTuple):
    """A column: its title as HTML, and its classes: ``t`` for text, one of `LABELS` for a name beside each value."""

    title: str
    css: str = ""


def table(heads: Sequence[Head], rows: Sequence[Sequence[str]], css: str = "", foot: Sequence[str] = ()) -> str:
    """Return a table whose first column names each row; a column without any value is left out."""
    kept = [i for i, _ in enumerate(heads) if i == 0 or any(row[i] not in _EMPTY for row in rows)]
    columns = [heads[i] for i in kept]
    head = "".join([f'<th scope="col"{_css(column.css)}>{column.title}</th>' for column in columns])
    lines = [_row(columns, [row[i] for i in kept]) for row in rows]
    if foot:
        lines.append(_row(columns, [foot[i] for i in kept], "foot"))
    return f"<table{_css(css)}><thead><tr>{head}</tr></thead><tbody>{''.join(lines)}</tbody></table>"


def _row(columns: Sequence[Head], cells: Sequence[str], css: str = "") -> str:
    first, *rest = cells
    values = [
        f"<td{_css(column.css if cell not in _EMPTY else f'{column.css} none')}>{cell}</td>"
        for column, cell in zip(columns[1:], rest, strict=True)
    ]
    return f'<tr{_css(css)}><th scope="row">{first}</th>{"".join(values)}</tr>'


def _css(names: str) -> str:
    return f' class="{names}"' if names else ""


def card(title: str, content: str, hint: str = "") -> str:
    """Return a titled card."""
    small = f" <small>{hint}</small>" if hint else ""
    return f'<section class="card panel"><h2>{title}{small}</h2>{content}</section>'


def details(key: str, summary: str, content: str) -> str:
    """Return what is folded away until it is asked for; ``key`` is unique on the page."""
    return f'<details id="{text(key)}"><summary>{summary}</summary>{content}</details>'
