"""The limit of waste in money, which is set by editing one record."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
import yaml

from tests.support.needs import needs
from tests.support.patience import patience
from tests.support.repository import REPOSITORY

RULES = REPOSITORY / "prometheus/rules"
MINUTES = 200
NODE = 'job="energy",instance="n1"'
SERIES = {
    f'energy_container_gpu_unused_joules_total{{{NODE},namespace="a",pod="p",container="c"}}': "0+60000",  # 1 kW
    f'energy_node_joules_total{{{NODE},component="gpu"}}': "0+120000",
    f'energy_node_cost_total{{{NODE},currency="EUR"}}': f"0+{0.3 / 30}",  # 30 cents for a kWh
}


@needs("promtool")
@pytest.mark.parametrize(("limit", "fires"), [("1e12", False), ("0.5", True), ("2", False)])
def test_an_alert_above_a_limit_in_money(tmp_path: Path, limit: str, fires: bool) -> None:
    """1 kW for three hours is 3 kWh, or 0.9 EUR: far below the limit in kWh."""
    waste = (RULES / "waste.yml").read_text(encoding="utf-8")
    assert waste.count("vector(1e12)") == 1
    (tmp_path / "waste.yml").write_text(waste.replace("vector(1e12)", f"vector({limit})"), encoding="utf-8")
    test = {
        "interval": "1m",
        "input_series": [{"series": name, "values": f"{values}x{MINUTES}"} for name, values in SERIES.items()],
        "promql_expr_test": [
            {
                "expr": 'count(ALERTS{alertname="EnergyWasteAboveLimit",alertstate="firing",namespace="a"})',
                "eval_time": f"{MINUTES}m",
                "exp_samples": [{"labels": "{}", "value": 1}] if fires else [],
            }
        ],
    }
    content = {
        "rule_files": [*(str(RULES / f"{name}.yml") for name in ("nodes", "impact", "alerts-usage")), "waste.yml"],
        "evaluation_interval": "5m",
        "group_eval_order": ["energy-nodes", "energy-impact", "energy-waste", "energy-advice", "energy-alerts-usage"],
        "tests": [test],
    }
    file = tmp_path / "test.yml"
    file.write_text(yaml.safe_dump(content), encoding="utf-8")
    command = ["promtool", "test", "rules", str(file)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=patience(60), check=False)
    assert done.returncode == 0, done.stdout + done.stderr
