"""The committed dashboards, taken apart: panels, queries, variables, and queries as Grafana would send them."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any, NamedTuple

from tests.support.repository import REPOSITORY

FOLDER = REPOSITORY / "grafana" / "dashboards"
BOARDS: dict[str, dict[str, Any]] = {
    path.stem: json.loads(path.read_text(encoding="utf-8")) for path in sorted(FOLDER.glob("*.json"))
}

SELECTOR = re.compile(r"(?<![\w:$])([a-zA-Z_:][\w:]*)\{([^}]*)\}")
MATCHER = re.compile(r'([a-zA-Z_]\w*)\s*(=~|!~|!=|=)\s*"((?:[^"\\]|\\.)*)"')


class Query(NamedTuple):
    """An expression as it stands on a panel."""

    board: str
    panel: dict[str, Any]
    target: dict[str, Any]

    @property
    def name(self) -> str:
        return f"{self.board}/{self.panel['id']}{self.target['refId']}"

    @property
    def expr(self) -> str:
        expr: str = self.target["expr"]
        return expr


class Selector(NamedTuple):
    """A metric and its matchers, label → (operator, value)."""

    metric: str
    matchers: dict[str, tuple[str, str]]


def panels(board: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Every panel, also those folded away; no rows."""
    for panel in board["panels"]:
        if panel["type"] == "row":
            yield from panel["panels"]
        else:
            yield panel


def queries() -> list[Query]:
    """Every query of every dashboard."""
    return [
        Query(uid, panel, target)
        for uid, board in BOARDS.items()
        for panel in panels(board)
        for target in panel["targets"]
    ]


def variables(board: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """The dropdowns by name."""
    return {variable["name"]: variable for variable in board["templating"]["list"]}


def selectors(expr: str) -> list[Selector]:
    """Every selector of an expression; ours all have braces, which the linter's test holds."""
    return [
        Selector(metric, {label: (operator, value) for label, operator, value in MATCHER.findall(inside)})
        for metric, inside in SELECTOR.findall(expr)
    ]


def filled(expr: str, board: str, window: str = "10s", span: str = "30s", **chosen: str) -> str:
    """The expression with its variables as Grafana sends them when "All" is chosen everywhere.

    Of currencies there is no "All"; the simulated node's is EUR.
    """
    values = {"__rate_interval": window, "__range": span, "__interval": "5s"}
    chosen = {"currency": "EUR"} | chosen
    values |= {name: variable.get("allValue", "") for name, variable in variables(BOARDS[board]).items()} | chosen
    for name in sorted(values, key=len, reverse=True):
        expr = expr.replace(f"${{{name}}}", values[name]).replace(f"${name}", values[name])
    return expr
