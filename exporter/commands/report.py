"""``ai-energy-exporter report``: energy, grams, money and tokens by model, team, workload or run."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence

from ..analysis import focus, formats, league, lines, page
from ..analysis.growth import Source
from ..analysis.prometheus import NoDataError, QueryError
from ..analysis.window import Window
from . import read_back
from .progress import progress

_FORMATS = ("text", "markdown", "csv", "json", "html", "focus")
_EXAMPLES = """\
examples:
  ai-energy-exporter report --since 7d
  ai-energy-exporter report --since last-month --by namespace --spread proportional --format html --output report.html
  ai-energy-exporter report --since last-month --by namespace --format focus --output chargeback.csv

exit status: 0 success, 2 usage error, 1 anything else, such as no data
"""


def parser() -> read_back.Parser:
    """Its flags."""
    made = read_back.parser(
        "report",
        "Print what models, teams or workloads used: energy, CO2e, money and tokens. See docs/report.md.",
        _EXAMPLES,
    )
    read_back.add_history(made)
    read_back.add_window(made, since="7d")
    add = made.add_argument
    add(
        "--by",
        default="model",
        metavar="LEVEL",
        help="model (default), namespace, workload, run (of training), node, or label:NAME for a "
        "pod label that the exporter exposes (--kubernetes.pod-labels)",
    )
    add(
        "--spread",
        choices=("none", "even", "proportional"),
        default="none",
        help="how lines bear what no workload used: "
        "not at all (default, it has lines of its own), evenly, or in proportion to their energy",
    )
    read_back.add_top(made)
    add(
        "--format",
        choices=_FORMATS,
        default="text",
        help="text (default); csv for spreadsheets; focus for FinOps tools",
    )
    read_back.add_output(made)
    add("--billing-account", metavar="ID", default="default", help="of --format focus, where series have no cluster")
    add("--provider", metavar="NAME", default="Internal", help="of --format focus: who bills the electricity")
    return made


def run(words: Sequence[str], environ: Mapping[str, str] = os.environ, now: Callable[[], float] = time.time) -> int:
    """Run the command. Returns the exit status: 0 on success, 2 for invalid usage, 1 if there is no data."""
    return read_back.run(parser(), words, environ, lambda given: (_render(given, environ, now()), 0))


def _render(given: read_back.Given, environ: Mapping[str, str], now: float) -> str:
    zone, by = read_back.zone(given), league.level(given["by"])
    asked, source = read_back.window(given, now), read_back.source(given, environ)
    asked = source.aligned(asked)
    days = [asked]
    if given["format"] == "focus":
        days = Window(source.coverage(asked).since, asked.end).days(zone)
    with progress(sum(league.steps(by, len(source.parts(day))) for day in days)) as source.advance:
        reports = [lines.spread(report, given["spread"]) for report in _collected(source, by, days)]
    if given["format"] == "focus":
        if not any(report.currencies for report in reports):
            raise QueryError("nothing to charge: the exporters have no price (--impact.price)")
        return focus.render(reports, focus.Account(given["billing_account"], given["provider"]), zone)
    report = reports[0]
    if given["format"] not in ("csv", "json"):
        report = lines.top(report, int(given["top"]))
    render: dict[str, Callable[[], str]] = {
        "text": lambda: formats.text(report),
        "markdown": lambda: formats.markdown(report),
        "csv": lambda: formats.comma_separated(report),
        "json": lambda: formats.as_json(report),
        "html": lambda: page.page(report),
    }
    return render[given["format"]]()


def _collected(source: Source, by: league.Level, windows: Sequence[Window]) -> Iterator[lines.Report]:
    """A report of each window that there are samples of. Raises `QueryError` if there is none."""
    empty = 0
    for window in windows:
        try:
            yield league.collect(source, by, window)
        except NoDataError:
            empty += 1
            if empty == len(windows):
                raise
