"""Facts of a fleet, read from a real Prometheus whose every joule is known."""

from __future__ import annotations

import pytest

from exporter.analysis import fleet
from exporter.analysis.facts import Facts, Fleet, Grid
from exporter.analysis.fleet_queries import Queries
from exporter.analysis.prometheus import Prometheus, QueryError
from exporter.analysis.steps import StepReader
from exporter.analysis.window import Window
from tests.analysis.conftest import BATCH_HOURS, DAY, GRAMS_PER_KWH, HOUR, PRICE, START, TOKENS_PER_SECOND

GRID = Grid(START, HOUR, 48)


@pytest.fixture(scope="module")
def read(prometheus: str) -> Fleet:
    """The facts of both days."""
    server = Prometheus(prometheus)
    grid = fleet.grid(server, Window(START, START + 2 * DAY))
    assert grid == GRID
    return fleet.read(server, grid)


@pytest.fixture(scope="module")
def chat(read: Fleet) -> Facts:
    """The one model."""
    (one,) = [each for each in read.subjects if each.subject.kind == "model"]
    return one


def test_joules_of_every_hour(chat: Facts) -> None:
    assert list(chat.active) == pytest.approx([300 * HOUR] * 48, rel=0.02)
    assert list(chat.idle) == pytest.approx([60 * HOUR] * 48, rel=0.02)
    assert list(chat.cpu) == pytest.approx([40 * HOUR] * 48, rel=0.02)
    assert list(chat.output_tokens) == pytest.approx([TOKENS_PER_SECOND * HOUR] * 48, rel=0.02)


def test_factors_are_those_that_the_exporters_counted_by(chat: Facts) -> None:
    assert chat.grams_per_joule == pytest.approx(GRAMS_PER_KWH / 3.6e6, rel=1e-3)
    assert chat.price_per_joule == pytest.approx({"EUR": PRICE / 3.6e6}, rel=1e-3)


def test_a_model_at_work_has_no_gaps(chat: Facts) -> None:
    assert sum(chat.quiet) == sum(chat.quiet_seconds) == 0


def test_what_no_series_has_is_missing_with_its_reason(read: Fleet) -> None:
    assert set(read.missing) == {"server metrics", "cards", "GPM", "carbon intensity"}


def test_values_five_minutes_apart_are_added_to_their_hour(prometheus: str) -> None:
    reader = StepReader(Prometheus(prometheus), GRID)
    sums, counts = reader.read_often('2 * group by (pod) (energy_container_info{namespace="batch"})', ("pod",), 300.0)
    first, last = (hour // HOUR for hour in BATCH_HOURS)
    assert list(counts[("batch-7",)])[first + 1 : last] == [12.0] * (last - first - 1)
    assert list(sums[("batch-7",)])[first + 1 : last] == [24.0] * (last - first - 1)
    assert list(counts[("batch-7",)])[: first - 1] == [0.0] * (first - 1)


def test_a_short_window_has_steps_of_five_minutes(prometheus: str) -> None:
    grid = fleet.grid(Prometheus(prometheus), Window(START + HOUR, START + 3 * HOUR))
    assert grid == Grid(START + HOUR, 300.0, 24)


@pytest.mark.parametrize("hours", [5.3, 30.0, 400.0])
def test_steps_begin_with_the_first_sample(prometheus: str, hours: float) -> None:
    """To a minute, or a thousandth of the window."""
    window = Window(START - hours * HOUR, START + 2 * DAY)
    grid = fleet.grid(Prometheus(prometheus), window)
    assert grid.start + grid.seconds == window.end
    assert START - max(60.0, window.seconds / 1024) - grid.step < grid.start < START + grid.step


def test_samples_between_the_moments_that_are_looked_at(prometheus: str) -> None:
    """A model that was there for two days of years, the last of them months ago."""
    window = Window(START - 3000 * DAY, START + 8 * DAY)
    grid = fleet.grid(Prometheus(prometheus), window)
    assert grid.start < START + 2 * DAY
    assert grid.start + grid.seconds == window.end


def test_steps_without_samples_are_not_seen(prometheus: str) -> None:
    """Between the written days there are three without."""
    found = fleet.read(Prometheus(prometheus), Grid(START, HOUR, 7 * 24))
    (chat,) = [each for each in found.subjects if each.subject.name == "org/chat-8B"]
    assert sum(chat.seen) == pytest.approx(4 * 24, abs=2)


def test_more_models_than_fit_into_memory_are_refused_with_what_to_do(prometheus: str) -> None:
    with pytest.raises(QueryError, match=r"1 models with 48 steps each are too many at once: shorten --since"):
        fleet.grid(Prometheus(prometheus), Window(START, START + 2 * DAY), most=40)


@pytest.mark.parametrize("recorded", [False, True])
def test_every_query_is_understood(prometheus: str, recorded: bool) -> None:
    queries = Queries(3600.0, 'cluster=""', recorded, recorded)
    reader = StepReader(Prometheus(prometheus), Grid(START, HOUR, 1))
    plain: tuple[str, ...] = (
        "joules",
        "activities",
        "quiet",
        "quiet_containers",
        "held_containers",
        "tokens",
        "replicas",
        "images",
    )
    plain += ("power", "clock", "memory", "throttled", "card_models", "links", "container_models", "bare", "free")
    for name in (*plain, "grams", "intensity", "zones"):
        reader.read(getattr(queries, name)(), ())
    for query in (*queries.served(), queries.money("cost"), queries.of_nodes("joules"), queries.card("a")):
        reader.read(query, ())
    reader.read(queries.scraped_tokens("output"), ())
    reader.read(queries.server(("vllm:num_requests_running", "sglang:num_running_reqs"), "sum"), ())
