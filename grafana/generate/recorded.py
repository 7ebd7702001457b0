"""Joules, tokens, grams and money over long times, from what `prometheus/rules` records; raw counters over a week are
too many samples for a fleet.

A sample of a recorded power stands for the seconds between two evaluations of its group, which the rule files say.
"""

from __future__ import annotations

import functools
from pathlib import Path

import yaml

from .queries import CLUSTER, KWH, WEEK, series, total

RULES = Path(__file__).resolve().parent.parent.parent / "prometheus/rules"
_UNITS = {"s": 1, "m": 60, "h": 3600}


def seconds(duration: str) -> float:
    """Of a duration with one unit, as rule files have it, such as 150s."""
    return float(duration[:-1]) * _UNITS[duration[-1]]


@functools.cache
def intervals() -> dict[str, float]:
    """Seconds between evaluations of each recorded series, by its name."""
    found: dict[str, float] = {}
    for path in RULES.glob("*.yml"):
        for group in yaml.safe_load(path.read_text(encoding="utf-8"))["groups"]:
            found |= {rule["record"]: seconds(group["interval"]) for rule in group["rules"] if "record" in rule}
    return found


def over_range(name: str, by: str = "", *where: str) -> str:
    """Sum of a recorded rate in the dashboard's time range: of a power, joules."""
    return _sum(name, "$__range", by, *where)


def of_week(name: str, by: str = "", *where: str) -> str:
    """The same of the last seven days."""
    return _sum(name, WEEK, by, *where)


def tokens(by: str = "", *where: str) -> str:
    """Generated tokens in the time range."""
    return over_range("model:output_tokens:rate5m", by, *where)


def requests(by: str = "", *where: str) -> str:
    """Requests in the time range."""
    return over_range("model:requests:rate5m", by, *where)


def kwh_per_day(name: str, by: str, *where: str) -> str:
    """kWh of each day, at the day's beginning. A sample is of the minutes before it, so the first is not of this day.

    The window is a second short of a day, because Prometheus before 3 includes both of its ends.
    """
    of_day = f"sum_over_time({series(name, *where, node=CLUSTER)}[86399s] offset -86400s)"
    return f"{total(of_day, by)} * {intervals()[name]:g} / {KWH:g}"


def _sum(name: str, window: str, by: str, *where: str) -> str:
    return f"{total(f'sum_over_time({series(name, *where, node=CLUSTER)}[{window}])', by)} * {intervals()[name]:g}"
