"""Advice as text for a terminal, Markdown, CSV, JSON and one HTML page."""

from __future__ import annotations

import csv
import html
import io
import json
import textwrap
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from typing import Any

from .adoption import Followed
from .advice import Advice, Advised
from .bootstrap import Interval
from .cells import markdown_cell, printable, spreadsheet_cell
from .evidence import evidence
from .facts import Subject
from .formats import part_of, quantity
from .levers.lever import CONFIDENCE, Level
from .lines import JOULES_PER_KWH
from .uses import sentences

LEVELS: dict[Level, str] = {
    "measured": "measured here",
    "observed": "observed curve",
    "bound": "bound",
    "hint": "hint without a number",
    "silent": "does not apply, or not known",
}


def name(subject: Subject) -> str:
    """A subject as readers know it."""
    parts = [part for part in (subject.cluster, subject.namespace, subject.name) if part]
    kind = {"node": "node ", "workload": "workload ", "model": ""}[subject.kind]
    phase = f" ({subject.phase})" if subject.phase == "training" else ""
    return f"{kind}{printable('/'.join(parts)) or '–'}{phase}"


def _time(unix: float) -> str:
    return datetime.fromtimestamp(unix, UTC).strftime("%Y-%m-%d %H:%M UTC")


def _range(interval: Interval, unit: str, scale: float = 1.0) -> str:
    low, high = interval.low * scale, interval.high * scale
    if low <= 0:
        return f"at most {quantity(high)} {unit}"
    return f"{quantity(low)} to {quantity(high)} {unit}"


def saving(advice: Advice) -> str:
    """What a month saves, in one line; "" for a hint."""
    parts = []
    if advice.kwh:
        parts.append(_range(advice.kwh, "kWh"))
    if advice.grams:
        parts.append(_range(advice.grams, "kg CO2e", 1e-3))
    parts += [_range(interval, currency) for currency, interval in advice.cost.items()]
    return ", ".join(parts)


def notes(advised: Advised) -> list[str]:
    """What a reader must know, in sentences."""
    grid = advised.grid
    said = [
        f"From {_time(grid.start)} to {_time(grid.start + grid.seconds)}; savings are of 30 days like these, "
        f"intervals cover {CONFIDENCE:.0%}. Each joule is saved by one lever only, so savings add up."
    ]
    if advised.asked_seconds > 1.02 * grid.seconds:
        covered = part_of(grid.seconds, advised.asked_seconds)
        said.append(f"Samples cover {covered} of the window that was asked for.")
    return said + [f"No {kind}: {reason}." for kind, reason in advised.missing.items()]


def summary(advised: Advised) -> str:
    """What was used, and what could be saved, in a sentence."""
    whole = advised.joules / JOULES_PER_KWH
    seen = f"at least {quantity(advised.seen_kwh)} kWh" if advised.seen_kwh else "none"
    bounds = f"at most {quantity(advised.bound_kwh)} kWh" if advised.bound_kwh else "none"
    return f"{quantity(whole)} kWh were used. A month's savings that were seen here: {seen}; bounds besides: {bounds}."


def _numbered(advised: Advised) -> tuple[list[Advice], list[Advice]]:
    hints = [advice for advice in advised.recommended if advice.finding.level == "hint"]
    return [advice for advice in advised.recommended if advice.finding.level != "hint"], hints


def _reasons(advised: Advised) -> Iterator[tuple[Subject, list[Advice]]]:
    by: defaultdict[Subject, list[Advice]] = defaultdict(list)
    for advice in advised.checked:
        by[advice.subject].append(advice)
    joules = {used.subject: used.joules for used in advised.uses}
    yield from sorted(by.items(), key=lambda item: (-joules.get(item[0], 0.0), item[0]))


def _followed(each: Followed) -> str:
    predicted = _range(each.predicted, "kWh a month were predicted") if each.predicted else "nothing was predicted"
    realised = _range(each.realised, "kWh a month saved") if each.realised.high > 0 else "no saving"
    if each.realised.low <= 0 < each.realised.high:
        realised = f"not sure to save: {quantity(each.realised.low)} to {quantity(each.realised.high)} kWh a month"
    return f"{name(each.subject)}: {each.lever}, {_time(each.at)}: {each.what}; {predicted}, {realised}"


