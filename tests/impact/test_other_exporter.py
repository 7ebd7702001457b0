"""Factors of another exporter: what is taken, how long it is used, and what is in force afterwards."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from exporter.config.loading import ConfigError
from exporter.config.settings import Settings
from exporter.impact.build import build
from exporter.impact.exchange import PATH, dump, load
from exporter.impact.other_exporter import OtherExporter
from exporter.impact.values import Factors
from exporter.records import Unavailable
from tests.support.feed_server import FeedServer
from tests.support.patience import wait_for

HOUR = 3600.0
NOW = 1.8e9
THEIRS = Factors(
    302.0,
    0.12,
    1.3,
    "EUR",
    "DE",
    "electricity-maps",
    "Electricity Maps",
    "location",
    "lifecycle",
    credits=True,
    intensity_at=NOW - 600,
    price_at=NOW - 60,
    marginal=700.0,
    marginal_at=NOW - 90,
)
WORDS = st.text(st.characters(categories=("L", "N", "P"), codec="utf-8"), max_size=20)


@given(
    st.builds(
        Factors,
        st.none() | st.floats(0, 5000),
        st.none() | st.floats(-1e6, 1e6),
        st.floats(1, 10),
        WORDS,
        WORDS,
        WORDS,
        estimated=st.booleans(),
        credits=st.booleans(),
        intensity_at=st.none() | st.floats(0, 1e11),
    )
)
def test_what_is_given_is_what_is_taken(factors: Factors) -> None:
    assert load(json.loads(dump(factors))) == factors


def test_a_newer_exporter_may_know_more() -> None:
    assert load({"intensity": 5, "water": 3.0}) == Factors(intensity=5)


@pytest.mark.parametrize(
    "content",
    [None, [], "x", {"intensity": -1}, {"intensity": "5"}, {"pue": 0.5}, {"price": 1e9}, {"zone": 3}, {"zone": "a\nb"},
     {"credits": 1}, {"currency": None}, {"zone": "x" * 300}, {"intensity_at": -5}],
)  # fmt: skip
def test_what_is_not_plausible_is_not_taken(content: object) -> None:
    with pytest.raises(ValueError, match=r"plausible|object"):
        load(content)


def test_factors_are_taken_with_their_labels_and_aged_by_the_clock(tmp_path: Path) -> None:
    """Away: for an hour the last factors, then the own table, labels included; the PUE of the building stays."""
    now = [NOW]
    with FeedServer({PATH: json.loads(dump(THEIRS))}) as server:
        settings = Settings(impact_from=server.url, impact_zone="FR", impact_max_age=HOUR)
        schedule = build(settings, lambda: "", lambda: now[0])
        assert schedule is not None
        schedule.at(NOW - 60)
        wait_for(lambda: schedule.health()[0].up)
        assert schedule.at(NOW) == replace(THEIRS, year="", estimated=False)
        schedule.close()
    (asked,) = server.asked
    assert (asked.path, "authorization" in asked.headers) == (PATH, False)
    assert schedule.at(NOW + HOUR - 1).intensity == 302.0
    aged = schedule.at(NOW + HOUR)
    assert (aged.intensity, aged.provider, aged.year, aged.price, aged.marginal) == (44.18, "table", "2024", None, None)
    assert (aged.pue, aged.intensity_at, aged.price_at) == (1.3, NOW - 600, NOW - 60)


def test_a_constant_of_the_other_is_as_old_as_its_answer_and_the_own_pue_comes_first() -> None:
    with FeedServer({PATH: json.loads(dump(Factors(44.0, provider="table", pue=1.5)))}) as server:
        schedule = build(Settings(impact_from=server.url, impact_pue=1.1), lambda: "", lambda: NOW)
        assert schedule is not None
        schedule.at(NOW)
        wait_for(lambda: schedule.health()[0].up)
        found = schedule.at(NOW + 1)
        schedule.close()
    assert (found.intensity, found.intensity_at, found.pue, found.price_at) == (44.0, NOW, 1.1, None)
    assert schedule.at(NOW + 2 * HOUR).intensity is None  # no table here: no grams rather than old ones


def test_another_currency_is_not_added_up() -> None:
    with FeedServer({PATH: json.loads(dump(THEIRS))}) as server:
        with pytest.raises(Unavailable, match=r"EUR.*USD"):
            OtherExporter(server.url, currency="USD").read(NOW)
        taker = OtherExporter(server.url)
        assert taker.read(NOW).factors.currency == "EUR"
        server.answers[PATH] = json.loads(dump(replace(THEIRS, currency="USD")))
        with pytest.raises(Unavailable, match=r"USD.*EUR") as error:
            taker.read(NOW)
    assert error.value.fix


def test_a_login_is_sent(tmp_path: Path) -> None:
    file = tmp_path / "login"
    file.write_text("taker:pass\n")
    with FeedServer({PATH: json.loads(dump(THEIRS))}) as server:
        OtherExporter(server.url, str(file)).read(NOW)
    assert server.asked[0].headers["authorization"] == "Basic dGFrZXI6cGFzcw=="


@pytest.mark.parametrize("body", ["<html>", "", "{", '{"intensity": 1e999}', "[]"])
def test_an_answer_that_is_none(body: str) -> None:
    with FeedServer({PATH: body}) as server, pytest.raises(Unavailable) as error:
        OtherExporter(server.url).read(NOW)
    assert error.value.reason == "implausible"


def test_a_login_in_the_clear_and_two_sources_of_factors_are_errors(tmp_path: Path) -> None:
    file = tmp_path / "impact.yaml"
    file.write_text("intensity: {feed: {name: uk-carbon-intensity, zone: GB}}\n")
    wrong = Settings(impact_from="http://node-1:9400", impact_from_credentials="/x", impact_file=str(file))
    with pytest.raises(ConfigError) as error:
        build(wrong, lambda: "")
    assert error.value.problems == (
        "impact.from and a feed in impact.file exclude each other: the other exporter has the feed",
        "impact.from-credentials needs impact.from with https",
    )
