"""Intervals from few blocks cover the truth about as often as they say."""

from __future__ import annotations

import math
from collections.abc import Callable
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from exporter.analysis import bootstrap
from exporter.analysis.bootstrap import Interval

TRIALS = 160

Blocks = list[tuple[float, float]]


def _steady(random: Random, count: int) -> Blocks:
    """Joules of blocks that scatter around 10."""
    return [(random.gauss(10, 2), 1.0) for _ in range(count)]


def _skewed(random: Random, count: int) -> Blocks:
    """Mostly small, sometimes large; 1 on average."""
    return [(random.lognormvariate(-0.125, 0.5), 1.0) for _ in range(count)]


def _per_token(random: Random, count: int) -> Blocks:
    """Two joules a token, under a load that varies fourfold."""
    tokens = [random.lognormvariate(0, 0.6) for _ in range(count)]
    return [(2 * each * random.gauss(1, 0.1), each) for each in tokens]


def _alike(random: Random, count: int) -> Blocks:
    """Each block is like the one before: correlation 0.6."""
    value, found = random.gauss(0, 1), []
    for _ in range(count):
        found.append((10 + 2 * value, 1.0))
        value = 0.6 * value + 0.8 * random.gauss(0, 1)
    return found


def _covered(make: Callable[[Random, int], Blocks], truth: float, count: int, run: int = 1) -> float:
    hits = 0
    for seed in range(TRIALS):
        numerators, denominators = zip(*make(Random(seed * 31 + count), count), strict=True)
        hits += bootstrap.of_ratio(numerators, denominators, run=run).covers(truth)
    return hits / TRIALS


@pytest.mark.parametrize("count", [6, 10, 30])
@pytest.mark.parametrize(
    ("make", "truth", "least"), [(_steady, 10.0, 0.86), (_skewed, 1.0, 0.82), (_per_token, 2.0, 0.84)]
)
def test_intervals_of_few_blocks_cover_the_truth(
    make: Callable[[Random, int], Blocks], truth: float, least: float, count: int
) -> None:
    """90 % is asked for; an ordinary percentile bootstrap has 80 % at 6 blocks. Skewed blocks cost a few percent."""
    assert least <= _covered(make, truth, count) <= 0.97


def test_blocks_like_their_neighbours_are_drawn_in_runs() -> None:
    """One at a time they would be taken for independent, and the interval for far surer than it is."""
    assert _covered(_alike, 10.0, 30) < 0.75
    assert _covered(_alike, 10.0, 30, run=5) > 0.8


def test_the_sum_of_a_window() -> None:
    """As many blocks as there are: the middle is their sum, and ten times as much has ten times the width."""
    values = [3.0, 5.0, 4.0, 6.0, 2.0, 4.0, 5.0]
    found = bootstrap.of_sum(values)
    assert found.middle == pytest.approx(29.0)
    assert found.low < 26.5
    assert found.high > 31.5
    assert bootstrap.of_sum([10 * value for value in values]).low == pytest.approx(10 * found.low)


def test_the_same_each_time() -> None:
    """No clock and no global random state."""
    values = [1.0, 2.0, 4.0, 8.0, 16.0, 32.0]
    assert bootstrap.of_sum(values) == bootstrap.of_sum(values)
    assert bootstrap.of_statistic(values, max) == bootstrap.of_statistic(values, max)


def test_strata_are_drawn_apart() -> None:
    """Two arms: what differs between them is no uncertainty."""
    low, high = [1.0, 1.1, 0.9, 1.0, 1.05, 0.95], [100.0, 100.1, 99.9, 100.0, 100.0, 100.0]
    found = bootstrap.of_strata(
        [low, high], lambda arms: math.fsum(arms[1]) / len(arms[1]) - math.fsum(arms[0]) / len(arms[0])
    )
    assert found.middle == pytest.approx(99.0, abs=0.01)
    assert found.high - found.low < 0.3


@pytest.mark.parametrize("values", [[], [1.0]])
def test_too_few_blocks(values: list[float]) -> None:
    """One block has no interval."""
    with pytest.raises(ValueError, match="too few"):
        bootstrap.of_sum(values)


def test_a_ratio_without_denominator() -> None:
    """Joules per token of no tokens are no number."""
    with pytest.raises(ValueError, match="not a number"):
        bootstrap.of_ratio([1.0, 2.0], [0.0, 0.0])


@given(st.lists(st.floats(-1e9, 1e9), min_size=2, max_size=12), st.floats(0.5, 0.99), st.integers(1, 3))
def test_ends_are_in_order_and_within_the_blocks(values: list[float], level: float, run: int) -> None:
    """Whatever the blocks; more certainty is never narrower."""
    if len(values) // run < 2:
        return
    found, surer = bootstrap.of_sum(values, level, run), bootstrap.of_sum(values, 0.995, run)
    slack = 1e-6 * (1 + max(map(abs, values)) * len(values))
    assert found.low <= found.middle <= found.high
    assert surer.low <= found.low + slack
    assert surer.high >= found.high - slack
    assert min(values) * len(values) - slack <= found.low
    assert found.high <= max(values) * len(values) + slack


@pytest.mark.parametrize(
    ("share", "freedom", "quantile"),
    [(0.95, 1, 6.3138), (0.95, 2, 2.92), (0.975, 5, 2.5706), (0.95, 10, 1.8125), (0.975, 29, 2.0452), (0.5, 4, 0.0)],
)
def test_student(share: float, freedom: int, quantile: float) -> None:
    """As in the tables."""
    assert bootstrap.student_quantile(share, freedom) == pytest.approx(quantile, abs=1e-4)


def test_times() -> None:
    """Joules become savings of the other sign: the ends change places."""
    assert Interval(1.0, 2.0, 4.0).times(-2) == Interval(-8.0, -4.0, -2.0)
