"""The lag of the machine's meter is found by comparing it with its parts; what lies between two values is theirs."""

from __future__ import annotations

import random

import pytest

from exporter.accounting.alignment import Alignment, Covered, PartsHistory


class Steps:
    """A load that jumps at uneven times; the meter shows it 10 % above, with 150 W of its own."""

    def __init__(self, seed: int = 1, least: float = 100.0, most: float = 1000.0) -> None:
        chance = random.Random(seed)
        self.joules = [0.0]
        while len(self.joules) < 2000:
            watts = chance.uniform(least, most)
            for _ in range(chance.randint(2, 12)):
                self.joules.append(self.joules[-1] + watts)

    def until(self, at: float) -> float:
        second = int(at)
        return self.joules[second] + (at - second) * (self.joules[second + 1] - self.joules[second])

    def shown(self, at: float, seconds: float) -> float:
        """Mean watts of the machine in the seconds before."""
        return 150.0 + 1.1 * (self.until(at) - self.until(at - seconds)) / seconds


def play(load: Steps, lag: float, span: float, period: int = 10, seconds: int = 900) -> tuple[Alignment, list[Covered]]:
    """A gauge that is an average of ``span``, or with 0 a counter; all that was found once the lag was."""
    history, alignment, found = PartsHistory(), Alignment(gauge=span > 0), []
    for now in range(200, 200 + seconds):
        history.add(float(now), load.until(now) - load.until(now - 1))
        if now % period == 0:
            watts = load.shown(now - lag, span or period)
            covered = alignment.compare(history, float(now), watts, float(period))
            if covered is not None and alignment.found:
                found.append(covered)
    return alignment, found


@pytest.mark.parametrize("period", [5, 10, 30])
@pytest.mark.parametrize("lag", [0, 1, 4, 10, 25])
def test_the_lag_of_a_counter_is_found(lag: int, period: int) -> None:
    alignment, found = play(Steps(), lag, 0, period)
    assert alignment.age_seconds == lag
    assert {covered.missed for covered in found} == {0.0}
    parts = [covered.parts for covered in found[-9:]]
    load, last = Steps(), 1099 // period * period
    ends = [last - period * n - lag for n in reversed(range(9))]
    assert parts == pytest.approx([load.until(end) - load.until(end - period) for end in ends])


@pytest.mark.parametrize(("lag", "span"), [(0, 1), (3, 1), (12, 1), (2, 5), (0, 10), (8, 10), (5, 30), (0, 60)])
def test_the_lag_and_the_span_of_a_gauge_are_found(lag: int, span: int) -> None:
    alignment, _ = play(Steps(), lag, span)
    assert alignment.age_seconds == pytest.approx(lag + span / 2, abs=1.0)


@pytest.mark.parametrize(("lag", "span"), [(0, 1), (7, 1), (2, 5), (4, 10)])
def test_what_a_gauge_does_not_see_between_two_values_is_what_its_parts_say(lag: int, span: int) -> None:
    """Integrated alone, a value in ten seconds misses much of such a load; with its parts nothing."""
    load = Steps()
    _, found = play(load, lag, span)
    ends = [1090 - 10 * n - lag for n in reversed(range(len(found)))]
    plain = [(load.shown(end, span) + load.shown(end - 10, span)) / 2 * 10 for end in ends]
    true = 150.0 * 10 * len(found) + 1.1 * sum(covered.parts for covered in found)
    missed = sum(covered.missed for covered in found)
    assert max(abs(covered.missed) for covered in found) > 300.0
    assert sum(plain) + missed == pytest.approx(true, rel=0.002)


@pytest.mark.parametrize("span", [0, 1])
@pytest.mark.parametrize("load", [Steps(least=400.0, most=400.0), Steps(least=400.0, most=402.0)])
def test_a_steady_load_says_nothing(load: Steps, span: int) -> None:
    alignment, found = play(load, 5, span)
    assert (alignment.found, alignment.age_seconds, found) == (False, 0.0, [])


def test_a_meter_that_moves_unlike_its_parts_says_nothing() -> None:
    other, load = Steps(seed=7), Steps(seed=8)
    other.joules = [100.0 * load.joules[-1] - joules for joules in load.joules]  # falls where they rise
    history, alignment = PartsHistory(), Alignment(gauge=False)
    for now in range(200, 1100):
        history.add(float(now), load.until(now) - load.until(now - 1))
        if now % 10 == 0:
            alignment.compare(history, float(now), other.shown(now, 10) + 5000.0, 10.0)
    assert not alignment.found


def test_a_lag_is_kept_while_the_load_is_steady() -> None:
    load = Steps()
    watts = load.joules[701] - load.joules[700]
    load.joules[700:] = [load.joules[700] + watts * n for n in range(1300)]
    alignment, _ = play(load, 6, 1, seconds=1500)
    assert alignment.age_seconds == 6.5


def test_before_the_history_reaches_back_nothing_is_known() -> None:
    history, alignment = PartsHistory(), Alignment(gauge=False)
    for now in range(100):
        history.add(float(now), 100.0)
        found = alignment.compare(history, float(now), 200.0, 1.0)
        assert (found is None) == (now <= 30)


def test_after_a_value_that_is_missing_the_next_one_covers_unknown_time() -> None:
    history, alignment = PartsHistory(), Alignment(gauge=False)
    for now in range(200):
        history.add(float(now), 100.0)
    assert alignment.compare(history, 100.0, 200.0, 10.0) is None
    assert alignment.compare(history, 110.0, 200.0, 10.0) == Covered(1000.0)
    assert alignment.compare(history, 130.0, 200.0, 10.0) is None, "its joules are of ten seconds"


def test_history_is_bounded() -> None:
    history = PartsHistory()
    for now in range(5000):
        history.add(now / 2, 1.0)
    assert len(history._at) < 600
    history.add(1.0, 1.0)  # a tick of an earlier time is no time of its own
    assert history.totals(2499.5, 90) is not None
