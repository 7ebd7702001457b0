"""Counters that wrap, reset, jump and jitter: joules in equal joules out, and nothing is invented."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from exporter.accounting.meters import GAP_SECONDS, EnergyMeter, Meters, Point, PowerMeter
from exporter.records import Device, EnergyReading, PowerReading

RANGE = 262_143.328850
PACKAGE = Device("package-0", "cpu", "rapl", "measured", "package-0", 8.0, max_watts=500.0)
DRAM = Device("dram-0", "dram", "rapl", "measured", "dram", 8.0, max_watts=200.0)


def energy(at: float, joules: float, wraps_at: float | None = RANGE, device: Device = PACKAGE) -> EnergyReading:
    return EnergyReading(device, at, joules, wraps_at)


def feed(meter: EnergyMeter, *values: tuple[float, float]) -> list[tuple[float, str]]:
    return [(round(delta.joules, 6), delta.event) for delta in (meter.feed(energy(*value)) for value in values)]


def test_first_reading_sets_the_baseline_only() -> None:
    assert feed(EnergyMeter(), (1.0, 5000.0), (2.0, 5100.0)) == [(0.0, "first"), (100.0, "ok")]


def test_one_wrap_is_exact() -> None:
    """Fault 1."""
    meter = EnergyMeter()
    assert feed(meter, (1.0, RANGE - 30.0), (2.0, 70.0)) == [(0.0, "first"), (100.0, "wrap")]
    assert meter.wraps == 1
    assert meter.resets == 0


def test_possible_double_wrap_books_only_what_is_sure() -> None:
    """Fault 2: in 1,000 s a 500 W package may wrap twice; what it counted since zero is sure, and a gap."""
    assert feed(EnergyMeter(), (0.0, 200_000.0), (1000.0, 50_000.0))[1] == (50_000.0, "gap")
    assert feed(EnergyMeter(), (0.0, 1_000.0), (1000.0, 50_000.0))[1] == (49_000.0, "gap")


def test_reset_to_zero_is_not_a_wrap() -> None:
    """Fault 3: 131 kJ in one second is no package's power."""
    meter = EnergyMeter()
    assert feed(meter, (1.0, 131_000.0), (2.0, 0.0), (3.0, 80.0), (4.0, 180.0)) == [
        (0.0, "first"),
        (0.0, "reset"),
        (80.0, "ok"),
        (100.0, "ok"),
    ]
    assert meter.resets == 1


def test_reset_then_old_value_returns() -> None:
    """Fault 4: an accumulated 15.5 MWh must not be attributed when the old value comes back."""
    old = 15.5e6 * 3600
    meter = EnergyMeter()
    readings = [(1.0, old, None), (2.0, 10.0, None), (3.0, old + 150.0, None), (4.0, old + 250.0, None)]
    assert [round(meter.feed(energy(*r)).joules, 3) for r in readings] == [0.0, 0.0, 150.0, 100.0]
    meter = EnergyMeter()
    readings = [(1.0, old, None), (2.0, 10.0, None), (3.0, 110.0, None), (4.0, old, None), (5.0, old + 100.0, None)]
    assert [round(meter.feed(energy(*r)).joules, 3) for r in readings] == [0.0, 0.0, 100.0, 0.0, 100.0]


def test_small_step_back_is_jitter() -> None:
    """Fault 5: nothing is attributed for the step back, nor twice when the counter passes the old mark again."""
    assert feed(EnergyMeter(), (1.0, 1000.0), (2.0, 999.9), (3.0, 1100.0)) == [
        (0.0, "first"),
        (0.0, "ok"),
        (100.0, "ok"),
    ]


def test_unknown_range_never_makes_a_wrap() -> None:
    """Fault 6: without max_energy_range_uj a fall is a reset."""
    meter = EnergyMeter()
    joules = [meter.feed(energy(at, value, None)).joules for at, value in ((1.0, 262_100.0), (2.0, 50.0), (3.0, 150.0))]
    assert joules == [0.0, 0.0, 100.0]


