"""Which factors are in force when: in the time zone of the tariff, on both sides of midnight and of daylight saving."""

from __future__ import annotations

from datetime import UTC, datetime
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from exporter.impact.schedule import Schedule, Span, Timetable
from exporter.impact.values import JOULES_PER_KWH, Factors, Rates, Settled

BERLIN = "Europe/Berlin"
NIGHT = Timetable((Span(0.2, start=22 * 60, end=6 * 60), Span(0.3)), ZoneInfo(BERLIN))
WEEKEND_NIGHT = Timetable((Span(0.1, frozenset({5, 6}), 22 * 60, 6 * 60), Span(0.3)), ZoneInfo(BERLIN))


def at(year: int, month: int, day: int, hour: int, minute: int, zone: str = BERLIN, fold: int = 0) -> float:
    return datetime(year, month, day, hour, minute, tzinfo=ZoneInfo(zone), fold=fold).timestamp()


@pytest.mark.parametrize(
    ("timetable", "time", "value"),
    [
        (NIGHT, at(2026, 11, 28, 21, 59), 0.3),
        (NIGHT, at(2026, 11, 28, 22, 0), 0.2),
        (NIGHT, at(2026, 11, 29, 0, 0), 0.2),
        (NIGHT, at(2026, 11, 29, 5, 59), 0.2),
        (NIGHT, at(2026, 11, 29, 6, 0), 0.3),
        # the node's clock may be in another zone: 21:30 UTC is 22:30 in Berlin in winter, 23:30 in summer
        (NIGHT, at(2026, 11, 28, 21, 30, "UTC"), 0.2),
        (NIGHT, at(2026, 6, 28, 20, 30, "UTC"), 0.2),
        # daylight saving: in spring 2:30 does not exist, in autumn it comes twice
        (NIGHT, at(2026, 3, 29, 3, 0), 0.2),
        (NIGHT, at(2026, 10, 25, 2, 30), 0.2),
        (NIGHT, at(2026, 10, 25, 2, 30, fold=1), 0.2),
        # a leap day
        (NIGHT, at(2028, 2, 29, 23, 0), 0.2),
        # a span that passes midnight belongs to the day on which it starts: Sunday's reaches into Monday
        (WEEKEND_NIGHT, at(2026, 11, 27, 23, 0), 0.3),
        (WEEKEND_NIGHT, at(2026, 11, 28, 5, 0), 0.3),
        (WEEKEND_NIGHT, at(2026, 11, 28, 23, 0), 0.1),
        (WEEKEND_NIGHT, at(2026, 11, 30, 5, 0), 0.1),
        (WEEKEND_NIGHT, at(2026, 12, 1, 5, 0), 0.3),
    ],
)
def test_the_value_in_force(timetable: Timetable, time: float, value: float) -> None:
    assert timetable.at(time) == value
    assert timetable.gap is None


def test_a_day_of_daylight_saving_has_23_or_25_hours() -> None:
    """At 1 kW, hours of night and day add up to the length of the day."""
    for day, hours in ((datetime(2026, 3, 29), 23), (datetime(2026, 10, 25), 25), (datetime(2026, 11, 28), 24)):
        begin = day.replace(tzinfo=ZoneInfo(BERLIN)).timestamp()
        values = [NIGHT.at(begin + 60 * minute) for minute in range(60 * hours)]
        assert datetime.fromtimestamp(begin + 3600 * hours, ZoneInfo(BERLIN)).hour == 0
        assert values.count(0.3) == 16 * 60


def test_a_time_that_no_span_covers_is_found() -> None:
    assert Timetable((Span(1.0, start=0, end=1439),)).gap == (0, 1439)
    assert Timetable((Span(1.0, frozenset(range(6))),)).gap == (6, 0)


def test_the_schedule_changes_on_the_minute() -> None:
    schedule = Schedule(Factors(intensity=300.0, price=0.3, currency="EUR"), price=NIGHT)
    before, after = schedule.at(at(2026, 11, 28, 21, 59) + 59.9), schedule.at(at(2026, 11, 28, 22, 0) + 0.1)
    assert (before.price, after.price) == (0.3, 0.2)
    assert (after.intensity, after.intensity_at, after.price_at) == (300.0, None, None)  # a tariff does not age


def test_a_constant_never_changes() -> None:
    factors = Factors(intensity=41.4, pue=1.2)
    schedule = Schedule(factors)
    assert schedule.at(0.0) is schedule.at(1e9) is factors


@given(st.floats(0, 3000), st.floats(-5, 5), st.floats(1, 3))
def test_a_kilowatt_hour_is_worth_its_factors(intensity: float, price: float, pue: float) -> None:
    """Costs and credits both only grow; their difference is the price."""
    rates = Factors(intensity, price, pue).rates
    assert rates.grams is not None
    assert rates.cost is not None
    assert rates.credit is not None
    assert rates.cost >= 0 <= rates.credit
    impact = Settled().impact(JOULES_PER_KWH, rates)
    assert impact.grams == pytest.approx(intensity * pue)
    assert impact.cost - impact.credit == pytest.approx(price * pue)


def test_unknown_factors_have_no_rates() -> None:
    assert Factors().rates == Rates(None, None, None)
    assert Factors(price=0.0).rates == Rates(None, 0.0, 0.0)


def test_utc_is_the_default_zone() -> None:
    timetable = Timetable((Span(1.0, start=0, end=60), Span(2.0)))
    assert timetable.at(datetime(2026, 11, 28, 0, 59, tzinfo=UTC).timestamp()) == 1.0
