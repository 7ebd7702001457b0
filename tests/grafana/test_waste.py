"""Waste has one definition: whatever panel shows it asks the same recorded series."""

from __future__ import annotations

import re

import pytest
import yaml

from exporter.snapshot import ACTIVITIES
from grafana.generate import reasons, waste
from grafana.generate.palette import ACTIVITY
from tests.support.boards import queries
from tests.support.repository import REPOSITORY

WASTE = {
    "energy-overview": ["4A", "10A", "10B"],
    "energy-models": ["4A", "6F"],
    "energy-model": ["5A"],
    "energy-workloads": ["3A", "7I"],
    "energy-advice": ["1A", "2A", "3A"],
}
QUERIES = {query.name: query.expr for query in queries()}
RULES = yaml.safe_load((REPOSITORY / "prometheus/rules/waste.yml").read_text(encoding="utf-8"))
RECORDS = [rule for group in RULES["groups"] for rule in group["rules"]]


@pytest.mark.parametrize("name", [f"{board}/{panel}" for board, panels in WASTE.items() for panel in panels])
def test_every_panel_on_waste_asks_what_the_rules_record(name: str) -> None:
    named = set(re.findall(r"\w+:[\w:]*unused[\w:]*|\w+:[\w:]*free[\w:]*|\w+:[\w:]*activity[\w:]*", QUERIES[name]))
    assert named
    assert named <= set(waste.RECORDED)
    assert "energy_container_gpu" not in QUERIES[name]


def test_no_other_panel_of_theirs_calls_idle_power_waste() -> None:
    """Idle power of cards at work is a number of its own: no share of it is asked for."""
    shares = [name for name, expr in QUERIES.items() if re.search(r'mode="idle".* / \(', expr, re.DOTALL)]
    assert [name for name in shares if name.split("/")[0] in WASTE] == []


def test_the_rules_record_what_the_panels_ask_for() -> None:
    assert set(waste.RECORDED) <= {rule["record"] for group in RULES["groups"] for rule in group["rules"]}


def test_levers_have_a_text_wherever_they_are_named() -> None:
    advised = {lever for rule in RECORDS for lever in re.findall(r'"lever", "(\w+)"', rule["expr"])}
    assert advised == set(waste.LEVERS)
    described = (REPOSITORY / "docs/rules.md").read_text(encoding="utf-8")
    assert all(f"| `{lever}` |" in described for lever in advised)


def test_every_activity_has_a_text() -> None:

    assert set(reasons.ACTIVITIES) == set(ACTIVITY) == set(ACTIVITIES)
