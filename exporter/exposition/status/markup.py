"""HTML elements of the status page; text from outside is cleaned and escaped here."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape

from ..metrics.labels import clean

_SPARK_WIDTH, _SPARK_HEIGHT = 120.0, 30.0


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


def watts(value: float | None) -> str:
    """Format watts with the unit; None is a dash."""
    return "–" if value is None else f"{number(value)} W"


def energy(joules: float) -> tuple[str, str]:
    """Return number and unit: joules below 1 Wh, watt-hours below 1 kWh, kilowatt-hours from there."""
    if joules < 3600:
        return number(joules), "J"
    if joules < 3.6e6:
        return number(joules / 3600), "Wh"
    return number(joules / 3.6e6), "kWh"


def percent(ratio: float | None) -> str:
    """Format a ratio as a percentage; None is a dash."""
    if ratio is None:
        return "–"
    if 0 < ratio < 0.001:
        return "< 0.1 %"
    return f"{100 * ratio:.0f} %" if ratio >= 0.1 or ratio == 0 else f"{100 * ratio:.1f} %"


def tag(label: str, kind: str = "") -> str:
    """Return a small badge; ``kind`` is good, bad, warn or ""."""
    return f'<span class="tag {kind}">{text(label)}</span>'


def spark(values: Sequence[float], kind: str, tall: bool = False) -> str:
    """Return a sparkline of watts, scaled from 0 to their maximum; "" for fewer than two points or no power."""
    if len(values) < 2 or max(values) <= 0:
        return ""
    step, scale = _SPARK_WIDTH / (len(values) - 1), (_SPARK_HEIGHT - 2) / max(values)
    line = " ".join([f"{i * step:.1f},{_SPARK_HEIGHT - v * scale:.1f}" for i, v in enumerate(values)])
    size = "spark tall" if tall else "spark"
    return (
        f'<svg class="{size} c-{kind}" viewBox="0 0 120 30" preserveAspectRatio="none" role="img" '
        f'aria-label="power over the last minutes, at most {watts(max(values))}">'
        f'<path class="area" d="M0,30 L{line} L120,30 Z"/><path class="line" d="M{line}"/></svg>'
    )


def bar(parts: Iterable[tuple[str, float]], css: str = "bar") -> str:
    """Return a stacked bar of (kind, ratio) parts, which sum to at most 1."""
    at, rects = 0.0, []
    for kind, ratio in parts:
        width = 100 * min(max(ratio, 0.0), 1.0)
        rects.append(f'<rect class="c-{kind}" x="{at:.2f}" width="{width:.2f}" height="10"/>')
        at += width
    return (
        f'<svg class="{css}" viewBox="0 0 100 10" preserveAspectRatio="none" aria-hidden="true">{"".join(rects)}</svg>'
    )


def meter(ratio: float | None, kind: str) -> str:
    """Return a small bar with its percentage."""
    return "–" if ratio is None else bar([(kind, ratio)], f"meter c-{kind}") + f"<span>{percent(ratio)}</span>"


def table(heads: Iterable[tuple[str, str]], rows: Iterable[Iterable[str]]) -> str:
    """Return a table; ``heads`` are (title, class), and each row has one HTML cell per head."""
    columns = list(heads)
    head = "".join([f'<th class="{css}">{title}</th>' for title, css in columns])
    body = "".join(
        [
            "<tr>"
            + "".join([f'<td class="{css}">{cell}</td>' for (_, css), cell in zip(columns, row, strict=True)])
            + "</tr>"
            for row in rows
        ]
    )
    return f'<div class="scroll"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'


def card(title: str, content: str, hint: str = "") -> str:
    """Return a titled card."""
    small = f" <small>{hint}</small>" if hint else ""
    return f'<section class="card panel"><h2>{title}{small}</h2>{content}</section>'
