"""What a panel's queries answer, with Grafana's transformations done: series for lines and bars, rows for tables."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from .storage import Prometheus

SPAN_SECONDS = 3 * 3600.0
STEP_SECONDS = 30.0

Panel = Mapping[str, Any]
Row = dict[str, "str | float"]


class Series(NamedTuple):
    """A named line, as (seconds, value); of an instant query only the last."""

    name: str
    points: list[tuple[float, float]]


class Asker:
    """Fills in the variables of one dashboard: "All" everywhere, but for what is ``chosen``."""

    def __init__(self, server: Prometheus, board: Mapping[str, Any], chosen: Mapping[str, str]) -> None:
        self._server = server
        self._values = {"__range": f"{SPAN_SECONDS:.0f}s", "__rate_interval": "2m", "__interval": "30s"}
        for variable in board["templating"]["list"]:
            self._values[variable["name"]] = variable.get("allValue", "")
        self._values |= chosen

    def _filled(self, expr: str) -> str:
        for name in sorted(self._values, key=len, reverse=True):
            expr = expr.replace(f"${name}", self._values[name])
        return expr

    def series(self, panel: Panel) -> list[Series]:
        """All series of a panel, in the order of its queries and their answers."""
        made = []
        for target in panel["targets"]:
            expr = self._filled(target["expr"])
            if target.get("instant"):
                answer = self._server.instant(expr)
                made += [Series(_name(target, each["metric"]), [_point(each["value"])]) for each in answer]
            else:
                answer = self._server.course(expr, SPAN_SECONDS, STEP_SECONDS)
                made += [Series(_name(target, each["metric"]), [*map(_point, each["values"])]) for each in answer]
        return made

    def rows(self, panel: Panel) -> tuple[list[str], list[Row]]:
        """Column titles in order, and rows: queries merged by their labels, fields renamed and sorted."""
        merged: dict[tuple[tuple[str, str], ...], Row] = {}
        alone = len(panel["targets"]) == 1
        for target in panel["targets"]:
            field = "Value" if alone else f"Value #{target['refId']}"
            for found in self._server.instant(self._filled(target["expr"])):
                labels = {name: value for name, value in found["metric"].items() if name != "__name__"}
                row = merged.setdefault(tuple(sorted(labels.items())), dict(labels))
                row[field] = float(found["value"][1])
        (organize,) = (part["options"] for part in panel["transformations"] if part["id"] == "organize")
        seen = {name for row in merged.values() for name in row}
        known = (name for name in organize["indexByName"] if name in seen or name.startswith("Value"))
        fields = sorted(known, key=organize["indexByName"].__getitem__)
        titles = organize["renameByName"]
        rows = [{titles[field]: row[field] for field in fields if field in row} for row in merged.values()]
        for sort in panel["options"]["sortBy"]:
            rows.sort(key=_by(sort["displayName"]), reverse=sort["desc"])
        return [titles[field] for field in fields], rows


def _by(title: str) -> Callable[[Row], float]:
    def order(row: Row) -> float:
        value = row.get(title)
        return value if isinstance(value, float) else float("-inf")

    return order


def _point(pair: list[Any]) -> tuple[float, float]:
    return float(pair[0]), float(pair[1])


def _name(target: Mapping[str, Any], labels: Mapping[str, str]) -> str:
    legend = target.get("legendFormat", "__auto")
    if legend == "__auto":
        return ", ".join(value for name, value in labels.items() if name != "__name__")
    named = re.sub(r"\{\{(\w+)\}\}", lambda found: labels.get(found[1], ""), legend)
    return named.strip() or "(none)"
