"""Live factors as the sampler sees them: in force while fresh, then the table with its own labels."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from exporter.config.loading import ConfigError
from exporter.config.settings import Settings
from exporter.impact.build import build
from exporter.impact.feeds.poller import Poller
from exporter.impact.feeds.protocol import FeedOptions, Quantity, Series, Slot
from exporter.impact.live import LiveSeries
from exporter.impact.schedule import Schedule, Span, Timetable
from exporter.impact.values import Factors
from tests.support.feed_server import FeedServer
from tests.support.patience import wait_for

HOUR = 3600.0
TABLE = Factors(
    380.0, 0.3, 1.2, "EUR", "DE", "table", "Ember", "location", "lifecycle", "2024", estimated=True
)  # fmt: skip
SLOTS = (Slot(0.0, HOUR, 100.0), Slot(HOUR, 2 * HOUR, 500.0), Slot(4 * HOUR, 5 * HOUR, 50.0, estimated=True))


class Silent:
    """A feed that is never asked: the answers are given."""

    name = "electricity-maps"
    poll_seconds = 300.0

    def read(self, now: float) -> Series:
        raise AssertionError

    def interrupt(self) -> None:
        """Nothing is going on."""


def given(series: Series | None) -> Poller[Series]:
    """A poller with an answer, whose thread does not run."""
    poller = Poller(Silent())
    poller.latest, poller.revision = series, 0 if series is None else 1
    poller.close()
    return poller


def options(quantity: Quantity) -> FeedOptions:
    return FeedOptions("electricity-maps", quantity, "DE-LU", "https://feed")


INTENSITY = Series(SLOTS, "DE-LU", "Electricity Maps", "lifecycle")


def test_a_fresh_value_is_in_force_and_an_old_one_is_not() -> None:
    """Away for six hours: the last value for an hour more, as an estimate, then the table, and the labels change."""
    schedule = Schedule(TABLE, lives=[LiveSeries(given(INTENSITY), options("intensity"), HOUR)])
    live = schedule.at(600.0)
    assert live == replace(
        TABLE,
        intensity=100.0,
        zone="DE-LU",
        provider="electricity-maps",
        source="Electricity Maps",
        year="",
        estimated=False,
        intensity_at=0.0,
    )
    assert schedule.at(1.5 * HOUR).intensity == 500.0
    held = schedule.at(2.5 * HOUR)
    assert (held.intensity, held.provider, held.estimated) == (500.0, "electricity-maps", True)
    assert schedule.at(3.5 * HOUR) == replace(TABLE, intensity_at=HOUR)
    assert schedule.at(4.5 * HOUR).intensity == 50.0
    assert schedule.at(12 * HOUR) == replace(TABLE, intensity_at=4 * HOUR)


def test_before_the_first_answer_the_table_is_in_force() -> None:
    schedule = Schedule(TABLE, lives=[LiveSeries(given(None), options("intensity"), HOUR)])
    assert schedule.at(0.0) == TABLE


def test_an_answer_is_in_force_at_once_and_a_look_up_is_made_once_a_minute() -> None:
    poller = given(None)
    schedule = Schedule(TABLE, lives=[LiveSeries(poller, options("intensity"), HOUR)])
    before = schedule.at(600.0)
    assert schedule.at(601.0) is before
    poller.latest, poller.revision = INTENSITY, 1
    after = schedule.at(602.0)
    assert after.intensity == 100.0
    assert schedule.at(659.0) is after


def test_prices_have_their_adder_and_the_tariff_is_below_them() -> None:
    prices = Series((Slot(0.0, 900.0, -0.05), Slot(900.0, 1800.0, 0.1)))
    tariff = Timetable((Span(0.4),))
    schedule = Schedule(TABLE, price=tariff, lives=[LiveSeries(given(prices), options("price"), 900.0, 0.02)])
    found = [schedule.at(at) for at in (0.0, 900.0, 2400.0, 3000.0)]
    assert [one.price for one in found] == [-0.03, 0.12, 0.12, 0.4]
    assert [one.price_at for one in found] == [0.0, 900.0, 900.0, 900.0]
    assert all(one.provider == "table" for one in found)


def test_marginal_intensity_is_never_that_of_the_totals() -> None:
    schedule = Schedule(TABLE, lives=[LiveSeries(given(INTENSITY), options("marginal"), HOUR)])
    fresh, old = schedule.at(600.0), schedule.at(12 * HOUR)
    assert (fresh.intensity, fresh.marginal, fresh.marginal_at) == (380.0, 100.0, 0.0)
    assert (old.marginal, old.marginal_at) == (None, 4 * HOUR)
    assert fresh.rates == TABLE.rates


FILE = """\
intensity:
  feed: {{name: energi-data-service, zone: DK1, url: "{url}"}}
  periods:
    - {{value: 0.2, }}
  unit: kg/kWh
price:
  currency: EUR
  adders: {{grid: 0.05}}
  feed: {{name: energi-data-service, zone: DK1, url: "{url}"}}
