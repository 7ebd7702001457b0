"""``ai-energy-exporter advise``: what to change to save energy, and how much it would save."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from fnmatch import fnmatchcase

from ..analysis import advice, advice_formats, fleet, fleet_history
from ..analysis.facts import Fleet, Subject
from ..analysis.history import History
from ..analysis.window import Window
from . import read_back
from .progress import progress

_EXAMPLES = """\
examples:
  ai-energy-exporter advise --since 30d
  ai-energy-exporter advise --model 'Qwen/*' --all
  ai-energy-exporter advise --since 7d --format html --output advice.html
  ai-energy-exporter advise --fail-above 100kWh

exit status: 0 success, 3 more could be saved than --fail-above, 2 usage error, 1 anything else, such as no data
"""

ABOVE = 3
"""Exit status if more could be saved than ``--fail-above``."""

_AMOUNT = re.compile(r"([0-9]+(?:\.[0-9]+)?)\s*([A-Za-z]{3})")


def parser() -> read_back.Parser:
    """Its flags."""
    made = read_back.parser(
        "advise",
        "Print what to change to save energy, with evidence, interval and counter-evidence. See docs/advise.md.",
        _EXAMPLES,
    )
    read_back.add_history(made)
    read_back.add_window(made, since="30d")
    add = made.add_argument
    add(
        "--model",
        metavar="PATTERN",
        default="*",
        help="only models with this name, and first why they use what they do; * and ? as in a shell",
    )
    add(
        "--by",
        choices=("rank", "model", "namespace", "lever"),
        default="rank",
        help="what is listed side by side: rank (default), the largest saving first, or of a model, namespace or lever",
    )
    add("--all", action="store_true", help="in text also the queries, and why each other lever does not apply")
    add("--format", choices=("text", "markdown", "json", "html", "csv"), default="text", help="text by default")
    read_back.add_output(made)
    add(
        "--fail-above",
        metavar="AMOUNT",
        default="",
        help="exit with status 3 if the lower bounds of a month's savings are more in sum, such as 100kWh or 25EUR",
    )
    return made


def run(words: Sequence[str], environ: Mapping[str, str] = os.environ, now: Callable[[], float] = time.time) -> int:
    """Run the command. Returns the exit status: 0, 3 above ``--fail-above``, 2 for invalid usage, 1 without data."""
    return read_back.run(parser(), words, environ, lambda given: _answer(given, environ, now()))


def _answer(given: read_back.Given, environ: Mapping[str, str], now: float) -> tuple[str, int]:
    asked, limit = read_back.window(given, now), _limit(given["fail_above"])
    facts = _read(given, environ, asked)
    pattern = given["model"]

    def wanted(subject: Subject) -> bool:
        return pattern == "*" or (subject.kind == "model" and fnmatchcase(subject.name, pattern))

    if not any(wanted(each.subject) for each in facts.subjects):
        raise ValueError(f"{pattern}: no model of this name used energy in the window")
    advised = replace(advice.advise(facts, wanted), asked_seconds=asked.seconds)
    if given["by"] != "rank":
        advised = advice.group(advised, given["by"])
    render: dict[str, Callable[[], str]] = {
        "text": lambda: advice_formats.text(advised, everything=given["all"], why=pattern != "*"),
        "markdown": lambda: advice_formats.markdown(advised),
        "json": lambda: advice_formats.as_json(advised),
        "html": lambda: advice_formats.page(advised),
        "csv": lambda: advice_formats.comma_separated(advised),
    }
    return render[given["format"]](), ABOVE if limit and limit(advised) else 0


def _read(given: read_back.Given, environ: Mapping[str, str], asked: Window) -> Fleet:
    """The facts of the history or the server that was asked for. Raises `QueryError`, `ConfigError`."""
    source = read_back.source(given, environ)
    if isinstance(source, History):
        asked = source.aligned(asked)
        return fleet_history.read(source, Window(max(asked.start, source.coverage(asked).since), asked.end))
    prometheus, matchers = read_back.connect(given), read_back.matchers(given)
    with progress(fleet.STEPS) as advance:
        return fleet.read(prometheus, fleet.grid(prometheus, asked, matchers), matchers, advance)


def _limit(amount: str) -> Callable[[advice.Advised], bool] | None:
    """Whether more could be saved than an amount such as 100kWh or 25EUR. Raises ValueError."""
    if not amount:
        return None
    found = _AMOUNT.fullmatch(amount)
    if not found:
        raise ValueError(f"--fail-above {amount}: an amount and its unit, such as 100kWh or 25EUR")
    most, unit = float(found[1]), found[2]
    if unit.lower() == "kwh":
        return lambda advised: advised.floor_kwh > most
    return lambda advised: advised.floor_cost(unit.upper()) > most
