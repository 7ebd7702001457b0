"""A report as one HTML page with pictures: no script, no request to anywhere, light and dark, and on paper."""

from __future__ import annotations

import html
from collections.abc import Iterable, Sequence

from .formats import Units, notes, percent, quantity, table, units
from .lines import Amounts, Line, Report

_MOST_BARS = 20
_ROW, _NAME, _BAR, _VALUE = 26, 350, 480, 130
"""Of the picture, in its own units: height of a row, widths of the name, of the longest bar, and of the value."""

_NAME_LETTERS = 46
_PARTS = ("gpu", "host", "other", "idle")
_KEY = {"gpu": "GPU", "host": "CPU and memory", "other": "other", "idle": "idle power of held devices"}

_STYLE = """
:root { color-scheme: light dark; --text: #1b1b1f; --soft: #5c5c66; --line: #d5d5dc; --page: #fff;
  --gpu: #2d6bcf; --host: #178575; --other: #8a8a94; --idle: #c9731b; font: 15px/1.45 system-ui, sans-serif; }
@media (prefers-color-scheme: dark) { :root { --text: #e6e6ea; --soft: #a3a3ad; --line: #3d3d46; --page: #17171a;
  --gpu: #6a9ff0; --host: #43b8a4; --other: #85858f; --idle: #e39a4c; } }
body { max-width: 84rem; margin: 2rem auto; padding: 0 1rem; color: var(--text); background: var(--page); }
h1 { font-size: 1.5rem; margin: 0; } h2 { font-size: 1.1rem; margin: 2rem 0 .5rem; } .notes { color: var(--soft); }
.figures { display: flex; flex-wrap: wrap; gap: .5rem 2.5rem; margin: 1.2rem 0; padding: 0; list-style: none; }
.figures b { display: block; font-size: 1.5rem; font-variant-numeric: tabular-nums; }
svg { width: 100%; height: auto; } svg text { fill: var(--text); font-size: 13.5px; }
.gpu { fill: var(--gpu); } .host { fill: var(--host); } .other { fill: var(--other); } .idle { fill: var(--idle); }
.key span { margin-right: 1.2rem; white-space: nowrap; } .key svg { width: .8rem; height: .8rem; margin-right: .35rem; }
.wide { overflow-x: auto; } table { border-collapse: collapse; width: 100%; }
th, td { padding: .3rem .6rem; border-bottom: 1px solid var(--line); text-align: right; white-space: nowrap; }
td { font-variant-numeric: tabular-nums; } tr:last-child td { font-weight: 600; }
th:nth-child(-n+NAMES), td:nth-child(-n+NAMES) { text-align: left; white-space: normal; overflow-wrap: anywhere;
  min-width: 6rem; }
@media print { :root { font-size: 10px; color-scheme: light; --text: #000; --soft: #333; --line: #999; --page: #fff; }
  body { max-width: none; margin: 0; } svg, tr, .figures { break-inside: avoid; } .wide { overflow: visible; }
  .gpu, .host, .other, .idle { print-color-adjust: exact; } th, td { padding: .15rem .3rem; } }
"""


def page(report: Report) -> str:
    """The page."""
    names, head, rows = table(report)
    style = _STYLE.replace("NAMES", str(names))
    cells = "".join(f"<tr>{''.join(f'<td>{html.escape(cell)}</td>' for cell in row)}</tr>\n" for row in rows)
    titles = "".join(f'<th scope="col">{html.escape(title)}</th>' for title in head)
    said = " ".join(map(html.escape, notes(report)))
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>Energy report</title>\n'
        f'<meta name="viewport" content="width=device-width"><style>{style}</style></head>\n'
        f'<body><h1>Energy report</h1>\n<p class="notes">{said}</p>\n{_figures(report)}\n{_picture(report)}\n'
        f'<h2>All numbers</h2>\n<div class="wide"><table><thead><tr>{titles}</tr></thead><tbody>\n{cells}</tbody>'
        "</table></div></body></html>\n"
    )


def _figures(report: Report) -> str:
    """The totals, and how much of them is idle power of held devices."""
    used, idle, unit = report.total, sum(line.used.idle_joules for line in report.lines), units(report)
    figures = [
        (unit.energy, unit.of(used.total_joules)),
        ("kWh a year at this rate", quantity(report.kwh_per_year(used))),
        (unit.carbon, unit.of_carbon(used.grams)),
        *((currency, f"{amount:,.2f}") for currency, amount in sorted(used.cost.items())),
        ("of it idle power of held devices", percent(idle, used.total_joules) if idle else ""),
    ]
    items = "".join(f"<li><b>{value}</b>{html.escape(name)}</li>" for name, value in figures if value)
    return f'<ul class="figures">{items}</ul>'


def _picture(report: Report) -> str:
    """Bars of the largest lines, divided by what used the energy."""
    lines = [line for line in report.lines if line.used.total_joules > 0][:_MOST_BARS]
    if not lines:
        return ""
    most = max(line.used.total_joules for line in lines)
    unit = units(report)
    rows = "\n".join(_bar(number, line, most, unit) for number, line in enumerate(lines))
    shown = [part for part in _PARTS if any(dict(_divided(line.used))[part] > 1e-6 * most for line in lines)]
    return (
        f"<h2>{_title(report, len(lines))}</h2>\n{_key(shown)}\n"
        f'<svg viewBox="0 0 {_NAME + _BAR + _VALUE} {_ROW * len(lines)}" role="list">\n{rows}\n</svg>'
    )


def _title(report: Report, count: int) -> str:
    kinds = {"run": "training run", "model_name": "model", "owner_name": "workload"}
    what = next((kind for label, kind in kinds.items() if label in report.labels), report.labels[-1])
    return html.escape(f"Energy of the largest {count}" if count < len(report.lines) else f"Energy by {what}")


def _key(parts: Iterable[str]) -> str:
    square = '<svg viewBox="0 0 8 8" aria-hidden="true"><rect class="{}" width="8" height="8"/></svg>'
    return f'<p class="key">{"".join(f"<span>{square.format(part)}{_KEY[part]}</span>" for part in parts)}</p>'


def _bar(number: int, line: Line, most: float, unit: Units) -> str:
    name, joules = " / ".join(filter(None, line.names)) or "–", line.used.total_joules
    energy, idle = f"{unit.of(joules)} {unit.energy}", percent(line.used.idle_joules, joules)
    top, left, bars = number * _ROW, float(_NAME), []
    for part, amount in _divided(line.used):
        width = max(0.0, amount) / most * _BAR
        if width > 0:
            bars.append(f'<rect class="{part}" x="{left:.1f}" y="{top + 5}" width="{width:.1f}" height="{_ROW - 10}"/>')
        left += width
    label = html.escape(f"{name}: {energy}, {idle} idle")
    short = name if len(name) <= _NAME_LETTERS else f"…{name[1 - _NAME_LETTERS :]}"
    return (
        f'<g role="listitem" aria-label="{label}"><title>{label}</title><text x="{_NAME - 8}" y="{top + 18}" '
        f'text-anchor="end">{html.escape(short)}</text>{"".join(bars)}'
        f'<text x="{left + 8:.1f}" y="{top + 18}">{energy}</text></g>'
    )


def _divided(used: Amounts) -> Sequence[tuple[str, float]]:
    """Joules by part of a bar."""
    idle = used.idle_joules
    gpu, host = (used.of(*parts) - used.of(*parts, mode="idle") for parts in (("gpu",), ("cpu", "dram")))
    return list(zip(_PARTS, (gpu, host, used.total_joules - gpu - host - idle, idle), strict=True))
