"""A comparison as text for a terminal, Markdown, JSON and one HTML page."""

from __future__ import annotations

import html
import json
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from .arms import GUARD_RAILS
from .bootstrap import Interval
from .cells import markdown_cell, padded, printable, width
from .comparison import Outcome, Side
from .formats import quantity
from .lines import JOULES_PER_KWH


def headline(outcome: Outcome) -> str:
    """The verdict in a sentence or two."""
    found = outcome.found
    saving = found.saving
    if saving is None:
        more = f" {_blocks(outcome, found.more_blocks)} more of each arm may do." if found.more_blocks else ""
        return f"Not enough data: {found.reason}.{more}"
    per = f"energy per {outcome.unit}" + ("" if outcome.unit == "hour" else " at equal load")
    sure = f"{found.level:.0%}"
    if found.verdict == "saves":
        return f"B saves {saving.middle:.1%} of A's {per} ({saving.low:.1%} to {saving.high:.1%}, {sure})."
    if found.verdict == "costs more":
        return f"B costs {-saving.middle:.1%} more {per} than A ({-saving.high:.1%} to {-saving.low:.1%}, {sure})."
    between = f"B uses between {_signed(saving.high)} and {_signed(saving.low)} {per} ({sure})"
    more = f" {_blocks(outcome, found.more_blocks)} more of each arm would show a difference as large as the one seen."
    return f"No difference seen: {between}.{more if 0 < found.more_blocks < 20_000 else ''}"


def _signed(saving: float) -> str:
    return f"{saving:.1%} less" if saving >= 0 else f"{-saving:.1%} more"


def _blocks(outcome: Outcome, count: int) -> str:
    minutes = outcome.options.block_seconds / 60
    return f"{count:,} block{'s' if count != 1 else ''} of {minutes:g} minutes"


def worth(outcome: Outcome) -> str:
    """What that is in a year, "" without a verdict of a difference."""
    kwh = outcome.kwh_per_year
    if kwh is None or outcome.found.verdict not in ("saves", "costs more"):
        return ""
    sign = 1 if outcome.found.verdict == "saves" else -1
    parts = [f"{_span(kwh.times(sign), quantity)} kWh"]
    parts += [
        f"{_span(amount.times(sign), lambda value: f'{value:,.2f}')} {currency}"
        for currency, amount in sorted(outcome.money_per_year.items())
    ]
    return f"In a year at the current traffic that is {' and '.join(parts)}{'' if sign == 1 else ' more'}."


def _span(interval: Interval, write: Callable[[float], str]) -> str:
    return f"{write(interval.middle)} ({write(interval.low)} to {write(interval.high)})"


def table(outcome: Outcome) -> list[tuple[str, str, str]]:
    """Rows of what both arms were: a name, and the values of A and B; rows without a value are left out."""
    unit, found = outcome.unit, outcome.found
    at_mix = found.joules_per_work or (None, None)

    def row(name: str, of: Callable[[Side], str]) -> tuple[str, str, str]:
        return name, of(outcome.sides[0]), of(outcome.sides[1])

    rows = [
        row("is", lambda side: printable(side.arm.selector.text)),
        row("from", lambda side: _time(side.arm.window.start)),
        row("to", lambda side: _time(side.arm.window.end)),
        row("ran on", lambda side: ", ".join(sorted(side.arm.ran_on))),
        row("blocks", lambda side: f"{len(side.blocks)}"),
        ("blocks, as independent ones", f"{found.effective_blocks[0]:.0f}", f"{found.effective_blocks[1]:.0f}"),
        ("work in common bins", f"{found.paired_ratio[0]:.0%}", f"{found.paired_ratio[1]:.0%}"),
        (f"J per {unit}, same load and mix", quantity(at_mix[0]), quantity(at_mix[1])),
        row(f"J per {unit}, as it ran", lambda side: quantity(side.joules_per_work)),
        row("kWh", lambda side: quantity(side.joules / JOULES_PER_KWH)),
        row("idle share", lambda side: _ratio(side.idle_ratio)),
        row("servers, mean", lambda side: quantity(side.servers)),
        row("prompt tokens by output token", lambda side: quantity(side.mix)),
        row("prompt tokens from a cache", lambda side: _ratio(side.cached_ratio)),
        row("output tokens of a request", lambda side: quantity(side.length)),
        row("SM clock, GHz", lambda side: quantity(side.clock_hertz / 1e9 if side.clock_hertz else None)),
    ]
    if unit != "hour":
        where = " of a server" if outcome.options.by_server else ""
        rows += [
            row(f"{unit}s/s{where}, mean", lambda side: quantity(side.load)),
            row(f"{unit}s/s{where}, highest", lambda side: quantity(side.highest_load)),
        ]
    for name in (*(name for name, _ in GUARD_RAILS), "share of requests that were aborted"):
        rows.append(row(name, lambda side, name=name: quantity(side.arm.guard_rails.get(name))))  # type: ignore[misc]
    shown = [one for one in rows if one[1] or one[2]]
    if not any(side.arm.guard_rails for side in outcome.sides):
        shown.append(("latency and errors", "not scraped", "not scraped"))
    return [*shown, ("quality", "not measured here", "not measured here")]


def _ratio(value: float | None) -> str:
    return "" if value is None else f"{value:.0%}"


def _time(unix: float) -> str:
    return datetime.fromtimestamp(unix, UTC).strftime("%Y-%m-%d %H:%M UTC")


def bins(outcome: Outcome) -> list[tuple[str, ...]]:
    """Rows of the bins: load, mix, blocks and joules by work of A and B, saving."""
    return [
        (
            f"{quantity(one.low_load)} to {quantity(one.high_load)}",
            quantity(one.mix) if one.mix else "",
            str(one.blocks[0]),
            str(one.blocks[1]),
            quantity(one.joules_per_work[0]),
            quantity(one.joules_per_work[1]),
            f"{1 - one.joules_per_work[1] / one.joules_per_work[0]:+.0%}",
        )
        for one in outcome.found.bins
    ]


