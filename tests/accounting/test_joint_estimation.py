"""Prices of users that run together are told apart where their loads allow, and are equal where they do not."""

from __future__ import annotations

import math
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.learned import Machine, judge
from exporter.accounting.joint_estimation import PARTICIPANTS, WEIGHT_RANGE, JointEstimator

UNLIKE = (10.0, 15.0, 20.0, 30.0)


def learn(machine: Machine, seconds: int = 600, into: JointEstimator[int] | None = None) -> JointEstimator[int]:
    estimator = JointEstimator[int]() if into is None else into
    for tick in machine.ticks(seconds):
        estimator.observe(tick.busy, tick.joules, 1.0, tick.other_seconds)
    return estimator


@pytest.mark.parametrize("seed", range(3))
def test_unlike_workloads_are_told_apart_in_ten_minutes(seed: int) -> None:
    errors = judge(Machine(UNLIKE, seed, noise=0.02))
    assert errors.learned < 0.05
    assert errors.equal > 0.2
    assert errors.identifiable == 1.0


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("containers", [2, 6, 20])
def test_equal_workloads_stay_equal(seed: int, containers: int) -> None:
    assert judge(Machine([20.0] * containers, seed, noise=0.02)).learned < 0.025


def test_prices_are_joules_per_busy_second() -> None:
    estimator = learn(Machine(UNLIKE))
    assert [estimator.prices[number] for number in range(4)] == pytest.approx(UNLIKE, rel=0.02)


@pytest.mark.parametrize("noise", [0.0, 0.01, 0.1])
def test_proportional_loads_cannot_be_told_apart_and_cost_the_same(noise: float) -> None:
    estimator = JointEstimator[str]()
    dice = Random(1)
    for _ in range(900):
        load = dice.uniform(0.1, 1.0)
        estimator.observe({"a": load, "b": 3 * load, "c": 0.2 * load}, 70 * load * dice.gauss(1.0, noise), 1.0)
    assert not estimator.weights
    assert not estimator.prices
    assert "a" not in estimator.prices


def test_constant_loads_cannot_be_told_apart() -> None:
    estimator = JointEstimator[str]()
    for _ in range(900):
        estimator.observe({"a": 1.0, "b": 3.0}, 100.0, 1.0)
    assert not estimator.weights


def test_two_that_only_run_together_share_equally_what_both_cost() -> None:
    """A sidecar in a fixed proportion: of the two nobody knows more than their sum, of the third everything."""
    estimator = JointEstimator[str]()
    dice = Random(1)
    for _ in range(900):
        load, alone = dice.uniform(0.1, 1.0), dice.uniform(0.5, 4.0)
        joules = (2 * load * 40 + load * 10 + alone * 10) * dice.gauss(1.0, 0.002)
        estimator.observe({"main": 2 * load, "sidecar": load, "third": alone}, joules, 1.0)
    weights = estimator.weights
    assert weights["main"] == pytest.approx(weights["sidecar"], rel=0.01)
    assert weights["main"] / weights["third"] == pytest.approx(3.0, rel=0.05)
    assert "third" in estimator.prices
    assert "sidecar" not in estimator.prices


def test_one_alone_has_nobody_to_be_told_from() -> None:
    estimator = learn(Machine([25.0]))
    assert not estimator.weights
    assert 0 not in estimator.prices


def test_nothing_is_said_before_enough_was_seen() -> None:
    assert not learn(Machine(UNLIKE, noise=0.0), 20).weights


def test_a_wrong_idle_power_is_nobodys_price() -> None:
    for offset_watts in (-30.0, 30.0):
        assert judge(Machine(UNLIKE, offset_watts=offset_watts)).learned < 0.02


def test_a_change_is_followed() -> None:
    estimator = learn(Machine([10.0, 30.0, 20.0]))
    learn(Machine([30.0, 10.0, 20.0], seed=1), 3000, into=estimator)
    assert [estimator.prices[number] for number in range(3)] == pytest.approx([30.0, 10.0, 20.0], rel=0.1)


def test_newcomers_are_not_taken_for_glitches() -> None:
    """Nearly without noise, everything that others do is far from what was expected so far."""
    estimator = learn(Machine([25.0, 50.0, 75.0], noise=0.0002))
    for generation in range(1, 5):
        for tick in Machine([25.0, 50.0, 75.0], seed=generation, noise=0.0002).ticks(120):
            busy = {10 * generation + number: used for number, used in tick.busy.items()}
            estimator.observe(busy, tick.joules, 1.0, tick.other_seconds)
        prices = [estimator.prices[10 * generation + number] for number in range(3)]
        assert prices == pytest.approx([25.0, 50.0, 75.0], rel=0.05)


