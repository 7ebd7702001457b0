"""``advise``: a fleet with planted waste, ranking, what was followed, the formats, and the command on a real server."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Callable
from html.parser import HTMLParser
from itertools import pairwise
from random import Random
from typing import Any

import pytest

from benchmarks import advice_fleet
from benchmarks.advise import compare
from exporter.analysis import advice_formats
from exporter.analysis.advice import Advice, Advised, advise, group
from exporter.analysis.evidence import evidence
from exporter.analysis.facts import Facts, Fleet, Grid, Subject
from exporter.analysis.levers.lever import silent
from exporter.analysis.levers.registry import LEVERS
from exporter.analysis.prometheus import Prometheus
from exporter.cli import main

SEED = 1


@pytest.fixture(scope="module")
def fleet() -> Fleet:
    """The synthetic fleet of one seed; `make advise-check` judges fifty."""
    return advice_fleet.facts(advice_fleet.Written(SEED))


@pytest.fixture(scope="module")
def advised(fleet: Fleet) -> Advised:
    """What is advised for it."""
    return advise(fleet)


class TestPlanted:
    def test_all_waste_is_found_its_saving_covered_and_nothing_else_recommended(self, fleet: Fleet) -> None:
        judged = compare(advice_fleet.Written(SEED), fleet)
        assert (judged.found, judged.covered, judged.false) == (judged.planted, judged.planted, ())

    def test_the_surest_largest_saving_comes_first(self, advised: Advised) -> None:
        ranks = [advice.rank for advice in advised.recommended]
        assert ranks == sorted(ranks, reverse=True)
        assert ranks[0] > (0.0, 0.0)

    def test_only_wanted_models_are_judged(self, fleet: Fleet) -> None:
        one = advise(fleet, lambda subject: subject.name == "embed")
        assert {advice.subject.name for advice in (*one.recommended, *one.checked)} == {"embed"}

    @pytest.mark.parametrize("by", ["model", "namespace", "lever"])
    def test_groups_are_together(self, advised: Advised, by: Any) -> None:
        keys = {"model": lambda one: one.subject, "namespace": lambda one: one.subject.namespace}
        key: Callable[[Any], object] = keys.get(by, lambda one: one.lever.name)
        found = [key(advice) for advice in group(advised, by).recommended]
        changes = sum(1 for before, after in pairwise(found) if before != after)
        assert changes + 1 == len(set(found))
        assert len(found) == len(advised.recommended)


GRID = Grid(advice_fleet.START, 3600.0, 24 * 24)
HOURS = range(GRID.length)


class TestFollowed:
    @pytest.mark.parametrize("unseen", [range(0), range(14 * 24, 20 * 24)], ids=["watched", "a gap of six days"])
    def test_a_limit_that_was_lowered_has_what_it_saved(self, unseen: range) -> None:
        seen = [float(hour not in unseen) for hour in HOURS]
        load = [1e6 * (1 + 0.5 * math.sin(hour / 4)) * seen[hour] for hour in HOURS]
        late = [hour >= 12 * 24 for hour in HOURS]
        active = [
            (0.5 * one + 4e5) * (0.8 if after else 1.0) * (1 + (hour // 24 % 5) / 1000) * seen[hour]
            for hour, (one, after) in enumerate(zip(load, late, strict=True))
        ]
        limit = [300.0 if after else 400.0 for after in late]
        facts = Facts(
            Subject("model", name="m"),
            GRID,
            active=active,
            idle=[0.0] * GRID.length,
            output_tokens=load,
            power_limit=limit,
            seen=seen,
        )
        (one,) = advise(Fleet(GRID, [facts])).followed
        assert (one.lever, one.what, one.at) == ("power_cap", "power limit 400 to 300 W", GRID.start + 12 * 86400)
        spared = sum(joules for joules, after in zip(active, late, strict=True) if after) / 0.8 * 0.2
        assert one.realised.covers(spared * 30 / (12 - len(unseen) / 24) / 3.6e6)
        assert one.predicted is None
        assert "nothing was predicted" in advice_formats.text(advise(Fleet(GRID, [facts])))

    def test_less_idling_is_compared_with_what_was_predicted(self) -> None:
        night = [3600.0 * (hour % 24 < 8) * (1 + hour // 24 % 3 / 20) for hour in HOURS]
        gaps = [seconds if hour < 12 * 24 else 0.0 for hour, seconds in zip(HOURS, night, strict=True)]
        idle = [3600 * 100.0 if hour < 12 * 24 or hour % 24 >= 8 else 0.0 for hour in HOURS]
        facts = Facts(
            Subject("model", name="m"),
            GRID,
            active=[0.0 if hour % 24 < 8 else 1e6 for hour in HOURS],
            idle=idle,
            quiet=[100 * seconds for seconds in gaps],
            quiet_seconds=gaps,
        )
        (one,) = advise(Fleet(GRID, [facts])).followed
        assert (one.lever, one.at) == ("stop_idle", GRID.start + 12 * 86400)
        assert one.predicted is not None
        assert one.predicted.high >= one.realised.middle > 0

    def test_a_change_without_effect_is_not_called_a_saving(self) -> None:
        random = Random(1)
        load = [1e6 * (1 + 0.5 * math.sin(hour / 4)) for hour in HOURS]
        days = [random.gauss(1.0, 0.03) for _ in HOURS[::24]]
        facts = Facts(
            Subject("model", name="m"),
            GRID,
            active=[one * days[hour // 24] for hour, one in enumerate(load)],
            idle=[0.0] * GRID.length,
            output_tokens=load,
            power_limit=[400.0 if hour < 12 * 24 else 300.0 for hour in HOURS],
        )
        (one,) = advise(Fleet(GRID, [facts])).followed
        assert one.realised.low < 0 < one.realised.high
        assert "not sure to save" in advice_formats.text(advise(Fleet(GRID, [facts])))


class TestFormats:
    def test_text_has_the_saving_the_evidence_the_risk_and_the_way_back(self, advised: Advised) -> None:
        text = advice_formats.text(advised)
        assert "ai/code-clock: Lock the SM clock below its maximum (clock_lock)" in text
        assert "(measured here)" in text
        assert "at most" in text
        assert "undo    nvidia-smi -rgc" in text
        assert "Checked, does not apply, and for how many (why: --all): " in text
        assert "increase(" not in text

    def test_all_has_queries_and_reasons(self, advised: Advised) -> None:
        text = advice_formats.text(advised, everything=True)
        assert 'energy_model_joules_total{namespace="ai",model_name="embed",component="cpu"}[720h]' in text
        assert "    straggler: its GPUs differ by 3% at most" in text
        assert "$" not in text.replace("$0.", "")

    @pytest.mark.parametrize("kind", ["model", "workload", "node"])
    def test_every_query_is_understood(self, advised: Advised, prometheus: str, kind: Any) -> None:
        server = Prometheus(prometheus)
        for lever in LEVERS:
            if kind in lever.about:
                advice = Advice(Subject(kind, name='a "b"'), lever, silent("no reason"))
                for query in evidence(advice, advised):
                    server.instant(query, advised.grid.start)

    @pytest.mark.parametrize(
        ("pods", "matchers"),
        [
            (["train-0", "train-1"], r'namespace="ai",pod=~"train\\-0|train\\-1",container=~"main"'),
            ([f"train-{number}" for number in range(30)], 'namespace="ai",container=~"main"'),
            ([""], 'namespace="ai",pod=~"",container=~"main"'),
        ],
        ids=["few pods", "many pods", "no pod"],
    )
    def test_queries_about_a_workload_are_about_its_containers(
        self, prometheus: str, pods: list[str], matchers: str
    ) -> None:
        facts = Facts(
            Subject("workload", "", "ai", "train"),
            GRID,
            active=[1e6] * GRID.length,
            containers=[(pod, "main") for pod in pods],
        )
        advised = advise(Fleet(GRID, [facts]))
        (stop_idle,) = [one for one in advised.checked if one.lever.name == "stop_idle"]
        query, _ = evidence(stop_idle, advised)
        assert f"energy_container_joules_total{{{matchers},component" in query
        Prometheus(prometheus).instant(query, GRID.start)

    def test_csv_has_every_subject_and_lever(self, advised: Advised) -> None:
        rows = list(csv.DictReader(io.StringIO(advice_formats.comma_separated(advised))))
        assert len(rows) == len(advised.recommended) + len(advised.checked)
        (clock,) = [row for row in rows if (row["name"], row["lever"]) == ("code-clock", "clock_lock")]
        assert float(clock["kwh_low"]) < float(clock["kwh_high"])

    def test_json_is_whole(self, advised: Advised) -> None:
        document = json.loads(advice_formats.as_json(advised))
        assert len(document["recommended"]) == len(advised.recommended)
        assert {one["lever"] for one in document["recommended"] + document["checked"]} == {
            lever.name for lever in LEVERS
        }
        assert all(one["evidence"] and one["undo"] for one in document["recommended"])

    def test_markdown_is_a_table(self, advised: Advised) -> None:
        table = [line for line in advice_formats.markdown(advised).splitlines() if line.startswith("|")]
        assert len(table) == 2 + len(advised.recommended)
        assert len({line.count("|") for line in table}) == 1

    def test_the_page_requests_nothing(self, advised: Advised) -> None:
        found: list[tuple[str, dict[str, str | None]]] = []

        class Elements(HTMLParser):
            def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
                found.append((tag, dict(attrs)))

        Elements().feed(advice_formats.page(advised))
        assert not [tag for tag, attributes in found if {"src", "href"} & attributes.keys() or tag == "script"]
        assert [tag for tag, _ in found].count("tr") == 1 + sum(
            1 for one in advised.recommended if one.kwh or one.grams
        )


WINDOW = ("--since", "2026-11-01T00:00", "--until", "2026-11-03T00:00")


class TestCommand:
    @pytest.fixture
    def run(self, prometheus: str, capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
        """Exit status, output and errors of the command on a server with one model of two days."""

        def call(*words: str) -> tuple[int, str, str]:
            status = main(["advise", "--prometheus.url", prometheus, *WINDOW, *words], {})
            return (status, *capsys.readouterr())

        return call

    def test_a_model_that_wastes_nothing(self, run: Callable[..., tuple[int, str, str]]) -> None:
        status, out, err = run()
        assert (status, err) == (0, "")
        assert out.startswith("Nothing to change whose saving is known.")
        assert "stop_idle 2" in out
        assert "No GPM: no card reports tensor activity" in out

    def test_half_a_window_is_said_to_be_half(self, run: Callable[..., tuple[int, str, str]]) -> None:
        assert "Samples cover 50% of the window" in run("--since", "2026-10-30T00:00")[1]

    def test_reasons_are_shown_with_all(self, run: Callable[..., tuple[int, str, str]]) -> None:
        assert "host_cpu: its CPU joules are 11% of those of its GPUs" in run("--all")[1]

    def test_formats_of_the_same(self, run: Callable[..., tuple[int, str, str]]) -> None:
        document = json.loads(run("--format", "json")[1])
        (model,) = [row for row in document["uses"] if row["subject"]["kind"] == "model"]
        assert model["joules"] == pytest.approx(400 * 2 * 86400, rel=0.03)
        assert run("--format", "csv", "--by", "lever")[0] == run("--format", "html")[0] == 0

    def test_the_status_says_whether_more_than_an_amount_could_be_saved(
        self, run: Callable[..., tuple[int, str, str]]
    ) -> None:
        assert run("--fail-above", "1kWh")[0] == 0

    @pytest.mark.parametrize(
        ("words", "status", "said"),
        [
            (["--fail-above", "lots"], 2, "--fail-above lots: an amount and its unit, such as 100kWh or 25EUR"),
            (["--model", "gpt-*"], 2, "gpt-*: no model of this name used energy in the window"),
            (["--since", "yesterday"], 2, "'yesterday': neither a duration (90m, 12h, 7d)"),
            (["--until", "2026-09-02", "--since", "2026-09-01"], 1, "no samples of energy_model_joules_total"),
            (["--by", "team"], 2, "invalid choice: 'team'"),
        ],
    )
    def test_mistakes_are_one_line(
        self, run: Callable[..., tuple[int, str, str]], words: list[str], status: int, said: str
    ) -> None:
        found, out, err = run(*words)
        assert (found, out) == (status, "")
        assert said in err
