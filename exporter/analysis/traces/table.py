"""A priced trace as lines: joules by range, kernel, layer, stream or device."""

from __future__ import annotations

import csv
import io
import json
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from ..cells import markdown_cell, padded, printable, spreadsheet_cell, width
from ..formats import quantity
from .pricing import NoMeterError, Point, Priced, price
from .trace import NANOSECONDS, Device, Trace, TraceError, Work

SEPARATOR = " / "

BY: Mapping[str, tuple[Callable[[Work], str], str]] = {
    "range": (lambda one: SEPARATOR.join(one.ranges), "(in no range)"),
    "kernel": (lambda one: one.name, "(unnamed)"),
    "layer": (lambda one: SEPARATOR.join(one.layers), "(in no layer)"),
    "stream": (lambda one: f"{one.device}{SEPARATOR}{one.stream}", ""),
    "device": (lambda one: one.device, ""),
}
"""What a table can be by → the name of a piece of work, and what it is called without one."""

OUTSIDE = "(nothing ran)"


@dataclass(frozen=True, slots=True)
class Line:
    """Joules and seconds of all pieces of work of a name, and how many they are.

    ``seconds`` are summed over streams and threads, which may run at the same time.
    """

    name: str
    joules: float
    seconds: float
    count: int

    @property
    def watts(self) -> float | None:
        """Mean power while it ran; None if its time is 0."""
        return self.joules / self.seconds if self.seconds else None


@dataclass(frozen=True, slots=True)
class PricedTrace:
    """A trace with the joules of its devices that could be priced, and ``notes`` in sentences."""

    trace: Trace
    priced: Mapping[str, tuple[Sequence[Work], Priced]]
    notes: Sequence[str]

    @property
    def total_joules(self) -> float:
        """Of all devices, also while nothing ran."""
        return sum(priced.total_joules for _, priced in self.priced.values())

    def lines(self, by: str) -> list[Line]:
        """By falling joules, and the time in which nothing ran at last. Σ joules = `total_joules`."""
        name_of, nameless = BY[by]
        joules: defaultdict[str, float] = defaultdict(float)
        seconds: defaultdict[str, float] = defaultdict(float)
        counts: defaultdict[str, int] = defaultdict(int)
        for work, priced in self.priced.values():
            for one, amount in zip(work, priced.joules, strict=True):
                name = name_of(one) or nameless
                joules[name] += amount
                seconds[name] += (one.end - one.start) * NANOSECONDS
                counts[name] += 1
        found = [Line(name, joules[name], seconds[name], counts[name]) for name in joules]
        found.sort(key=lambda line: (-line.joules, line.name))
        outside = sum(priced.outside_joules for _, priced in self.priced.values())
        return [*found, Line(OUTSIDE, outside, 0.0, 0)]


def price_trace(trace: Trace, points_of: Callable[[Device], Sequence[Point]]) -> PricedTrace:
    """Price each device of a trace that has a meter. Raises `TraceError` if none has one."""
    priced: dict[str, tuple[Sequence[Work], Priced]] = {}
    without: list[str] = []
    notes = [*trace.notes, f"Recorded {_time(trace.start)} for {quantity(trace.seconds)} s."]
    for device in trace.devices:
        work = [one for one in trace.work if one.device == device.key]
        name = f"device {device.key}" + f" ({device.name})" * bool(device.name)
        try:
            found = price(work, points_of(device))
        except NoMeterError as error:
            without.append(f"{name}: {error}")
            continue
        if found is None:
            without.append(f"{name}: its meter has no two samples around the trace")
            continue
        priced[device.key] = (work, found)
        notes += _notes(name, work, found)
    if not priced:
        raise TraceError("nothing can be priced: " + "; ".join(without))
    return PricedTrace(trace, priced, [*notes, *(f"Not priced: {each}." for each in without)])


