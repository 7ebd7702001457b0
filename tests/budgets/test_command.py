"""``ai-energy-exporter budgets``: its output, and that Prometheus accepts it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from exporter.budgets.budget import DAY, WINDOWS
from exporter.budgets.command import run
from exporter.cli import main
from tests.support.needs import needs
from tests.support.patience import patience
from tests.support.repository import DEMO_BUDGETS, REPOSITORY

EXAMPLE = REPOSITORY / "prometheus/demo/budgets.yaml"


def test_the_committed_rules_are_those_of_the_committed_budgets(capsys: pytest.CaptureFixture[str]) -> None:
    """``make rules`` generates them."""
    assert run([str(EXAMPLE)]) == 0
    assert capsys.readouterr().out == DEMO_BUDGETS.read_text(encoding="utf-8")


def test_the_object_has_the_same_groups(tmp_path: Path) -> None:
    plain, wrapped = tmp_path / "plain.yml", tmp_path / "object.yml"
    assert run([str(EXAMPLE), "--output", str(plain)]) == 0
    assert run([str(EXAMPLE), "--output", str(wrapped), "--format", "prometheusrule"]) == 0
    content = yaml.safe_load(wrapped.read_text())
    assert (content["apiVersion"], content["kind"]) == ("monitoring.coreos.com/v1", "PrometheusRule")
    assert content["metadata"]["name"] == "energy-budgets"
    assert content["spec"] == yaml.safe_load(plain.read_text())


def test_a_mistake_is_status_2_and_writes_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    wrong, output = tmp_path / "b.yaml", tmp_path / "rules.yml"
    wrong.write_text("budgets: [{name: a}]\n")
    output.write_text("old")
    assert run([str(wrong), "--output", str(output)]) == 2
    written = capsys.readouterr()
    assert written.out == ""
    assert written.err.splitlines()[0] == f"{wrong}:1: budgets: the key selector is missing"
    assert output.read_text() == "old"


def test_the_file_is_replaced_atomically_and_readable_by_prometheus(tmp_path: Path) -> None:
    output = tmp_path / "rules.yml"
    output.write_text("old")
    before = output.stat().st_ino
    assert run([str(EXAMPLE), "--output", str(output)]) == 0
    assert output.stat().st_ino != before
    assert output.stat().st_mode & 0o777 == 0o644
    assert list(tmp_path.iterdir()) == [output]


def test_a_failed_write_is_status_1(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run([str(EXAMPLE), "--output", str(tmp_path / "none/rules.yml")]) == 1
    assert capsys.readouterr().err == f"{tmp_path}/none/rules.yml: No such file or directory\n"


@pytest.mark.parametrize("words", [[], ["a", "b"], ["a", "--format", "json"], ["--outputs", "x", "a"]])
def test_wrong_usage_is_status_2(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert run(words) == 2
    assert "Try 'ai-energy-exporter budgets --help'." in capsys.readouterr().err


def test_it_is_a_command_of_the_exporter(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["budgets", "--help"]) == 0
    assert "--format" in capsys.readouterr().out


def test_a_closed_pipe_is_no_traceback() -> None:
    command = f"{sys.executable} -m exporter budgets {EXAMPLE} | true"
    done = subprocess.run(
        ["sh", "-c", command], cwd=REPOSITORY, capture_output=True, text=True, timeout=patience(30), check=False
    )
    assert done.stderr == ""


@pytest.mark.parametrize("window", WINDOWS.values(), ids=lambda window: str(window.name))
def test_spans_fit_their_window(window: object) -> None:
    (found,) = [one for one in WINDOWS.values() if one is window]
    for burn in found.burns:
        assert burn.short < burn.long < found.seconds
        assert burn.factor < found.seconds / burn.long, "or its long span alone would be the whole budget"
    assert found.horizon <= found.seconds / 6


def test_spans_of_thirty_days_are_the_usual_ones_for_error_budgets() -> None:
    spans = [(burn.long / 3600, burn.short / 3600, burn.factor) for burn in WINDOWS["30d"].burns]
    assert spans == [(6, 1, 2.0), (24, 6, 1.5), (72, 24, 1.1)]
    assert WINDOWS["30d"].seconds == 30 * DAY


@needs("promtool")
def test_prometheus_accepts_every_kind_of_selector(tmp_path: Path) -> None:
    selectors = [
        "{namespace: a*b}",
        "{label_team: 'x,y'}",
        "{model: 'org/m(1)+*'}",
        "{node: '*.example.com'}",
        "{r: a}",
    ]
    budgets = "".join(
        f"  - {{name: b{number}, selector: {selector}, kwh: 0.5, window: {window}, owner: o}}\n"
        for number, (selector, window) in enumerate((s, w) for s in selectors for w in WINDOWS)
    )
    (tmp_path / "b.yaml").write_text(f"budgets:\n{budgets}")
    assert run([str(tmp_path / "b.yaml"), "--output", str(tmp_path / "rules.yml")]) == 0
    command = ["promtool", "check", "rules", "--lint=all", "--lint-fatal", str(tmp_path / "rules.yml")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=patience(30), check=False)
    assert done.returncode == 0, done.stdout + done.stderr