def test_one_that_never_runs_has_no_price() -> None:
    estimator = JointEstimator[int]()
    for tick in Machine(UNLIKE).ticks(600):
        estimator.observe({**tick.busy, 9: 0.0}, tick.joules, 1.0, tick.other_seconds)
    assert 0 in estimator.prices
    assert 9 not in estimator.prices
    assert 9 not in estimator.weights


def test_what_is_no_observation_changes_nothing() -> None:
    estimator = learn(Machine(UNLIKE))
    before = dict(estimator.weights)
    for joules in (0.0, -5.0, math.nan, math.inf):
        for _ in range(100):
            estimator.observe({0: 1.0}, joules, 1.0)
    for _ in range(100):
        estimator.observe({0: 1.0}, 1e4, 3600.0)
        estimator.observe({0: 1.0}, 1e4, 0.0)
        estimator.observe({}, 1e4, 1.0)
        estimator.observe({0: math.nan, 1: -1.0}, 1e4, 1.0, math.nan)
    assert estimator.weights == before


def test_pauses_between_the_observations_of_many_do_not_spoil_them() -> None:
    """Those of many keys are merged; an empty one, a failed one and a long pause in between add nothing."""
    watts = [10.0 + number for number in range(20)]
    estimator = JointEstimator[int]()
    for tick in Machine(watts, noise=0.002).ticks(1200):
        estimator.observe(tick.busy, tick.joules, 1.0, tick.other_seconds)
        estimator.observe({}, 500.0, 1.0)
        estimator.observe(tick.busy, -1.0, 1.0)
        estimator.observe(tick.busy, 1e5, 60.0)
    assert [estimator.prices[number] for number in range(20)] == pytest.approx(watts, rel=0.05)


def test_a_glitch_of_the_meter_is_not_a_price() -> None:
    estimator = JointEstimator[int]()
    for second, tick in enumerate(Machine(UNLIKE).ticks(600)):
        joules = 50 * tick.joules if second in (200, 400, 590) else tick.joules
        estimator.observe(tick.busy, joules, 1.0, tick.other_seconds)
    assert [estimator.prices[number] for number in range(4)] == pytest.approx(UNLIKE, rel=0.05)


def test_users_that_come_and_go_leave_the_others_prices() -> None:
    """Of hundreds of short-lived users of other prices, none is left, and those that stay are known."""
    estimator = JointEstimator[int]()
    dice = Random(2)
    for second, tick in enumerate(Machine(UNLIKE).ticks(1500)):
        jobs = {100 + second // 3: dice.uniform(0.1, 2.0), 1000 + second // 7: dice.uniform(0.1, 2.0)}
        joules = tick.joules + sum([busy * (5 + 7 * (job % 6)) for job, busy in jobs.items()])
        estimator.observe({**tick.busy, **jobs}, joules, 1.0, tick.other_seconds)
    assert [estimator.prices[number] for number in range(4)] == pytest.approx(UNLIKE, rel=0.05)
    assert len(estimator.weights) <= PARTICIPANTS


def test_of_more_than_can_take_part_the_busiest_do() -> None:
    estimator = JointEstimator[int](8)
    dice = Random(3)
    for _ in range(900):
        busy = {number: dice.uniform(0.0, 0.02) for number in range(40)}
        busy |= {number: dice.uniform(0.0, 4.0) for number in range(40, 44)}
        joules = sum([used * (30 if number % 2 else 10) for number, used in busy.items()]) * dice.gauss(1.0, 0.005)
        estimator.observe(busy, joules, 1.0)
    assert {number for number in range(44) if number in estimator.prices} >= {40, 41, 42, 43}
    assert len(estimator.weights) <= 8
    assert estimator.prices[41] == pytest.approx(30.0, rel=0.05)


amounts = st.one_of(st.floats(0.0, 100.0), st.sampled_from((0.0, 1e-12, 1e12, math.nan, math.inf, -1.0)))


@settings(deadline=None)
@given(
    st.lists(
        st.tuples(st.dictionaries(st.integers(0, 9), amounts, max_size=5), amounts, amounts, amounts),
        min_size=40,
        max_size=80,
    )
)
def test_weights_are_within_bounds_whatever_is_observed(
    observations: list[tuple[dict[int, float], float, float, float]],
) -> None:
    estimator = JointEstimator[int](4)
    for busy, joules, seconds, other in observations:
        estimator.observe(busy, joules, seconds, other)
        assert all(WEIGHT_RANGE[0] <= weight <= WEIGHT_RANGE[1] for weight in estimator.weights.values())
        assert all(0.0 < price < math.inf for price in estimator.prices.values())
        assert len(estimator.weights) <= 4