def text(advised: Advised, *, everything: bool = False, why: bool = False) -> str:
    """For a terminal.

    With ``everything`` also queries, and each reason of each lever that does not apply; with ``why`` first what each
    subject used its energy for.
    """
    numbered, hints = _numbered(advised)
    lines: list[str] = []
    for used in sorted(advised.uses, key=lambda used: -used.joules) if why else ():
        lines += [name(used.subject), *(f"   {line}" for line in sentences(used)), ""]
    for number, advice in enumerate(numbered, 1):
        lever = advice.lever
        lines += [
            f"{number}. {name(advice.subject)}: {lever.title} ({lever.name})",
            f"   saves   {saving(advice)} a month ({LEVELS[advice.finding.level]})",
            *_wrapped(f"   why     {advice.finding.because}"),
            *_wrapped(f"   not if  {lever.would_change}"),
            *_wrapped(f"   risk    {lever.risk}"),
            *_wrapped(f"   undo    {lever.undo}"),
        ]
        if everything:
            shown, against = evidence(advice, advised)
            lines += [f"   for     {shown}", f"   against {against}", *_wrapped(f"   others  {lever.published}")]
        lines.append("")
    if numbered:
        lines += [summary(advised), ""]
    else:
        lines += ["Nothing to change whose saving is known.", ""]
    if hints:
        lines.append("Worth a try, saving not known (compare measures it):")
        lines += [
            f"  {name(one.subject)}: {one.lever.title} ({one.lever.name}): {one.finding.because}" for one in hints
        ]
        lines.append("")
    if advised.followed:
        lines += ["Followed:", *(f"  {_followed(each)}" for each in advised.followed), ""]
    lines += _checked(advised, everything)
    return "\n".join([*lines, *notes(advised), ""])


def _wrapped(line: str) -> list[str]:
    """A line of a recommendation, the rest of it below its beginning."""
    return textwrap.wrap(line, _WIDTH, subsequent_indent=" " * 11, break_long_words=False, break_on_hyphens=False)


def _checked(advised: Advised, everything: bool) -> list[str]:
    if not advised.checked:
        return []
    if everything:
        lines = ["Checked, does not apply:"]
        for subject, found in _reasons(advised):
            lines += [f"  {name(subject)}", *(f"    {one.lever.name}: {one.finding.because}" for one in found)]
        return [*lines, ""]
    counts = Counter(one.lever.name for one in advised.checked)
    words = ", ".join(f"{lever} {count}" for lever, count in counts.most_common())
    said = f"Checked, does not apply, and for how many (why: --all): {words}."
    return [*textwrap.wrap(said, _WIDTH, subsequent_indent="  "), ""]


_WIDTH = 120

_HEAD = ("model", "lever", "kWh a month", "kg CO2e a month", "cost a month", "level", "why")


def table(advised: Advised) -> list[list[str]]:
    """Rows of what is recommended."""
    return [
        [
            name(advice.subject),
            advice.lever.name,
            _range(advice.kwh, "kWh") if advice.kwh else "",
            _range(advice.grams, "kg", 1e-3) if advice.grams else "",
            ", ".join(_range(interval, currency) for currency, interval in advice.cost.items()),
            LEVELS[advice.finding.level],
            advice.finding.because,
        ]
        for advice in advised.recommended
    ]


def markdown(advised: Advised) -> str:
    """A table, what was followed, what does not apply, and the notes."""
    rows = [list(_HEAD), ["---"] * len(_HEAD), *table(advised)]
    lines = [f"| {' | '.join(map(markdown_cell, row))} |" for row in rows]
    if advised.followed:
        lines += ["", "Followed:", "", *(f"- {markdown_cell(_followed(each))}" for each in advised.followed)]
    lines += ["", "Checked, does not apply:", ""]
    lines += [
        f"- {markdown_cell(name(subject))}: " + "; ".join(f"`{one.lever.name}`: {one.finding.because}" for one in found)
        for subject, found in _reasons(advised)
    ]
    return "\n".join([*lines, "", *notes(advised), ""])


def comma_separated(advised: Advised) -> str:
    """Not rounded: kWh, kg and units of the currency of 30 days; one row for each subject and lever."""
    currencies = sorted({currency for advice in advised.recommended for currency in advice.cost})
    out = io.StringIO()
    write = csv.writer(out, lineterminator="\n").writerow
    head = ["kind", "cluster", "namespace", "name", "phase", "lever", "level"]
    head += ["kwh_low", "kwh_high", "kwh_floor", "kg_co2e_low", "kg_co2e_high"]
    head += [f"cost_{currency}_{end}" for currency in currencies for end in ("low", "high")]
    write([*head, "why"])
    for advice in (*advised.recommended, *advised.checked):
        money = [advice.cost.get(currency) for currency in currencies]
        write(
            [
                *map(spreadsheet_cell, advice.subject),
                advice.lever.name,
                advice.finding.level,
                *_ends(advice.kwh),
                advice.floor_kwh if advice.kwh else "",
                *_ends(advice.grams, 1e-3),
                *(end for interval in money for end in _ends(interval)),
                advice.finding.because,
            ]
        )
    return out.getvalue()


def _ends(interval: Interval | None, scale: float = 1.0) -> tuple[float | str, float | str]:
    return (interval.low * scale, interval.high * scale) if interval else ("", "")


