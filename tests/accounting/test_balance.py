"""What is beyond the parts is counted once: sooner where values agree, and never for long on expectation alone."""

from __future__ import annotations

from itertools import accumulate

import pytest
from hypothesis import given
from hypothesis import strategies as st

from exporter.accounting.balance import Balance

PERIOD = 10


def play(gained: list[float], silence: int = 0, step: float = 0.0) -> list[float]:
    """Joules taken at each second; a value every ten, then none."""
    balance, taken = Balance(), []
    for joules in gained:
        balance.observe(joules, PERIOD, PERIOD, step)
        balance.add(joules, 60_000.0)
        taken += [balance.take(1.0, PERIOD, float(n), 0.0) for n in range(PERIOD)]
    return taken + [balance.take(1.0, PERIOD, float(PERIOD + n), 0.0) for n in range(silence)]


def test_a_steady_rest_is_counted_as_it_is_used() -> None:
    taken = play([500.0] * 60)
    assert taken[-300:] == pytest.approx([50.0] * 300, rel=1e-3)


def test_a_change_is_counted_within_a_minute() -> None:
    taken = play([500.0] * 40 + [1500.0] * 40)
    change = 400
    assert sum(taken[change : change + 100]) == pytest.approx(150.0 * 100, rel=0.2)
    assert taken[-100:] == pytest.approx([150.0] * 100, rel=0.02)


def test_a_meter_that_falls_silent_is_expected_to_go_on_for_some_values_only() -> None:
    taken = play([500.0] * 60, silence=300)
    after = taken[600:]
    assert 0 < sum(after) <= 50.0 * 3.5 * PERIOD
    assert after[60:] == pytest.approx([0.0] * 240, abs=1e-6)


def test_values_that_differ_by_more_than_their_mean_are_spread_over_a_minute() -> None:
    taken = play([3000.0, -2000.0] * 40)
    assert max(taken[400:]) < 3 * 50.0
    assert sum(taken[400:]) == pytest.approx(50.0 * len(taken[400:]), rel=0.05)


def test_nothing_is_expected_of_a_counter_of_coarse_steps() -> None:
    taken = play([0.0, 0.0, 0.0, 2000.0] * 20, step=2000.0)
    assert sum(taken) <= 20 * 2000.0


@given(st.lists(st.floats(-5000.0, 20_000.0), max_size=60), st.integers(0, 200))
def test_what_is_counted_never_falls_and_exceeds_what_was_measured_by_little(gained: list[float], silence: int) -> None:
    """By no more than what was expected last: some values of the highest power, and the debt that is not kept."""
    taken = play(gained, silence)
    assert all(joules >= 0 for joules in taken)
    highest = max(gained, default=0.0) / PERIOD
    lowest = min(accumulate(gained, initial=0.0))
    assert sum(taken) <= max(accumulate(gained, initial=0.0)) - lowest + max(0.0, highest) * 4 * PERIOD + 1e-6
