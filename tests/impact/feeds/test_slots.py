"""Values by time, however they are given: unordered, with gaps, with forecasts; and their units."""

from __future__ import annotations

from datetime import UTC, datetime
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from exporter.impact.feeds.protocol import Slot
from exporter.impact.feeds.slots import MOST_SLOTS, in_force, newest, ordered, plausible, unix_seconds
from exporter.impact.units import INTENSITY, PRICE, grams_per_kwh, price_per_kwh

HOUR = 3600.0
SLOTS = st.lists(
    st.builds(
        lambda start, length, value: Slot(start, start + length, value),
        st.integers(0, 48).map(lambda hour: hour * HOUR),
        st.sampled_from([300.0, HOUR, 2 * HOUR]),
        st.floats(0, 1000),
    ),
    max_size=30,
)


@given(SLOTS, st.floats(-HOUR, 60 * HOUR), st.floats(60, 12 * HOUR))
def test_what_is_in_force_began_last_and_is_not_too_old(slots: list[Slot], now: float, age: float) -> None:
    found = in_force(ordered(slots), now, age)
    begun = [slot for slot in slots if slot.start <= now]
    if found is None:
        assert all(now >= slot.end + age or any(s.start >= slot.start for s in begun) for slot in begun)
        return
    assert found.slot.start == max(slot.start for slot in begun) == newest(ordered(slots), now)
    assert found.late == (now >= found.slot.end)
    assert now < found.slot.end + age


@given(SLOTS)
def test_slots_in_order_do_not_overlap(slots: list[Slot]) -> None:
    found = ordered(slots)
    assert all(one.end <= other.start for one, other in pairwise(found))
    assert {slot.start for slot in found} == {slot.start for slot in slots}


def test_hours_that_are_unordered_and_a_missing_one() -> None:
    """A forecast whose third hour is missing: the second is held, and is late, for at most the age."""
    hours = ordered(Slot(h * HOUR, (h + 1) * HOUR, 100.0 * h, estimated=h > 1) for h in (3, 0, 1))
    assert [slot.value for slot in hours] == [0.0, 100.0, 300.0]
    held = in_force(hours, 2.5 * HOUR, HOUR)
    assert held is not None
    assert (held.slot.value, held.late) == (100.0, True)
    assert in_force(hours, 2.5 * HOUR, 0.25 * HOUR) is None
    later = in_force(hours, 3 * HOUR, HOUR)
    assert later is not None
    assert (later.slot.value, later.slot.estimated, later.late) == (300.0, True, False)


def test_a_corrected_value_replaces_the_one_before() -> None:
    assert ordered([Slot(0, HOUR, 1.0, True), Slot(0, HOUR, 2.0)]) == (Slot(0, HOUR, 2.0),)


def test_an_endless_answer_keeps_its_newest_values() -> None:
    found = ordered(Slot(at, at + 1, 1.0) for at in range(MOST_SLOTS + 10))
    assert (len(found), found[-1].start) == (MOST_SLOTS, MOST_SLOTS + 9)


@pytest.mark.parametrize(
    ("text", "hour"),
    [
        ("2026-11-28T18:00Z", 18),
        ("2026-11-28T18:00:00.000Z", 18),
        ("2026-11-28T18:00:00+00:00", 18),
        ("2026-11-28T19:00:00+01:00", 18),
        ("2026-11-28T18:00:00", 18),
        ("18 o'clock", None),
        ("", None),
        (None, None),
        (1796000000, None),
        ("9999-99-99T00:00", None),
    ],
)
def test_a_time_without_a_zone_is_utc(text: object, hour: int | None) -> None:
    assert unix_seconds(text) == (None if hour is None else datetime(2026, 11, 28, hour, tzinfo=UTC).timestamp())


@given(st.floats(0, 5000), st.sampled_from(sorted(INTENSITY)))
def test_a_unit_is_what_its_name_says(value: float, unit: str) -> None:
    """Grams in a unit's mass over kWh in its energy."""
    mass, _, energy = unit.partition("/")
    grams = {"g": 1.0, "kg": 1e3, "t": 1e6, "lbs": 453.59237}[mass]
    kwh = {"kWh": 1.0, "MWh": 1e3}[energy]
    assert grams_per_kwh(value, unit) == pytest.approx(value * grams / kwh)


@given(st.floats(-500, 5000), st.sampled_from(sorted(PRICE)))
def test_a_price_is_for_its_energy(value: float, unit: str) -> None:
    assert price_per_kwh(value, unit) * {"kWh": 1.0, "MWh": 1e3}[unit] == pytest.approx(value)


@pytest.mark.parametrize("value", [True, None, "1", float("nan"), float("inf"), -1, 11, [1]])
def test_what_is_no_number_in_bounds(value: object) -> None:
    assert plausible(value, 0.0, 10.0) is None
