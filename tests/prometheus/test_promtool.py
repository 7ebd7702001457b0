"""What Prometheus' and Alertmanager's own tools say of the shipped configuration."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

from tests.support.patience import patience
from tests.support.repository import REPOSITORY

SHIPPED = REPOSITORY / "prometheus"

needs_promtool = pytest.mark.skipif(shutil.which("promtool") is None, reason="apt-get install prometheus")
needs_amtool = pytest.mark.skipif(shutil.which("amtool") is None, reason="apt-get install prometheus-alertmanager")


def tool(*command: str) -> str:
    """Output of a tool that must succeed."""
    done = subprocess.run(command, cwd=SHIPPED, capture_output=True, text=True, timeout=patience(100), check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@needs_promtool
def test_rules_and_configuration_are_valid() -> None:
    written = tool(
        "promtool", "check", "rules", "--lint=all", "--lint-fatal", *(str(p) for p in SHIPPED.glob("rules/*"))
    )
    assert written.count("SUCCESS") == len(list(SHIPPED.glob("rules/*.yml")))
    assert "SUCCESS" in tool("promtool", "check", "config", "prometheus.yml")


@needs_promtool
@pytest.mark.parametrize("path", sorted(SHIPPED.glob("tests/*.yml")), ids=lambda path: str(path.stem))
def test_the_tests_of_the_rules_pass(path: Path) -> None:
    assert "SUCCESS" in tool("promtool", "test", "rules", str(path))


@needs_amtool
def test_routes_are_valid() -> None:
    assert "SUCCESS" in tool("amtool", "check-config", "alertmanager.yml")


@needs_amtool
@pytest.mark.parametrize(
    ("labels", "receiver"),
    [
        ("alertname=EnergyBudgetExceeded budget=x owner=team-vision severity=critical", "team-vision"),
        ("alertname=EnergyBudget80Percent budget=x owner=nobody severity=warning", "platform"),
        ("alertname=EnergyModelLoadedButIdle owner=team-nlp namespace=team-nlp severity=warning", "team-nlp"),
        ("alertname=EnergyExporterDown owner=platform severity=critical instance=a", "platform"),
    ],
)
def test_alerts_go_to_their_owner(labels: str, receiver: str) -> None:
    assert (
        tool("amtool", "config", "routes", "test", "--config.file=alertmanager.yml", *labels.split()).strip()
        == receiver
    )


def test_targets_are_lists_that_prometheus_can_watch() -> None:
    for path in SHIPPED.glob("targets/*.yml"):
        for group in yaml.safe_load(path.read_text(encoding="utf-8")):
            assert set(group) <= {"targets", "labels"}