def test_one_of_two_zones_wraps() -> None:
    """Fault 7: the other zone's range is never applied to it (260 kW)."""
    meters = Meters()
    meters.feed([energy(1.0, RANGE - 10.0), energy(1.0, 500.0, 65_712.999613, DRAM)])
    package, dram = meters.feed([energy(2.0, 90.0), energy(2.0, 520.0, 65_712.999613, DRAM)])
    assert (round(package.joules, 6), dram.joules) == (100.0, 20.0)


@pytest.mark.parametrize("jump", [1.8e19, 3.69e12, 1e6])
def test_implausible_jump_is_rejected_and_nothing_is_lost(jump: float) -> None:
    """Fault 18."""
    assert feed(EnergyMeter(), (1.0, 1000.0), (2.0, jump), (3.0, 1200.0)) == [
        (0.0, "first"),
        (0.0, "implausible"),
        (200.0, "ok"),
    ]


def test_not_a_number_is_rejected() -> None:
    assert feed(EnergyMeter(), (1.0, 1000.0), (2.0, float("nan")), (3.0, 1200.0))[1:] == [
        (0.0, "implausible"),
        (200.0, "ok"),
    ]


def test_after_a_restart_the_first_delta_is_a_gap() -> None:
    meter = EnergyMeter(Point(1000.0, 10.0))
    assert feed(meter, (40.0, 4000.0), (41.0, 4100.0)) == [(3000.0, "gap"), (100.0, "ok")]


@given(st.lists(st.floats(0.0, 499.0), min_size=1, max_size=60), st.floats(0.0, RANGE - 1))
def test_joules_out_are_joules_in_across_any_number_of_wraps(powers: list[float], start: float) -> None:
    meter, true = EnergyMeter(), start
    meter.feed(energy(0.0, start % RANGE))
    attributed = 0.0
    for second, watts in enumerate(powers):
        # Up to 100 s apart: many wraps over the run, never two between readings.
        true += watts * 100
        attributed += meter.feed(energy((second + 1) * 100.0, true % RANGE)).joules
    assert attributed == pytest.approx(true - start, abs=1e-6 * len(powers) + 1e-9 * true)


@given(st.lists(st.tuples(st.floats(0.01, 300.0), st.floats(-1e3, 1e20)), max_size=40), st.booleans())
def test_never_more_than_plausible_power_whatever_the_counter_says(
    readings: list[tuple[float, float]], wraps: bool
) -> None:
    meter, now, attributed, began = EnergyMeter(), 0.0, 0.0, None
    for step, joules in readings:
        now += step
        delta = meter.feed(energy(now, joules, RANGE if wraps else None))
        began = now if began is None else began
        assert delta.joules >= 0
        attributed += delta.joules
        assert attributed <= 500.0 * (now - began + 0.1 * len(readings)) + 1e-6


def power(at: float, watts: float) -> PowerReading:
    return PowerReading(PACKAGE, at, watts)


def test_power_is_integrated_by_trapezoid() -> None:
    meter = PowerMeter()
    deltas = [meter.feed(power(*p)) for p in ((0.0, 100.0), (1.0, 200.0), (3.0, 200.0))]
    assert [(delta.joules, delta.event) for delta in deltas] == [(0.0, "first"), (150.0, "ok"), (400.0, "ok")]


def test_power_is_never_integrated_across_a_gap() -> None:
    meter = PowerMeter()
    meter.feed(power(0.0, 100.0))
    gap = meter.feed(power(GAP_SECONDS + 1, 100.0))
    assert (gap.joules, gap.event) == (0.0, "gap")
    assert meter.feed(power(GAP_SECONDS + 2, 100.0)).joules == 100.0


@pytest.mark.parametrize("watts", [-1.0, 1e9, float("nan"), float("inf")])
def test_impossible_power_is_dropped(watts: float) -> None:
    meter = PowerMeter()
    meter.feed(power(0.0, 100.0))
    assert meter.feed(power(1.0, watts)).event == "implausible"
    assert meter.feed(power(2.0, 100.0)).joules == 200.0