def _bin_titles(outcome: Outcome) -> tuple[str, ...]:
    per = f"J per {outcome.unit}"
    return (f"{outcome.unit}s/s", "prompt by output", "blocks A", "blocks B", f"{per}, A", f"{per}, B", "saving")


def text(outcome: Outcome) -> str:
    """For a terminal."""
    parts = [headline(outcome), *filter(None, (worth(outcome),)), "", _aligned([("", "A", "B"), *table(outcome)])]
    if outcome.found.bins and outcome.unit != "hour":
        parts += ["", _aligned([_bin_titles(outcome), *bins(outcome)], right=True)]
    return "\n".join([*parts, "", *outcome.notes, ""])


def _aligned(rows: list[Any], *, right: bool = False) -> str:
    widths = [max(width(row[column]) for row in rows) for column in range(len(rows[0]))]

    def line(row: tuple[str, ...]) -> str:
        cells = [padded(cell, columns, right=right) for cell, columns in zip(row, widths, strict=True)]
        return "   ".join(cells).rstrip()

    return "\n".join(line(row) for row in rows)


def markdown(outcome: Outcome) -> str:
    """The verdict, two tables and the notes."""
    lines = [f"**{headline(outcome)}** {worth(outcome)}".strip(), "", *_markdown([("", "A", "B"), *table(outcome)])]
    if outcome.found.bins and outcome.unit != "hour":
        lines += ["", *_markdown([_bin_titles(outcome), *bins(outcome)])]
    return "\n".join([*lines, "", *(f"- {note}" for note in outcome.notes), ""])


def _markdown(rows: list[Any]) -> list[str]:
    written = [f"| {' | '.join(map(markdown_cell, row))} |" for row in rows]
    return [written[0], f"|{' --- |' * len(rows[0])}", *written[1:]]


def as_json(outcome: Outcome) -> str:
    """SI units: joules, seconds; shares from 0 to 1."""
    found = outcome.found

    def interval(one: Interval | None) -> dict[str, float] | None:
        return None if one is None else one._asdict()

    def side(one: Side) -> dict[str, Any]:
        return {
            "selector": one.arm.selector.text,
            "window": {"start": one.arm.window.start, "end": one.arm.window.end},
            "ran_on": sorted(one.arm.ran_on),
            "blocks": len(one.blocks),
            "dropped_blocks": dict(one.arm.dropped),
            "joules": one.joules,
            "work": one.work,
            "joules_per_work": one.joules_per_work,
            "idle_ratio": one.idle_ratio,
            "mean_load": one.load,
            "prompt_tokens_per_output_token": one.mix,
            "cached_prompt_ratio": one.cached_ratio,
            "output_tokens_per_request": one.length,
            "servers": one.servers,
            "sm_clock_hertz": one.clock_hertz,
            "guard_rails": dict(one.arm.guard_rails),
        }

    document = {
        "verdict": found.verdict,
        "reason": found.reason,
        "headline": headline(outcome),
        "level": found.level,
        "unit": outcome.unit,
        "boundary": outcome.options.boundary,
        "idle_included": not outcome.options.active,
        "block_seconds": outcome.options.block_seconds,
        "saving_ratio": interval(found.saving),
        "kwh_per_year": interval(outcome.kwh_per_year),
        "money_per_year": {currency: interval(one) for currency, one in outcome.money_per_year.items()},
        "paired_ratio": found.paired_ratio,
        "effective_blocks": found.effective_blocks,
        "more_blocks": found.more_blocks,
        "a": side(outcome.sides[0]),
        "b": side(outcome.sides[1]),
        "bins": [one._asdict() for one in found.bins],
        "quality": "not measured here",
        "notes": list(outcome.notes),
    }
    return json.dumps(document, indent=2, ensure_ascii=False) + "\n"


_STYLE = """
:root { color-scheme: light dark; font: 15px/1.45 system-ui, sans-serif; }
body { max-width: 60rem; margin: 2rem auto; padding: 0 1rem; }
table { border-collapse: collapse; margin: 1rem 0; }
th, td { padding: .3rem .6rem; border-bottom: 1px solid #8885; text-align: left; overflow-wrap: anywhere; }
td { font-variant-numeric: tabular-nums; }
.verdict { font-size: 1.25rem; font-weight: 600; }
"""


def page(outcome: Outcome) -> str:
    """One HTML page without scripts and without requests to anywhere."""
    tables = [_html([("", "A", "B"), *table(outcome)])]
    if outcome.found.bins and outcome.unit != "hour":
        tables.append(_html([_bin_titles(outcome), *bins(outcome)]))
    notes = "".join(f"<li>{html.escape(note)}</li>" for note in outcome.notes)
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width"><title>Energy of A and B</title>'
        f"<style>{_STYLE}</style></head>\n<body><h1>Energy of A and B</h1>"
        f'<p class="verdict">{html.escape(headline(outcome))}</p><p>{html.escape(worth(outcome))}</p>'
        f"{''.join(tables)}<ul>{notes}</ul></body></html>\n"
    )


def _html(rows: list[Any]) -> str:
    def cells(row: tuple[str, ...], tag: str) -> str:
        return "".join(f"<{tag}>{html.escape(cell)}</{tag}>" for cell in row)

    body = "".join(f"<tr>{cells(row, 'td')}</tr>" for row in rows[1:])
    return f"<table><thead><tr>{cells(rows[0], 'th')}</tr></thead><tbody>{body}</tbody></table>\n"
