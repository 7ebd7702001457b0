"""``report`` of the history that an exporter keeps itself: what the counters of its snapshots grew by."""

from __future__ import annotations

import csv
import io
import json
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from exporter.analysis.history import History
from exporter.analysis.prometheus import QueryError
from exporter.analysis.window import Window
from exporter.commands import report as command
from exporter.history.writer import Writer
from tests.history.conftest import START, Node

HOUR, DAY = 3600.0, 86_400.0

Run = Callable[..., list[dict[str, str]]]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """Two days: container m works for a model, a for nobody's; on the second day a has an owner."""
    path = tmp_path / "history.db"
    writer, node = Writer(str(path), "n1", 400 * DAY), Node()
    for step in range(49):
        joules = {"m": 3.6e5 * step, "a": 7200.0 * step}
        owner = "nightly" if step > 24 else ""
        node = node.after(0 if not step else HOUR, joules=joules, tokens=100.0 * step, more=3600.0 * step, owner=owner)
        writer.record(node.snapshot)
    writer.close()
    return path


@pytest.fixture
def report(file: Path, capsys: pytest.CaptureFixture[str]) -> Run:
    def run(*flags: str) -> list[dict[str, str]]:
        words = ["--history.file", str(file), "--format", "csv", "--since", "2d", *flags]
        assert command.run(words, {}, lambda: START + 2 * DAY) == 0
        return list(csv.DictReader(io.StringIO(capsys.readouterr().out)))

    return run


def test_models(report: Run) -> None:
    model, rest, idle, total = report()
    assert (model["model_name"], model["phase"]) == ("m", "inference")
    assert float(model["kwh"]) == pytest.approx(4.8)
    assert float(model["output_tokens"]) == 4800
    assert float(model["joules_per_token"]) == pytest.approx(3600)
    assert float(model["kwh_per_year"]) == pytest.approx(4.8 * 365 / 2)
    assert rest["model_name"] == "(no model)"
    assert float(rest["kwh"]) == pytest.approx(0.096)
    assert float(idle["kwh"]) == pytest.approx(0.048)
    assert float(total["kwh"]) == pytest.approx(4.944)
    assert float(total["kg_co2e"]) == pytest.approx(4.944 * 0.36)
    assert float(total["cost_EUR"]) == pytest.approx(4.944 * 0.36)


def test_each_day_has_the_owners_of_that_day(report: Run) -> None:
    found = {(line["owner_name"]): float(line["kwh"]) for line in report("--by", "workload") if line["kind"] == "line"}
    assert found == pytest.approx({"m": 2.4, "a": 0.048, "nightly": 2.448})


@pytest.mark.parametrize(("by", "names"), [("node", ["n1"]), ("namespace", [""])])
def test_other_levels(report: Run, by: str, names: list[str]) -> None:
    lines = [line for line in report("--by", by) if line["kind"] == "line"]
    assert [line["instance" if by == "node" else "namespace"] for line in lines] == names


def test_a_part_of_the_time(report: Run) -> None:
    *_, total = report("--since", "2026-11-02T00:00", "--until", "2026-11-02T06:00")
    assert float(total["kwh"]) == pytest.approx(4.944 / 8)
    *_, total = report("--since", "2026-11-02T00:30", "--until", "2026-11-02T06:00")  # hours are whole
    assert float(total["kwh"]) == pytest.approx(4.944 / 8)


def test_days_of_a_time_zone_add_up(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--history.file", str(file), "--format", "focus", "--since", "5d", "--timezone", "Asia/Kolkata"]
    assert command.run(words, {}, lambda: START + 2 * DAY) == 0
    rows = list(csv.DictReader(io.StringIO(capsys.readouterr().out)))
    assert sum(float(row["x_Joules"]) for row in rows) == pytest.approx(4.896 * 3.6e6)  # idle power has no price here
    assert len({row["ChargePeriodStart"] for row in rows}) == 3


def test_hours(file: Path) -> None:
    hours = History(str(file)).hourly(
        "energy_model_joules_total", ("model_name",), Window(START + DAY, START + 2 * DAY)
    )
    assert hours == {("m",): pytest.approx({START + DAY + hour * HOUR: 3.6e5 for hour in range(24)})}


@pytest.mark.parametrize(
    ("matchers", "kwh"),
    [("", 4.896), ('container="m"', 4.8), ('container!="m", mode="active"', 0.096), ('instance="n2"', 0)],
)
def test_matchers(file: Path, matchers: str, kwh: float) -> None:
    history = History(str(file), matchers)
    grown = history.of("energy_container_joules_total", (), Window(START, START + 2 * DAY))
    assert sum(grown.values()) == pytest.approx(kwh * 3.6e6)


class TestWhichSource:
    def read(self, capsys: pytest.CaptureFixture[str], *words: str, **environ: str) -> str:
        command.run(["--format", "json", *words], environ, lambda: START + 2 * DAY)
        out, error = capsys.readouterr()
        return str(json.loads(out)["notes"][0]) if out else error

    def test_the_history_of_this_machine_answers_where_nothing_else_is_named(
        self, file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        folder = tmp_path / "state/ai-energy-exporter"
        folder.mkdir(parents=True)
        there = file.rename(folder / "history.db")
        assert f"read from {there}" in self.read(capsys, XDG_STATE_HOME=f"{tmp_path}/state")
        assert "127.0.0.1:1" in self.read(
            capsys, XDG_STATE_HOME=f"{tmp_path}/state", AI_ENERGY_PROMETHEUS_URL="http://127.0.0.1:1"
        )
        url = ("--prometheus.url", "http://127.0.0.1:1")
        assert "127.0.0.1:1" in self.read(capsys, *url, AI_ENERGY_HISTORY_FILE=str(there))
        assert f"read from {there}" in self.read(capsys, AI_ENERGY_HISTORY_FILE=str(there))

    def test_the_exporter_that_writes_is_not_disturbed(self, file: Path, capsys: pytest.CaptureFixture[str]) -> None:
        with closing(sqlite3.connect(file, isolation_level=None)) as database:
            database.execute("BEGIN IMMEDIATE")
            assert f"read from {file}" in self.read(capsys, "--history.file", str(file))
            database.execute("ROLLBACK")


@pytest.mark.parametrize(
    ("prepare", "said"),
    [
        (lambda path: path.unlink(), "no such file; an exporter with --history.file="),
        (lambda path: path.write_text("text" * 1000), "file is not a database"),
        (lambda path: _execute(path, "PRAGMA application_id = 3"), "not the history of an exporter"),
        (lambda path: _execute(path, "PRAGMA user_version = 99"), "written by another version of the exporter"),
        (lambda path: _execute(path, "DELETE FROM hours"), "nothing of this window"),
    ],
)
def test_mistakes_are_one_line(
    file: Path, capsys: pytest.CaptureFixture[str], prepare: Callable[[Path], Any], said: str
) -> None:
    prepare(file)
    assert command.run(["--history.file", str(file)], {}, lambda: START + 2 * DAY) == 1
    error = capsys.readouterr().err
    assert f"{file}: {said}" in error
    assert error.count("\n") == 1


def _execute(path: Path, statement: str) -> None:
    with closing(sqlite3.connect(path, isolation_level=None)) as database:
        database.execute(statement)


@pytest.mark.parametrize("matchers", ['a=~"b"', "a", 'a="b" c="d"', 'a="b"}'])
def test_other_matchers_are_refused(file: Path, matchers: str) -> None:
    with pytest.raises(QueryError, match="matchers of the history are"):
        History(str(file), matchers).of("energy_node_joules_total", (), Window(START, START + DAY))