def as_json(advised: Advised) -> str:
    """For programs: everything, kWh and grams of 30 days."""

    def interval(one: Interval | None) -> dict[str, float] | None:
        return one and {"low": one.low, "middle": one.middle, "high": one.high}

    def entry(advice: Advice) -> dict[str, Any]:
        found: dict[str, Any] = {
            "subject": advice.subject._asdict(),
            "lever": advice.lever.name,
            "level": advice.finding.level,
            "because": advice.finding.because,
        }
        if not advice.is_recommended:
            return found
        shown, against = evidence(advice, advised)
        lever = advice.lever
        return found | {
            "title": lever.title,
            "kwh": interval(advice.kwh),
            "floor_kwh": advice.floor_kwh,
            "carbon_grams": interval(advice.grams),
            "cost": {currency: interval(one) for currency, one in advice.cost.items()},
            "evidence": shown,
            "counter_evidence": against,
            "would_change": lever.would_change,
            "risk": lever.risk,
            "undo": lever.undo,
            "published": lever.published,
        }

    document = {
        "window": {
            "start": advised.grid.start,
            "end": advised.grid.start + advised.grid.seconds,
            "step_seconds": advised.grid.step,
        },
        "month_days": 30,
        "confidence": CONFIDENCE,
        "recommended": [entry(advice) for advice in advised.recommended],
        "checked": [entry(advice) for advice in advised.checked],
        "followed": [
            {
                "subject": each.subject._asdict(),
                "lever": each.lever,
                "what": each.what,
                "at": each.at,
                "predicted_kwh": interval(each.predicted),
                "realised_kwh": interval(each.realised),
            }
            for each in advised.followed
        ],
        "uses": [
            {
                "subject": used.subject._asdict(),
                "joules": used.joules,
                "gpu_joules": used.gpu_joules,
                "gpu_idle_joules": used.gpu_idle_joules,
                "activity_joules": used.activities,
                "output_tokens": used.tokens or None,
            }
            for used in advised.uses
        ],
        "seen_kwh": advised.seen_kwh,
        "bound_kwh": advised.bound_kwh,
        "floor_kwh": advised.floor_kwh,
        "notes": notes(advised),
    }
    return json.dumps(document, indent=2, ensure_ascii=False) + "\n"


_STYLE = """
:root { color-scheme: light dark; font: 15px/1.45 system-ui, sans-serif; }
body { max-width: 75rem; margin: 2rem auto; padding: 0 1rem; }
table { border-collapse: collapse; width: 100%; }
th, td { padding: .3rem .6rem; border-bottom: 1px solid #8885; text-align: left; vertical-align: top; }
.bar { position: relative; height: .7rem; min-width: 8rem; background: #8882; }
.bar span { position: absolute; top: 0; bottom: 0; background: #3274d9; }
.bar .bound { background: #e0a030; }
code { overflow-wrap: anywhere; }
"""


def page(advised: Advised) -> str:
    """One HTML page without scripts and without requests to anywhere."""
    numbered, hints = _numbered(advised)
    most = max((advice.kwh.high for advice in numbered if advice.kwh), default=0.0) or 1.0
    rows = "".join(_row(advice, advised, most) for advice in numbered)
    said = "".join(f"<p>{html.escape(note)}</p>\n" for note in notes(advised))
    sections = [
        (
            "Worth a try, saving not known",
            [f"{name(one.subject)}: {one.lever.title}: {one.finding.because}" for one in hints],
        ),
        ("Followed", [_followed(each) for each in advised.followed]),
        (
            "Checked, does not apply",
            [
                f"{name(subject)}: " + "; ".join(f"{one.lever.name}: {one.finding.because}" for one in found)
                for subject, found in _reasons(advised)
            ],
        ),
    ]
    lists = "".join(_list(title, items) for title, items in sections if items)
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>What to change</title>\n'
        f'<meta name="viewport" content="width=device-width"><style>{_STYLE}</style></head>\n'
        f"<body><h1>What to change</h1>\n{said}"
        f"<p>{html.escape(summary(advised))}</p>\n"
        "<table><thead><tr><th>What</th><th>Saves a month</th><th></th><th>Why, and when not</th></tr></thead><tbody>\n"
        f"{rows}</tbody></table>\n{lists}</body></html>\n"
    )


def _row(advice: Advice, advised: Advised, most: float) -> str:
    shown, against = evidence(advice, advised)
    lever, bar = advice.lever, ""
    if advice.kwh:
        left, width = advice.kwh.low / most, (advice.kwh.high - advice.kwh.low) / most
        kind = "bound" if advice.finding.level == "bound" else "interval"
        bar = (
            f'<div class="bar"><span class="{kind}" style="left:{left:.2%};width:{max(width, 0.005):.2%}"></span></div>'
        )
    escaped = [
        html.escape(each)
        for each in (
            *(name(advice.subject), lever.title, lever.name, saving(advice), LEVELS[advice.finding.level]),
            *(advice.finding.because, lever.would_change, lever.risk, lever.undo, shown, against, lever.published),
        )
    ]
    who, title, key, saves, level, because, unless, risk, undo, query, counter, published = escaped
    return (
        f"<tr><td><b>{who}</b><br>{title} <code>{key}</code></td><td>{saves}<br><small>{level}</small></td>"
        f"<td>{bar}</td><td>{because}<br><small>Not if: {unless}. Risk: {risk}. Undo: {undo}. "
        f"For: <code>{query}</code>. Against: <code>{counter}</code>. Elsewhere: {published}.</small></td></tr>\n"
    )


def _list(title: str, items: Sequence[str]) -> str:
    return f"<h2>{html.escape(title)}</h2>\n<ul>{''.join(f'<li>{html.escape(item)}</li>' for item in items)}</ul>\n"