def _notes(name: str, work: Sequence[Work], found: Priced) -> Iterator[str]:
    """How fine the prices of a device are, and what has none."""
    period = found.period_seconds
    shorter = sum(one.end - one.start < period / NANOSECONDS for one in work)
    yield (
        f"{name}: {quantity(found.total_joules)} J by a meter with a value each {quantity(period)} s. {shorter:,} of "
        f"{len(work):,} pieces of work are shorter, and have the mean power of that time."
    )
    if found.unpriced_seconds > 0:
        yield f"{name}: {quantity(found.unpriced_seconds)} s of its work are before or after the meter's samples: 0 J."


def _time(nanoseconds: int) -> str:
    return datetime.fromtimestamp(nanoseconds * NANOSECONDS, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")


def top(lines: Sequence[Line], count: int) -> list[Line]:
    """The first ``count``, the others as one, and the last; all of them if ``count`` is 0."""
    *named, outside = lines
    if not count or len(named) <= count:
        return list(lines)
    rest = named[count:]
    name = f"({len(rest)} others)"
    others = Line(
        name, sum(one.joules for one in rest), sum(one.seconds for one in rest), sum(one.count for one in rest)
    )
    return [*named[:count], others, outside]


_HEAD = ("", "J", "share", "s", "count", "J each", "W")


def _cells(line: Line, total: float) -> list[str]:
    return [
        printable(line.name),
        quantity(line.joules),
        f"{line.joules / total:.1%}" if total > 0 else "",
        quantity(line.seconds) if line.count else "",
        f"{line.count:,}" if line.count else "",
        quantity(line.joules / line.count) if line.count else "",
        quantity(line.watts) if line.watts is not None else "",
    ]


def text(found: PricedTrace, by: str, count: int) -> str:
    """For a terminal."""
    rows = [_cells(line, found.total_joules) for line in top(found.lines(by), count)]
    total = ["total", quantity(found.total_joules), "", "", "", "", ""]
    head = [by, *_HEAD[1:]]
    widths = [max(width(row[column]) for row in (head, *rows, total)) for column in range(len(head))]

    def line(cells: Sequence[str]) -> str:
        aligned = [
            padded(cell, columns, right=number > 0)
            for number, (cell, columns) in enumerate(zip(cells, widths, strict=True))
        ]
        return "   ".join(aligned).rstrip()

    rule = "─" * (sum(widths) + 3 * (len(widths) - 1))
    return "\n".join([line(head), rule, *map(line, rows), rule, line(total), "", *found.notes, ""])


def markdown(found: PricedTrace, by: str, count: int) -> str:
    """A table and the notes."""
    rows = [_cells(line, found.total_joules) for line in top(found.lines(by), count)]
    head, rule = [by, *_HEAD[1:]], ["---", *["--:"] * (len(_HEAD) - 1)]
    lines = [head, rule, *(map(markdown_cell, row) for row in rows)]
    return "\n".join([*(f"| {' | '.join(cells)} |" for cells in lines), "", *found.notes, ""])


def comma_separated(found: PricedTrace, by: str) -> str:
    """One row for each name, not rounded."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow([by, "joules", "seconds", "count"])
    for line in found.lines(by):
        writer.writerow([spreadsheet_cell(line.name), line.joules, line.seconds, line.count])
    return out.getvalue()


def as_json(found: PricedTrace, by: str) -> str:
    """Joules and seconds, with the devices and the notes."""
    devices = [
        {
            "device": device._asdict(),
            "joules": priced.total_joules,
            "outside_joules": priced.outside_joules,
            "meter_period_seconds": priced.period_seconds,
            "unpriced_seconds": priced.unpriced_seconds,
        }
        for device in found.trace.devices
        for _, priced in [found.priced.get(device.key, (None, None))]
        if priced is not None
    ]
    lines = [
        {"name": line.name, "joules": line.joules, "seconds": line.seconds, "count": line.count}
        for line in found.lines(by)
    ]
    document = {
        "start": found.trace.start * NANOSECONDS,
        "seconds": found.trace.seconds,
        "total_joules": found.total_joules,
        "devices": devices,
        "by": by,
        "lines": lines,
        "notes": list(found.notes),
    }
    return json.dumps(document, indent=2) + "\n"
