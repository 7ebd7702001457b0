"""``ai-energy-exporter report``: energy, grams, money and tokens by model, team or workload, read from Prometheus."""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, tzinfo
from typing import Any, NoReturn
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from ..analysis import focus, formats, http_config, league, lines, window
from ..analysis.growth import Growths
from ..analysis.prometheus import Prometheus, QueryError
from ..config.loading import ConfigError
from .progress import progress

_FORMATS = ("text", "markdown", "csv", "json", "html", "focus")
_ENVIRONMENT = {"AI_ENERGY_PROMETHEUS_URL": "prometheus.url", "AI_ENERGY_PROMETHEUS_CONFIG": "prometheus.config"}
_EXAMPLES = """\
examples:
  ai-energy-exporter report --since 7d
  ai-energy-exporter report --since last-month --by namespace --spread proportional --format html --output report.html
  ai-energy-exporter report --since last-month --by namespace --format focus --output chargeback.csv

exit status: 0 success, 2 usage error, 1 anything else, such as no data
"""


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {message}\nTry '{self.prog} --help'.\n")


def parser() -> argparse.ArgumentParser:
    """Its flags."""
    made = _Parser(
        prog="ai-energy-exporter report",
        description="Print what models, teams or workloads used: energy, CO2e, money and tokens. See docs/report.md.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    add = made.add_argument
    add(
        "--prometheus.url",
        metavar="URL",
        default="http://localhost:9090",
        help="Prometheus, VictoriaMetrics, Thanos or "
        "Mimir, the address below which /api/v1 is (default: http://localhost:9090) [AI_ENERGY_PROMETHEUS_URL]",
    )
    add(
        "--prometheus.config",
        metavar="FILE",
        default="",
        help="how to log in: a file as promtool --http.config.file reads [AI_ENERGY_PROMETHEUS_CONFIG]",
    )
    add(
        "--prometheus.header",
        metavar="NAME: VALUE",
        action="append",
        default=[],
        help="send a header, such as X-Scope-OrgID; repeatable",
    )
    add(
        "--prometheus.matchers",
        metavar="MATCHERS",
        default="",
        help='count only series with these labels, such as cluster="eu",job="energy"',
    )
    add(
        "--since",
        default="7d",
        metavar="TIME",
        help="how long ago (7d), a date, a time, month or last-month (default: 7d)",
    )
    add("--until", default="", metavar="TIME", help="the end, in the same forms (default: now)")
    add("--timezone", default="UTC", metavar="ZONE", help="of dates, months and days (default: UTC)")
    add(
        "--by",
        default="model",
        metavar="LEVEL",
        help="model (default), namespace, workload, node, or label:NAME for a "
        "pod label that the exporter exposes (--kubernetes.pod-labels)",
    )
    add(
        "--spread",
        choices=("none", "even", "proportional"),
        default="none",
        help="how lines bear what no workload used: "
        "not at all (default, it has lines of its own), evenly, or in proportion to their energy",
    )
    add("--top", type=int, default=30, metavar="COUNT", help="lines before the others become one (default: 30; 0: all)")
    add(
        "--format",
        choices=_FORMATS,
        default="text",
        help="text (default); csv for spreadsheets; focus for FinOps tools",
    )
    add("--output", metavar="FILE", default="-", help="where to write; - is standard output (default)")
    add("--billing-account", metavar="ID", default="default", help="of --format focus, where series have no cluster")
    add("--provider", metavar="NAME", default="Internal", help="of --format focus: who bills the electricity")
    return made


def run(words: Sequence[str], environ: Mapping[str, str] = os.environ, now: Callable[[], float] = time.time) -> int:
    """Run the command. Returns the exit status: 0 on success, 2 for invalid usage, 1 if there is no data."""
    arguments = parser()
    arguments.set_defaults(**{name: environ[key] for key, name in _ENVIRONMENT.items() if environ.get(key)})
    try:
        given = arguments.parse_args(words)
    except SystemExit as leave:
        return int(leave.code or 0)
    try:
        text = _render(vars(given), now())
    except (ValueError, ZoneInfoNotFoundError) as error:
        return _fail(str(error.args[0]), 2)
    except ConfigError as error:
        sys.stderr.writelines(f"{problem}\n" for problem in error.problems)
        return 2
    except QueryError as error:
        return _fail(str(error), 1)
    return _write(text, given.output)


def _render(given: Mapping[str, Any], now: float) -> str:
    zone: tzinfo = UTC if given["timezone"] == "UTC" else ZoneInfo(given["timezone"])
    asked = window.parse(given["since"], given["until"], now, zone)
    by = league.level(given["by"])
    headers = given["prometheus.header"]
    prometheus = Prometheus(given["prometheus.url"], http_config.read(given["prometheus.config"], headers))
    matchers = given["prometheus.matchers"].strip().strip("{}")
    days = asked.days(zone) if given["format"] == "focus" else [asked]
    reports = []
    with progress(sum(league.steps(by, day) for day in days)) as advance:
        for day in days:
            found = league.collect(prometheus, Growths(prometheus, matchers, advance), by, day, matchers)
            reports.append(lines.spread(found, given["spread"]))
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
        "html": lambda: formats.page(report),
    }
    return render[given["format"]]()


def _write(text: str, output: str) -> int:
    if output == "-":
        sys.stdout.write(text)
        sys.stdout.flush()
        return 0
    try:
        with open(output, "w", encoding="utf-8") as file:
            file.write(text)
    except OSError as error:
        return _fail(f"{output}: {error.strerror}", 1)
    return 0


def _fail(reason: str, status: int) -> int:
    sys.stderr.write(f"ai-energy-exporter report: {reason}\n")
    return status
