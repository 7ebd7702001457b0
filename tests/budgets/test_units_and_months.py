"""Budgets of grams and money, and of calendar months: in promtool, with rules every two hours instead of minutes."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from exporter.budgets.command import run
from tests.support.needs import needs
from tests.support.patience import patience

pytestmark = needs("promtool")

BUDGETS = """\
budgets:
  - {name: tight, selector: {namespace: a}, kwh: 500, window: month, owner: o}
  - {name: wide, selector: {namespace: "a*"}, kwh: 900, window: month, owner: o}
  - {name: carbon, selector: {namespace: a}, grams: 200000, window: month, owner: o}
  - {name: money, selector: {namespace: a}, cost: 100, currency: EUR, window: month, owner: o}
  - {name: rolling, selector: {model: m}, cost: 10, currency: EUR, window: day, owner: o}
  - {name: creeping, selector: {model: c}, cost: 70, currency: EUR, window: week, owner: o}
"""
LABELS = 'job="energy",instance="n",namespace="a",pod="p",container="c",mode="active"'
STEPS = 12 * 33
"""Of two hours: what the rules do each minute."""

SERIES = [  # 1 kW, at 400 g and 0.25 EUR per kWh; another currency, which is not counted
    (f'energy_container_joules_total{{{LABELS},component="gpu"}}', 3.6e6),
    (f"energy_container_carbon_grams_total{{{LABELS}}}", 400.0),
    (f'energy_container_cost_total{{{LABELS},currency="EUR"}}', 0.25),
    (f'energy_container_cost_total{{{LABELS},currency="USD"}}', 7.0),
    ('energy_model_cost_total{namespace="a",model_name="m",phase="unknown",mode="active",currency="EUR"}', 0.25),
]
CREEPING = (
    'energy_model_cost_total{namespace="a",model_name="c",phase="unknown",mode="active",currency="EUR"}',
    f"0+0.5x100 50.52+0.52x{STEPS - 101}",
)
"""Four percent more from hour 200 on."""


def slower(text: str) -> str:
    """Rules that are evaluated every two hours, on counters that are scraped as often."""
    text = re.sub(r"interval: \dm", "interval: 2h", text)
    text = text.replace("[5m]", "[7201s]")  # two samples: of [2h] Prometheus 3 leaves out the first
    text = text.replace(" / 300", " / 7200")
    text = re.sub(r"\[(\d[\w]*)\]\) \* 60", r"[\1]) * 7200", text)
    return text.replace("keep_firing_for: 15m", "keep_firing_for: 0s")


def value(expression: str, hour: int, expected: float) -> dict[str, Any]:
    """A test that an expression is near a value: within a hundredth."""
    near = f"abs(({expression}) / {expected!r} - 1) < bool 0.01" if expected else f"({expression}) == bool 0"
    return {"expr": f"sum({near})", "eval_time": f"{hour}h", "exp_samples": [{"labels": "{}", "value": 1}]}


def absent(expression: str, hour: int) -> dict[str, Any]:
    return {"expr": expression, "eval_time": f"{hour}h", "exp_samples": []}


JANUARY = 24 * 31
USED = 'budget:energy_used_{}:sum{{budget="{}"}}'
CASES = {
    "a month adds up": value(USED.format("joules", "tight"), JANUARY - 2, 3.6e6 * (JANUARY - 2)),
    "the next one begins at 0": value(USED.format("joules", "tight"), JANUARY + 4, 3.6e6 * 6),
    "grams": value(USED.format("carbon_grams", "carbon"), 240, 400.0 * 240),
    "money of its currency": value(USED.format("cost", "money"), 240, 0.25 * 240),
    "a rolling day of money": value(USED.format("cost", "rolling"), 240, 0.25 * 24),
    "a share of kWh": value('budget:energy_used:ratio{budget="tight"}', 250, 0.5),
    "a share of grams": value('budget:energy_used:ratio{budget="carbon"}', 250, 0.5),
    "a share of money": value('budget:energy_used:ratio{budget="money",currency="EUR"}', 200, 0.5),
    "a share of each": value("count(budget:energy_used:ratio)", 200, 6),
    "burn of a month of 31 days": value(
        'budget:energy_burn:ratio{budget="tight",burn="fast",span="long"}', 240, JANUARY / 500
    ),
    "burn of a month of 28 days": value(
        'budget:energy_burn:ratio{budget="tight",burn="fast",span="long"}', JANUARY + 30, 672 / 500
    ),
    "used up before the month ends": value('budget:energy_exhausted_in:seconds{budget="tight"}', 360, 140 * 3600),
    "not used up in this month": absent('budget:energy_exhausted_in:seconds{budget="wide"}', 360),
    "use that creeps": value('deriv(budget:energy_used:ratio{budget="creeping"}[6h])', 260, 0.01 / 70 / 3600),
    "not used up within a window": absent('budget:energy_exhausted_in:seconds{budget="creeping"}', 260),
    "exceeded": value('ALERTS{alertname="EnergyBudgetExceeded",budget="money",alertstate="firing"}', 500, 1),
}


@pytest.fixture(scope="module")
def rules(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("budgets")
    (folder / "b.yaml").write_text(BUDGETS)
    assert run([str(folder / "b.yaml"), "--output", str(folder / "exact.yml")]) == 0
    (folder / "rules.yml").write_text(slower((folder / "exact.yml").read_text()))
    return folder / "rules.yml"


def test_prometheus_accepts_the_rules(rules: Path) -> None:
    command = ["promtool", "check", "rules", "--lint=all", "--lint-fatal", str(rules.parent / "exact.yml")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=patience(30), check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_amounts_shares_and_the_end_of_a_month(rules: Path) -> None:
    names = [group["name"] for group in yaml.safe_load(rules.read_text())["groups"]]
    content = {
        "rule_files": [str(rules)],
        "evaluation_interval": "2h",
        "group_eval_order": names,
        "tests": [
            {
                "interval": "2h",
                "input_series": [
                    *({"series": name, "values": f"0+{2 * growth!r}x{STEPS}"} for name, growth in SERIES),
                    dict(zip(("series", "values"), CREEPING, strict=True)),
                ],
                "promql_expr_test": list(CASES.values()),
            }
        ],
    }
    file = rules.parent / "test.yml"
    file.write_text(yaml.safe_dump(content, width=10_000))
    done = subprocess.run(
        ["promtool", "test", "rules", str(file)], capture_output=True, text=True, timeout=patience(100), check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
