"""The rule of docs/impact.md beside the exporter's counters, over changing factors."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path
from typing import Any

import yaml

from tests.support.needs import needs
from tests.support.patience import patience
from tests.support.repository import REPOSITORY

DOCUMENT = (REPOSITORY / "docs/impact.md").read_text(encoding="utf-8")
(RULES,) = re.findall(r"```yaml\n(groups:\n.*?)```", DOCUMENT, re.DOTALL)
RECORDED: dict[str, str] = {
    rule["record"]: rule["expr"] for group in yaml.safe_load(RULES)["groups"] for rule in group["rules"]
}
HOUR = 60
NODE = 'job="energy",instance="n"'
KWH = 1.2133


def near(expression: str, expected: float, tolerance: float) -> dict[str, Any]:
    test = f"sum(abs(({expression}) / {expected!r} - 1) < bool {tolerance})"
    return {"expr": test, "eval_time": "125m", "exp_samples": [{"labels": "{}", "value": 1}]}


@needs("promtool")
def test_the_rule_adds_up_what_the_counter_counts_when_the_factors_change(tmp_path: Path) -> None:
    """Two hours at 1.2133 kW, the first at 100 g, the second at 500: 728 g, where the end's intensity gives 1213."""
    joules = KWH * 3.6e6 / HOUR
    series = {
        f'energy_node_joules_total{{{NODE},component="cpu"}}': f"0+{joules}x120 {120 * joules}x10",
        f"energy_carbon_intensity_grams_per_kilowatt_hour{{{NODE}}}": "100x59 500x80",
        f'energy_electricity_price_per_kilowatt_hour{{{NODE},currency="EUR"}}': "0.2x59 0.4x80",
        f"energy_pue_ratio{{{NODE}}}": "1.25x140",
        f"energy_node_carbon_grams_total{{{NODE}}}": (
            f"0+{KWH * 125 / HOUR}x60 {KWH * 125 + KWH * 625 / HOUR}+{KWH * 625 / HOUR}x59 {KWH * 750}x10"
        ),
    }
    grams, cost = (f"sum_over_time({name}[125m]) * 60" for name in RECORDED)
    counted = "energy_node_carbon_grams_total"
    content = {
        "rule_files": [str(tmp_path / "rules.yml")],
        "evaluation_interval": "1m",
        "tests": [
            {
                "interval": "1m",
                "input_series": [{"series": name, "values": values} for name, values in series.items()],
                "promql_expr_test": [
                    near(counted, KWH * 750, 0.001),
                    near(grams, KWH * 750, 0.01),
                    near(f"sum by (instance) ({grams}) / on (instance) {counted}", 1.0, 0.01),
                    near(cost, KWH * 0.75, 0.01),
                ],
            }
        ],
    }
    (tmp_path / "rules.yml").write_text(RULES)
    (tmp_path / "test.yml").write_text(yaml.safe_dump(content, width=10_000))
    done = subprocess.run(
        ["promtool", "test", "rules", str(tmp_path / "test.yml")],
        capture_output=True,
        text=True,
        timeout=patience(60),
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
