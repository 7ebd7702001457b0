"""Idle power is the foot of the lower envelope, and reported as assumed until it is learned."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from exporter.accounting.baseline import Baseline, Sample, lower_envelope


def test_close_loads_on_one_line_are_enough() -> None:
    """Points on a line make a first stretch too short to trust alone; the next one is taken with it."""
    baseline = Baseline()
    for load in (0.50, 0.54, 0.58, 0.62, 0.66):
        for _ in range(8):
            baseline.observe(load, 71 + 629 * load)
    assert baseline.idle.method == "learned"
    assert baseline.idle.watts == pytest.approx(71.0)


def test_unknown_before_the_first_sample() -> None:
    assert Baseline().idle == (None, "prior")


def test_configured_wins_and_is_not_unlearned() -> None:
    baseline = Baseline(42.0)
    baseline.observe(0.0, 50.0)
    configured = baseline.idle
    baseline.configure(None)
    assert (configured.watts, configured.method) == (42.0, "configured")
    assert baseline.idle.watts == 50.0


def test_what_a_model_assumes_is_not_learned_and_not_called_configured() -> None:
    baseline = Baseline(assumed=30.0)
    for _ in range(10):
        baseline.observe(0.0, 50.0)
    assert baseline.idle == (30.0, "prior")
    baseline.configure(42.0)
    assert baseline.idle == (42.0, "configured")
    baseline.configure(None)
    assert baseline.idle == (30.0, "prior")


def test_idle_node_is_learned_at_once() -> None:
    baseline = Baseline()
    for _ in range(5):
        baseline.observe(0.0, 50.0)
    assert baseline.idle == (50.0, "learned")


def test_busy_from_the_start_claims_no_idle() -> None:
    baseline = Baseline()
    for _ in range(50):
        baseline.observe(1.0, 150.0)
    assert baseline.idle == (0.0, "prior")


def test_never_idle_is_extrapolated_from_two_loads() -> None:
    baseline = Baseline()
    for _ in range(10):
        baseline.observe(0.4, 50 + 100 * 0.4)
        baseline.observe(0.8, 50 + 100 * 0.8)
    watts, method = baseline.idle
    assert method == "learned"
    assert watts == pytest.approx(50.0)


def test_heavier_work_at_the_same_load_does_not_raise_it() -> None:
    """Vector code draws more at the same utilisation: the envelope is the lighter mix."""
    baseline, rng = Baseline(), random.Random(7)
    for _ in range(2000):
        load = rng.random()
        baseline.observe(load, 50 + 100 * load * rng.choice((1.0, 1.6)) + rng.gauss(0, 0.2))
    watts, _ = baseline.idle
    assert watts == pytest.approx(50.0, abs=1.5)


def test_follows_a_drift() -> None:
    baseline = Baseline()
    for level in (50.0, 56.0):
        for _ in range(64):
            baseline.observe(0.001, level)
    assert baseline.idle.watts == pytest.approx(56.0, rel=0.01)


def test_survives_a_checkpoint() -> None:
    baseline, rng = Baseline(), random.Random(3)
    for _ in range(500):
        load = rng.random()
        baseline.observe(load, 40 + 60 * load)
    assert Baseline(samples=baseline.samples()).idle == baseline.idle


@given(st.floats(1.0, 400.0), st.floats(0.0, 1000.0), st.integers(0, 2**32))
def test_linear_machine_is_found_exactly(idle: float, span: float, seed: int) -> None:
    baseline, rng = Baseline(), random.Random(seed)
    for _ in range(300):
        load = rng.random() ** 2
        baseline.observe(load, idle + span * load)
    assert baseline.idle.watts == pytest.approx(idle, rel=1e-6, abs=1e-6)


@given(st.lists(st.tuples(st.floats(0, 1.5), st.floats(0, 1e4)), min_size=1, max_size=200))
def test_never_negative_nor_above_what_was_seen(samples: list[tuple[float, float]]) -> None:
    baseline = Baseline()
    for load, power in samples:
        baseline.observe(load, power)
    watts, _ = baseline.idle
    assert watts is not None
    assert 0 <= watts <= max(power for _, power in samples)


@given(st.lists(st.tuples(st.sampled_from((0.0, 0.005, 0.05, 0.35)), st.sampled_from((50.0, 51.0, 52.5, 60.0)))))
def test_what_is_forgotten_no_longer_counts(samples: list[tuple[float, float]]) -> None:
    """After any history the result equals that of a baseline with only the retained samples, including equal ones."""
    baseline = Baseline()
    for sample in samples * 4:
        baseline.observe(*sample)
    assert Baseline(samples=baseline.samples()).idle == baseline.idle


def test_lower_envelope() -> None:
    points = [Sample(0, 3), Sample(1, 1), Sample(2, 2), Sample(3, 0), Sample(4, 5)]
    assert lower_envelope(points) == [Sample(0, 3), Sample(1, 1), Sample(3, 0), Sample(4, 5)]
