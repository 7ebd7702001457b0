"""A report as text for a terminal, Markdown, CSV and JSON."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, NamedTuple

from .cells import markdown_cell, padded, printable, spreadsheet_cell, width
from .lines import JOULES_PER_KWH, Amounts, Period, Report
from .window import Window

_EDGE_SECONDS = 960.0
"""A run that begins or ends so near to an edge goes beyond it: its ends are known to a quarter of an hour."""

_HOST = ("cpu", "dram")
_TOTAL = "total"


@dataclass(frozen=True, slots=True)
class _Row:
    names: tuple[str, ...]
    used: Amounts
    share: Amounts
    kind: str
    """line, shared or total."""
    period: Period | None = None


def _rows(report: Report) -> list[_Row]:
    width = max(1, len(report.labels))
    rows = [_Row(line.names, line.used, line.share, "line", line.period) for line in report.lines]
    if report.spread == "none":
        rows += [
            _Row((*[""] * (width - 1), f"({name})"), amounts, Amounts(), "shared") for name, amounts in report.shared
        ]
    return [*rows, _Row((*[""] * (width - 1), _TOTAL), report.total, Amounts(), "total")]


def quantity(value: float | None) -> str:
    """A number of three significant digits, with thousands separated; "" for one that is unknown."""
    if value is None:
        return ""
    if 0 < abs(value) < 0.0005:
        return "<0.001"
    decimals = next((count for count, least in ((0, 99.95), (1, 9.995), (2, 0.9995)) if abs(value) >= least), 3)
    return f"{value:,.{decimals}f}"


def percent(part: float, whole: float) -> str:
    return f"{part / whole:z.0%}" if whole > 0 else ""


def part_of(part: float, whole: float) -> str:
    """A share in a sentence, where 0% would be none."""
    return "less than 1%" if 0 < part < 0.005 * whole else percent(part, whole)


def _money(cost: Mapping[str, float]) -> str:
    return " + ".join(
        [
            f"{'<0.01' if 0 < abs(amount) < 0.005 else f'{amount:,.2f}'} {currency}"
            for currency, amount in sorted(cost.items())
        ]
    )


class Units(NamedTuple):
    """Units of energy and of carbon that a table is in, and what they are in joules and grams."""

    energy: str
    joules: float
    carbon: str
    grams: float

    def of(self, joules: float) -> str:
        """An amount of energy, without its unit."""
        return quantity(joules / self.joules)

    def of_carbon(self, grams: float | None) -> str:
        """An amount of CO2e, without its unit; "" for one that is unknown."""
        return quantity(None if grams is None else grams / self.grams)


def units(report: Report) -> Units:
    """Kilowatt-hours and kilograms, a thousandth of both where all together is less than one kilowatt-hour."""
    if report.total.total_joules < JOULES_PER_KWH:
        return Units("Wh", JOULES_PER_KWH / 1000, "g CO2e", 1.0)
    return Units("kWh", JOULES_PER_KWH, "kg CO2e", 1000.0)


def table(report: Report) -> tuple[int, list[str], list[list[str]]]:
    """Number of columns with names, head and rows as they are shown; columns without any value are left out."""
    labels = len(report.labels)
    unit = units(report)
    head = [*_titles(report.labels), "start", "end", "GPU hours", unit.energy, "share", "idle", "unused"]
    head += [
        f"GPU {unit.energy}",
        f"CPU {unit.energy}",
        unit.carbon,
        "cost",
        "with shared",
        "tokens",
        "J/token",
        "kWh a year",
    ]
    lines = _rows(report)
    rows = [_cells(report, unit, line) for line in lines]
    last = labels - 1  # always shown: it has the names of what is no line
    named = [
        column for column in range(labels) if column == last or any(row[column] for row in rows[: len(report.lines)])
    ]
    kept = [*named, *(column for column in range(labels, len(head)) if any(row[column] for row in rows))]
    shown = [[row[column] for column in kept] for row in rows]
    for line, cells in zip(lines, shown, strict=True):
        if line.kind != "line":  # its name is in the first column, not in the last of them
            cells[len(named) - 1], cells[0] = cells[0], printable(line.names[-1])
    return len(named), [head[column] for column in kept], shown


def _cells(report: Report, unit: Units, row: _Row) -> list[str]:
    used, borne = row.used, row.used.plus(row.share)
    joules = used.total_joules
    modes = any(mode for _, mode in used.joules)
    return [
        *map(printable, row.names),
        *_times(row.period, report.window),
        unit.of(joules),
        percent(joules, report.total.total_joules),
        percent(used.idle_joules, joules) if modes else "",
        "" if used.unused is None or not modes else percent(used.unused, joules),
        unit.of(used.of("gpu")) if used.of("gpu") else "",
        unit.of(used.of(*_HOST)) if used.of(*_HOST) else "",
        unit.of_carbon(used.grams),
        _money(used.cost),
        f"{unit.of(borne.total_joules)} {unit.energy} {_money(borne.cost)}".strip()
        if row.kind == "line" and report.spread != "none"
        else "",
        "" if used.tokens is None else f"{used.tokens:,.0f}",
        quantity(used.joules_per_token),
        quantity(report.kwh_per_year(used)),
    ]


def _times(period: Period | None, window: Window) -> list[str]:
    """Start, end and GPU hours; what ran at an edge of the window began before it, or goes on."""
    if period is None:
        return ["", "", ""]
    start = "before" if period.start < window.start + _EDGE_SECONDS else _time(period.start)
    end = "goes on" if period.end > window.end - _EDGE_SECONDS else _time(period.end)
    return [start, end, quantity(None if period.gpu_seconds is None else period.gpu_seconds / 3600)]


def _titles(labels: Sequence[str]) -> list[str]:
    return [label.removeprefix("label_").removesuffix("_name").replace("_", " ") for label in labels]


def notes(report: Report) -> list[str]:
    """What a reader must know of the numbers, in sentences."""
    window = report.window
    source = f", read from {report.source}" if report.source else ""
    said = [f"From {_time(window.start)} to {_time(window.end)}{source}."]
    if report.covered < 0.98 * window.seconds:
        said.append(
            f"Samples cover {_duration(report.covered)}, {part_of(report.covered, window.seconds)} of it, from "
            f"{_time(report.since)} on; the rest counts as no energy."
        )
    if report.spread != "none":
        rule = {"even": "evenly", "proportional": "in proportion to their own energy"}[report.spread]
        said.append(f"What no line used is spread over the lines {rule}.")
    if not report.currencies:
        said.append("No cost: the exporters have no price (--impact.price).")
    if report.total.grams is None:
        said.append("No grams of CO2e: the exporters have no carbon intensity (--impact.zone).")
    if len(report.currencies) > 1:
        said.append("Several currencies are never added up.")
    return [*said, *report.remarks]


def _duration(seconds: float) -> str:
    for name, length in (("days", 86400.0), ("hours", 3600.0), ("minutes", 60.0)):
        if seconds >= 2 * length:
            return f"{quantity(seconds / length)} {name}"
    return f"{seconds:.0f} seconds"


def _time(unix: float) -> str:
    return datetime.fromtimestamp(unix, UTC).strftime("%Y-%m-%d %H:%M UTC")


def text(report: Report) -> str:
    """For a terminal."""
    names, head, rows = table(report)
    widths = [max(width(row[column]) for row in (head, *rows)) for column in range(len(head))]

    def line(cells: Sequence[str]) -> str:
        aligned = [
            padded(cell, columns, right=number >= names)
            for number, (cell, columns) in enumerate(zip(cells, widths, strict=True))
        ]
        return "   ".join(aligned).rstrip()

    *parts, total = [line(row) for row in rows]
    rule = "─" * (sum(widths) + 3 * (len(widths) - 1))
    return "\n".join([line(head), rule, *parts, rule, total, "", *notes(report), ""])


def markdown(report: Report) -> str:
    """A table and the notes."""
    names, head, rows = table(report)
    rule = ["---" if number < names else "--:" for number in range(len(head))]
    lines = [head, rule, *(map(markdown_cell, row) for row in rows)]
    return "\n".join([*(f"| {' | '.join(line)} |" for line in lines), "", *notes(report), ""])


def comma_separated(report: Report) -> str:
    """Numbers in kWh, kg and units of the currency, not rounded; one column for the cost of each currency."""
    money = report.currencies
    out = io.StringIO()
    write = csv.writer(out, lineterminator="\n").writerow
    components = sorted({component for component, _ in report.total.joules})
    times = ["start", "end", "gpu_hours"] if any(line.period for line in report.lines) else []
    head = [
        "kind",
        *report.labels,
        *times,
        "kwh",
        *(f"kwh_{component}" for component in components),
        "kwh_idle",
        "kwh_unused",
        "kg_co2e",
    ]
    head += [*(f"cost_{currency}" for currency in money), "kwh_shared", "kg_co2e_shared"]
    write(
        [*head, *(f"cost_shared_{currency}" for currency in money), "output_tokens", "joules_per_token", "kwh_per_year"]
    )
    for row in _rows(report):
        used, share = row.used, row.share
        write(
            [
                row.kind,
                *map(spreadsheet_cell, row.names),
                *_moments(row.period)[: len(times)],
                used.total_joules / JOULES_PER_KWH,
                *(used.of(component) / JOULES_PER_KWH for component in components),
                used.idle_joules / JOULES_PER_KWH,
                "" if used.unused is None else used.unused / JOULES_PER_KWH,
                _kilograms(used),
                *(used.cost.get(currency, "") for currency in money),
                share.total_joules / JOULES_PER_KWH,
                _kilograms(share),
                *(share.cost.get(currency, "") for currency in money),
                "" if used.tokens is None else used.tokens,
                "" if used.joules_per_token is None else used.joules_per_token,
                report.kwh_per_year(used),
            ]
        )
    return out.getvalue()


def _moments(period: Period | None) -> list[str | float]:
    """Start and end in ISO 8601, and GPU hours."""
    if period is None:
        return ["", "", ""]
    start, end = (datetime.fromtimestamp(at, UTC).isoformat() for at in (period.start, period.end))
    return [start, end, "" if period.gpu_seconds is None else period.gpu_seconds / 3600]


def _kilograms(amounts: Amounts) -> float | str:
    return "" if amounts.grams is None else amounts.grams / 1000


def as_json(report: Report) -> str:
    """SI units, as in the metrics: joules and grams."""

    def amounts(one: Amounts) -> dict[str, Any]:
        cells = [
            {"component": component, "mode": mode, "joules": joules} for (component, mode), joules in one.joules.items()
        ]
        found: dict[str, Any] = {"joules": one.total_joules, "idle_joules": one.idle_joules, "components": cells}
        found["unused_joules"] = one.unused
        return found | {"carbon_grams": one.grams, "cost": dict(one.cost), "output_tokens": one.tokens}

    def ran(period: Period | None) -> dict[str, Any]:
        if period is None:
            return {}
        return {"start": period.start, "end": period.end, "gpu_seconds": period.gpu_seconds}

    lines = [
        {"labels": dict(zip(report.labels, line.names, strict=True)), **ran(line.period), **amounts(line.used)}
        | ({"shared": amounts(line.share)} if report.spread != "none" else {})
        for line in report.lines
    ]
    document = {
        "window": {"start": report.window.start, "end": report.window.end, "covered_seconds": report.covered},
        "spread": report.spread,
        "lines": lines,
        "shared": [{"reason": name, **amounts(one)} for name, one in report.shared],
        "total": amounts(report.total),
        "notes": notes(report),
    }
    return json.dumps(document, indent=2, ensure_ascii=False) + "\n"
