"""``budgets --status`` as users run it, on a Prometheus with what the rules of four budgets recorded."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from exporter.analysis import budget_status
from exporter.budgets.reader import read
from exporter.budgets.rules import groups
from exporter.cli import main
from exporter.commands import budget_status as command
from tests.analysis.conftest import DAY, START

Ask = Callable[..., tuple[int, str, str]]


@pytest.fixture
def ask(prometheus: str, capsys: pytest.CaptureFixture[str]) -> Ask:
    """Exit status and both outputs of the command at the end of the written days."""

    def run(*flags: str) -> tuple[int, str, str]:
        words = ["--prometheus.url", prometheus, *flags]
        status = command.run(words, {}, lambda: START + 2 * DAY)
        out = capsys.readouterr()
        return status, out.out, out.err

    return run


def test_every_budget_has_a_verdict_the_fullest_first(ask: Ask) -> None:
    status, out, err = ask("--format", "csv")
    found = {row["budget"]: row for row in csv.DictReader(io.StringIO(out))}
    assert (status, err) == (command.EXCEEDED, "")
    assert {name: row["verdict"] for name, row in found.items()} == {
        "chat-month": "used up",
        "batch-day": "will be used up",
        "chat-week": "within",
        "ghost": "no data",
    }
    assert list(found) == ["chat-month", "batch-day", "chat-week", "ghost"]
    week, month, day = found["chat-week"], found["chat-month"], found["batch-day"]
    assert (week["used"], week["amount"], week["unit"], week["burn_ratio"]) == ("5.0", "10.0", "kWh", "0.5")
    assert (month["used"], month["amount"], month["unit"]) == ("6.0", "5.0", "kg CO2e")
    assert (day["used"], day["amount"], day["unit"], day["exhausted_seconds"]) == ("9.0", "10.0", "EUR", "7200.0")


def test_the_exit_status_is_of_the_budgets_that_were_asked_for(ask: Ask) -> None:
    assert ask("--owner", "red")[0] == command.EXCEEDED
    assert ask("--owner", "red", "--prometheus.matchers", 'window="week"')[0] == 0


def test_every_format_names_every_budget(ask: Ask) -> None:
    for form in ("text", "markdown", "csv"):
        _, out, _ = ask("--format", form)
        assert all(name in out for name in ("chat-week", "chat-month", "batch-day", "ghost")), form
    _, out, _ = ask("--format", "json")
    assert json.loads(out)[0]["used_ratio"] == 1.2
    _, out, _ = ask()
    assert re.search(r"batch-day .* 9.00 +10.0 +EUR +90% +0.50 +2.0 h +will be used up", out)


def test_what_is_missing_is_one_line(ask: Ask) -> None:
    status, out, err = ask("--owner", "green")
    assert (status, out) == (1, "")
    assert err.endswith(": no budget of green; there are some of blue, red\n")
    status, out, err = ask("--prometheus.matchers", 'cluster="none"')
    assert (status, out) == (1, "")
    assert "no budgets; load the rules" in err


def test_the_command_line_hands_it_over(prometheus: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["budgets", "--status", "--prometheus.url", prometheus], {}) == 1  # today there are no samples
    assert "no budgets" in capsys.readouterr().err


def test_the_rules_of_budgets_record_what_it_reads(tmp_path: Path) -> None:
    file = tmp_path / "budgets.yaml"
    budgets = [
        f"  - {{name: {unit}, selector: {{model: a}}, {unit}: 1, window: week, owner: a{extra}}}"
        for unit, extra in (("kwh", ""), ("grams", ""), ("cost", ", currency: EUR"))
    ]
    file.write_text("\n".join(["budgets:", *budgets, ""]), encoding="utf-8")
    recorded = {rule.get("record") for group in groups(read(str(file))) for rule in group["rules"]}
    source = Path(budget_status.__file__).read_text(encoding="utf-8")
    for kind in ("joules", "carbon_grams", "cost"):
        assert {f"energy_budget_{kind}", f"budget:energy_used_{kind}:sum"} <= recorded
    assert set(re.findall(r'"(budget:energy_\w+:\w+)"', source)) <= recorded
