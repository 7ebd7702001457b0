"""Facts from hourly growth of counters, as an exporter's own history has them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import pytest

from exporter.analysis.advice import advise
from exporter.analysis.fleet_history import Hours, read
from exporter.analysis.window import Window
from exporter.commands import advise as command
from exporter.history.writer import Writer
from tests.history.conftest import START as HISTORY_START
from tests.history.conftest import Node

START = 1_790_640_000.0
DAYS = 10
WINDOW = Window(START - 1800, START + DAYS * 86400)
MODEL = ("", "ai", "m", "inference")


class Kept:
    """A history in which a model does nothing at night, and a node has a free card."""

    def hourly(self, metric: str, by: Sequence[str], window: Window, where: str = "") -> Hours:
        hours = [START + 3600 * hour for hour in range(DAYS * 24)]
        if metric == "energy_model_joules_total":
            active = {at: 1e6 for at in hours if at % 86400 >= 8 * 3600}
            return {
                (*MODEL, "gpu", "active"): active,
                (*MODEL, "gpu", "idle"): dict.fromkeys(hours, 36e4),
                (*MODEL, "cpu", "active"): dict.fromkeys(hours, 1e4),
            }
        if metric == "energy_model_cost_total":
            return {(*MODEL, "EUR"): dict.fromkeys(hours, 0.05)}
        if metric == "energy_unattributed_joules_total":
            assert where == 'component="gpu",reason="idle"'
            return {("", "n1"): dict.fromkeys(hours, 25e4)}
        return {}


def test_whole_hours_without_work_are_idle() -> None:
    fleet = read(Kept(), WINDOW)
    advised = advise(fleet)
    assert {(one.subject.name, one.lever.name) for one in advised.recommended} == {
        ("m", "stop_idle"),
        ("n1", "free_gpus"),
    }
    stop = next(one for one in advised.recommended if one.lever.name == "stop_idle")
    assert stop.kwh is not None
    assert stop.kwh.high == pytest.approx(8 * 0.1 * 30)
    assert stop.cost["EUR"].high > 0
    assert stop.finding.level == "bound"


def test_what_the_history_does_not_have_is_said() -> None:
    advised = advise(read(Kept(), WINDOW))
    assert list(advised.missing) == ["cards, activities and server metrics"]
    silent = {one.lever.name: one.finding.because for one in advised.checked}
    assert silent["data_loader"] == "no training run"
    assert "no activities" in silent["clock_lock"]


def test_the_command_reads_the_history_of_an_exporter(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "history.db"
    writer, node = Writer(str(path), "n1", 400 * 86_400.0), Node()
    for step in range(49):
        node = node.after(
            0 if not step else 3600.0, joules={"m": 3.6e5 * step}, tokens=100.0 * step, more=3600.0 * step
        )
        writer.record(node.snapshot)
    writer.close()
    words = ["--history.file", str(path), "--since", "2d", "--format", "json"]
    assert command.run(words, {}, lambda: HISTORY_START + 2 * 86_400.0) == 0
    document = json.loads(capsys.readouterr().out)
    (model,) = [row for row in document["uses"] if row["subject"]["kind"] == "model"]
    assert model["subject"]["name"] == "m"
    assert model["joules"] == pytest.approx(4.8 * 3.6e6, rel=0.03)
    assert "the history of an exporter has hourly joules and tokens only" in document["notes"][-1]
