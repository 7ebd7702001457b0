"""One thing has one energy: what ``report`` says is what the shipped dashboards show of the same data."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Iterator
from typing import Any

import pytest

from exporter.cli import main
from tests.analysis.conftest import DAY, START
from tests.support.repository import REPOSITORY
from tests.support.stack import Server

WINDOW = ("--since", "2026-11-01T00:00", "--until", "2026-11-03T00:00")


def panels(items: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    for panel in items:
        yield panel
        yield from panels(panel.get("panels", []))


def expression(dashboard: str, title: str, letter: str) -> str:
    """The query of a panel, for the whole window and all variables."""
    document = json.loads((REPOSITORY / f"grafana/dashboards/{dashboard}.json").read_text(encoding="utf-8"))
    (panel,) = [panel for panel in panels(document["panels"]) if panel.get("title") == title]
    (query,) = [target["expr"] for target in panel["targets"] if target["refId"] == letter]
    query = query.replace("$__range", "2d").replace("$__rate_interval", "5m").replace("$currency", "EUR")
    return re.sub(r'=~"\$\w+"', '=~".*"', query)


@pytest.mark.parametrize(
    ("dashboard", "title", "letter", "by", "labels", "column"),
    [
        ("energy-models", "Models by energy", "B", "model", ("namespace", "model_name", "phase"), "kwh"),
        ("energy-models", "Tokens, CO2e and cost by model", "E", "model", ("model_name",), "kg_co2e"),
        ("energy-models", "Tokens, CO2e and cost by model", "F", "model", ("model_name",), "cost_EUR"),
        ("energy-nodes", "Nodes", "F", "node", ("instance",), "kwh"),
        ("energy-nodes", "Nodes", "G", "node", ("instance",), "kg_co2e"),
        ("energy-nodes", "Nodes", "H", "node", ("instance",), "cost_EUR"),
        ("energy-workloads", "Energy by namespace", "A", "namespace", ("namespace",), "kwh"),
        ("energy-overview", "Energy", "A", "total", (), "kwh"),
    ],
)
def test_the_report_has_the_numbers_of_the_panel(
    prometheus: str,
    capsys: pytest.CaptureFixture[str],
    dashboard: str,
    title: str,
    letter: str,
    by: str,
    labels: tuple[str, ...],
    column: str,
) -> None:
    level = "node" if by == "total" else by
    words = ["report", "--prometheus.url", prometheus, *WINDOW, "--by", level, "--format", "csv"]
    assert main(words, {}) == 0
    kind = "total" if by == "total" else "line"
    rows = [row for row in csv.DictReader(io.StringIO(capsys.readouterr().out)) if row["kind"] == kind]
    said = {tuple(row[label] for label in labels): float(row[column]) for row in rows}
    query = expression(dashboard, title, letter)
    result = Server(prometheus).ask("query", query=query, time=str(START + 2 * DAY))["result"]
    shown = {tuple(one["metric"].get(label, "") for label in labels): float(one["value"][1]) for one in result}
    assert shown
    assert {key: said.get(key) for key in shown} == pytest.approx(shown, rel=1e-9)
