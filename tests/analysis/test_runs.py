"""``report --by run`` and owners of each day, on a Prometheus whose every joule is known."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable
from datetime import datetime

import pytest

from exporter.cli import main
from tests.analysis.conftest import DAY, HOUR, LONE, LONE_WATTS, START, STEP, TRAINED, TRAINER_WATTS, WEB_WATTS

WINDOW = ("--since", "2026-11-06T00:00", "--until", "2026-11-08T00:00")
NEAR_SECONDS = 900 + STEP
"""How near a start or end is."""

Report = Callable[..., str]


@pytest.fixture
def report(prometheus: str, capsys: pytest.CaptureFixture[str]) -> Report:
    def run(*flags: str) -> str:
        status = main(["report", "--prometheus.url", prometheus, *WINDOW, *flags], {})
        out = capsys.readouterr()
        assert (status, out.err) == (0, "")
        return out.out

    return run


def test_runs_have_their_energy_times_and_gpu_hours(report: Report) -> None:
    lines = list(csv.DictReader(io.StringIO(report("--by", "run", "--format", "csv"))))
    runs = {line["run"]: line for line in lines}
    sft, trial, rest = runs["sft"], runs["trial"], runs["(no training run)"]
    hours = (TRAINED[1] - TRAINED[0]) / HOUR
    assert float(sft["kwh"]) == pytest.approx(2 * TRAINER_WATTS * hours / 1000)
    assert float(trial["kwh"]) == pytest.approx(LONE_WATTS * (LONE[1] - LONE[0]) / 3.6e6)
    assert float(rest["kwh"]) == pytest.approx(WEB_WATTS * 2 * DAY / 3.6e6)
    assert (sft["namespace"], sft["model_name"], trial["namespace"]) == ("train", "org/net", "")
    for line, times in ((sft, TRAINED), (trial, LONE)):
        for name, at in zip(("start", "end"), times, strict=True):
            found = datetime.fromisoformat(line[name]).timestamp() - START
            assert found == pytest.approx(at, abs=NEAR_SECONDS)
    assert float(sft["gpu_hours"]) == pytest.approx(4 * hours, rel=0.04)
    assert float(trial["gpu_hours"]) == 0
    assert (rest["start"], rest["gpu_hours"]) == ("", "")


def test_a_run_that_goes_on_says_so(report: Report) -> None:
    text = report("--by", "run", "--until", "2026-11-07T02:00")
    (line,) = [line for line in text.splitlines() if "sft" in line]
    assert "2026-11-06 20:0" in line
    assert "goes on" in line
    text = report("--by", "run", "--since", "2026-11-06T22:00")
    (line,) = [line for line in text.splitlines() if "sft" in line]
    assert line.split()[3:5] == ["before", "2026-11-07"]


def test_json_has_the_times(report: Report) -> None:
    lines = json.loads(report("--by", "run", "--format", "json"))["lines"]
    (sft,) = [line for line in lines if line["labels"]["run"] == "sft"]
    assert sft["start"] - START == pytest.approx(TRAINED[0], abs=NEAR_SECONDS)
    assert sft["gpu_seconds"] == pytest.approx(4 * (TRAINED[1] - TRAINED[0]), rel=0.04)


def test_each_day_has_the_owner_of_that_day(report: Report) -> None:
    lines = csv.DictReader(io.StringIO(report("--by", "workload", "--format", "csv")))
    found = {line["owner_name"]: float(line["kwh"]) for line in lines if line["namespace"] == "web"}
    day = WEB_WATTS * DAY / 3.6e6
    assert found == pytest.approx({"red": day, "blue": day})


def test_other_versions_and_clocks_are_noted(report: Report) -> None:
    text = report("--by", "node")
    assert "exporters are of 0.0.7: what one of them does not count is missing here." in text
    assert "The clock of n1:9400 differs from that of Prometheus, by 130 s." in text
