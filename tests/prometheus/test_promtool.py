"""What Prometheus' and Alertmanager's own tools say of the shipped configuration and of the scrapes."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from tests.support import machine as machines
from tests.support.needs import needs
from tests.support.patience import patience
from tests.support.repository import DEMO_BUDGETS, HOSTS, REPOSITORY, RULE_FILES

SHIPPED = REPOSITORY / "prometheus"

needs_promtool = needs("promtool")
needs_amtool = needs("amtool")


def tool(*command: str) -> str:
    """Output of a tool that must succeed."""
    done = subprocess.run(command, cwd=SHIPPED, capture_output=True, text=True, timeout=patience(100), check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@needs_promtool
def test_rules_and_configuration_are_valid() -> None:
    written = tool("promtool", "check", "rules", "--lint=all", "--lint-fatal", *map(str, (*RULE_FILES, DEMO_BUDGETS)))
    assert written.count("SUCCESS") == len(RULE_FILES) + 1
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
        ("alertname=EnergyDeviceDown owner=platform severity=critical instance=a", "platform"),
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


def complaints(scrape: bytes) -> list[str]:
    """What ``promtool check metrics`` says of a scrape."""
    done = subprocess.run(
        ["promtool", "check", "metrics"], input=scrape, capture_output=True, timeout=patience(60), check=False
    )
    return (done.stdout + done.stderr).decode().splitlines()


@needs_promtool
@pytest.mark.parametrize("name", machines.names())
def test_the_scrape_of_every_recorded_machine_follows_the_conventions(name: str) -> None:
    assert complaints((HOSTS / name / "expected.prom").read_bytes()) == []


@needs_promtool
def test_the_scrape_of_the_demo_node_follows_the_conventions() -> None:
    command = [sys.executable, "-m", "exporter", "--demo", "--once", "--sample.interval=100ms"]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, timeout=patience(60), check=True)
    assert b"energy_model_joules_total" in done.stdout
    assert complaints(done.stdout) == []


@needs_promtool
def test_a_name_against_the_conventions_is_noticed() -> None:
    scrape = b"# HELP energy_counter_x_total X.\n# TYPE energy_counter_x_total counter\nenergy_counter_x_total 1\n"
    assert complaints(scrape) == ["energy_counter_x_total metric name should not include type 'counter'"]
