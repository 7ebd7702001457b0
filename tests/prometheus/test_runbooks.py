"""Queries of runbooks, run on two nodes: a query that confuses nodes is an error there."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from tests.support import promql
from tests.support.needs import needs
from tests.support.patience import patience
from tests.support.repository import DEMO_BUDGETS, REPOSITORY, RULE_FILES

RUNBOOKS = sorted((REPOSITORY / "docs/runbooks").glob("*.md"))
RULES = sorted(str(path) for path in (*RULE_FILES, DEMO_BUDGETS))
MINUTES = 30

pytestmark = needs("promtool")


def queries(path: Path) -> list[str]:
    (block,) = re.findall(r"```promql\n(.*?)```", path.read_text(encoding="utf-8"), re.DOTALL)
    return promql.queries(block)


@pytest.fixture(scope="module")
def series() -> list[dict[str, str]]:
    """Half an hour of two nodes that show what the demonstration shows; counters grow by a tenth each minute."""
    command = [sys.executable, "-m", "exporter", "--demo", "--once"]
    scrape = subprocess.run(
        command, cwd=REPOSITORY, capture_output=True, text=True, timeout=patience(60), check=True
    ).stdout
    found = []
    for node in ("node-1", "node-2"):
        for family in text_string_to_metric_families(scrape):
            for name, labels, value, *_ in family.samples:
                identity = labels | {"job": "energy", "instance": node}
                pairs = ",".join(f"{key}={json.dumps(text)}" for key, text in identity.items())
                growth = value / 10 if family.type == "counter" else 0
                found.append({"series": f"{name}{{{pairs}}}", "values": f"{value!r}+{growth!r}x{MINUTES}"})
    return found


def run(tmp_path: Path, series: list[dict[str, str]], expressions: list[str]) -> str:
    """What promtool says of expressions that should have no samples."""
    tests = [{"expr": each, "eval_time": f"{MINUTES}m", "exp_samples": []} for each in expressions]
    content = {
        "rule_files": RULES,
        "evaluation_interval": "1m",
        "tests": [{"interval": "1m", "input_series": series, "promql_expr_test": tests}],
    }
    file = tmp_path / "runbooks.yml"
    file.write_text(yaml.safe_dump(content, width=10_000), encoding="utf-8")
    done = subprocess.run(
        ["promtool", "test", "rules", str(file)], capture_output=True, text=True, timeout=patience(100), check=False
    )
    return done.stdout + done.stderr


def test_every_query_runs(tmp_path: Path, series: list[dict[str, str]]) -> None:
    """Queries that have samples are reported with them, and queries that fail with ``err:``."""
    said = run(tmp_path, series, [query for path in RUNBOOKS for query in queries(path)])
    assert "err:" not in said
    assert said.count("got:") > len(RUNBOOKS)


def test_a_query_that_confuses_nodes_is_an_error(tmp_path: Path, series: list[dict[str, str]]) -> None:
    """The query that a runbook had."""
    wrong = "sum by (component) (energy_container_joules_total) + on (component) energy_retired_joules_total"
    assert "many-to-many matching not allowed" in run(tmp_path, series, [wrong])


def test_the_equation_holds_for_each_component_of_each_node(tmp_path: Path, series: list[dict[str, str]]) -> None:
    _, equation = queries(REPOSITORY / "docs/runbooks/EnergyConservationBroken.md")
    broken, rows = f"abs({equation}) > 1e-3", f"count({equation}) != 8"
    assert "SUCCESS" in run(tmp_path, series, [broken, rows])