"""
TIME = "2026-11-28T18:00:00"
NOW = 1795888800.0
ANSWERS = {
    "/dataset/CO2Emis": {"records": [{"Minutes5UTC": TIME, "PriceArea": "DK1", "CO2Emission": 86.0}]},
    "/dataset/DayAheadPrices": {"records": [{"TimeUTC": TIME, "PriceArea": "DK1", "DayAheadPriceEUR": 81.4}]},
}


def test_a_file_with_feeds(tmp_path: Path) -> None:
    file = tmp_path / "impact.yaml"
    with FeedServer(ANSWERS) as server:
        file.write_text(FILE.format(url=server.url))
        schedule = build(Settings(impact_file=str(file)), lambda: "", lambda: NOW)
        assert schedule is not None
        assert server.asked == []  # checking a file leaves no trace elsewhere
        before = schedule.at(NOW)
        assert before.intensity in (200.0, 86.0)
        assert before.credits
        wait_for(lambda: all(one.up for one in schedule.health()))
        after = schedule.at(NOW + 60)
        assert (after.intensity, after.price, after.zone) == (86.0, 0.1314, "DK1")
        assert {one.name for one in schedule.health()} == {
            "energi-data-service-intensity",
            "energi-data-service-price",
        }
        schedule.close()


def test_a_constant_of_the_operator_needs_no_feed(tmp_path: Path) -> None:
    file = tmp_path / "impact.yaml"
    with FeedServer(ANSWERS) as server:
        file.write_text(FILE.format(url=server.url))
        constants = Settings(impact_file=str(file), impact_intensity=10.0, impact_price=0.3, impact_currency="EUR")
        schedule = build(constants, lambda: "")
        assert schedule is not None
        assert (schedule.at(NOW).intensity, schedule.health()) == (10.0, ())
    assert server.asked == []


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("intensity: {feed: {name: electricity-map, zone: DE}}", "1: intensity: feed: name: 'electricity-map' is not"),
        ("intensity: {feed: {zone: DE}}", "1: intensity: feed: the key name is missing: electricity-maps, watttime"),
        ("intensity: {feed: electricity-maps}", "1: intensity: feed: must be a mapping of name, zone, token-file, url"),
        (
            "intensity: {feed: {name: electricity-maps, zone: Germany, token-file: /t}}",
            "1: intensity: feed: zone: 'Germany' is not a zone such as DE or US-CAL-CISO",
        ),
        ("intensity: {feed: {name: uk-carbon-intensity}}", "1: intensity: feed: the key zone is missing, a zone such"),
        (
            "intensity: {feed: {name: electricity-maps, zone: DE}}",
            "1: intensity: feed: the key token-file is missing: a file with the API token",
        ),
        (
            "intensity: {feed: {name: electricity-maps, zone: DE, token-file: /t, url: 'http://proxy:80'}}",
            "1: intensity: feed: url: a token is sent over https only",
        ),
        (
            "intensity: {feed: {name: uk-carbon-intensity, zone: GB, url: 'ftp://x'}}",
            "1: intensity: feed: url: 'ftp://x' is not a URL",
        ),
        (
            "intensity: {feed: {name: uk-carbon-intensity, zone: GB, token-file: /t}}",
            "1: intensity: feed: uk-carbon-intensity needs no token-file",
        ),
        (
            "price: {currency: EUR, feed: {name: electricity-maps, zone: DE, token-file: /t}}",
            "1: price: feed: electricity-maps has no price, only intensity",
        ),
        (
            "price: {currency: USD, feed: {name: energi-data-service, zone: DK1}}",
            "1: price: feed: energi-data-service has prices in EUR and DKK only",
        ),
        ("price: {feed: {name: energi-data-service, zone: DK1}}", "1: price: the key currency is missing"),
        ("marginal: {feed: {name: uk-carbon-intensity, zone: GB}}", "has no marginal, only intensity"),
        ("marginal: {}", "1: marginal: the key feed is missing"),
        (
            "intensity: {unit: lb, periods: [{value: 1}]}",
            "1: intensity: unit: 'lb' is not one of g/kWh, kg/MWh",
        ),
        ("intensity: {unit: kg/kWh, periods: [{value: 6}]}", "value: '6' is not a number from 0 to 5"),
    ],
)
def test_a_mistake_names_the_line(tmp_path: Path, text: str, message: str) -> None:
    file = tmp_path / "impact.yaml"
    file.write_text(text + "\n")
    with pytest.raises(ConfigError) as error:
        build(Settings(impact_file=str(file)), lambda: "")
    assert any(message in problem for problem in error.value.problems), error.value.problems


def test_pounds_per_megawatt_hour_and_prices_of_one(tmp_path: Path) -> None:
    file = tmp_path / "impact.yaml"
    file.write_text(
        "intensity: {unit: lbs/MWh, periods: [{value: 1000}]}\n"
        "price: {unit: MWh, currency: USD, adders: {grid: 0.01}, periods: [{value: 50}]}\n"
    )
    schedule = build(Settings(impact_file=str(file)), lambda: "")
    assert schedule is not None
    assert schedule.at(0.0).intensity == pytest.approx(453.59237)
    assert schedule.at(0.0).price == pytest.approx(0.06)
