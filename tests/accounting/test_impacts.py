"""Grams and money of counters, against the closed form of what was used when."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from exporter.accounting.attribution import Energy
from exporter.accounting.impacts import merge, settle, total
from exporter.impact.values import UNKNOWN_RATES, Factors, Impact, Rates, Settled
from exporter.records import Model, Workload
from tests.support.ledger_bench import GPU, PACKAGE, Bench, group, process, use

A, B = group("a"), group("b")
RATE = st.builds(Rates, st.floats(0, 1), st.floats(0, 1), st.floats(0, 1))
ROUNDING = 1e-6
"""Of a difference of counters of up to 8e6 J: less than what one of these holds below it."""

STEPS = st.lists(st.tuples(st.floats(0, 1e6), RATE), min_size=1, max_size=8)


@given(STEPS)
def test_what_is_used_is_worth_the_rates_in_force(steps: list[tuple[float, Rates]]) -> None:
    joules, settled = 0.0, {"x": Settled()}
    for used, rates in steps:
        joules += used
        settled = settle({"x": joules}, settled, rates)
    expected = [sum(used * (rates[at] or 0.0) for used, rates in steps) for at in range(3)]
    assert settled["x"][1:] == pytest.approx(expected, abs=ROUNDING)


@given(STEPS)
def test_it_never_falls(steps: list[tuple[float, Rates]]) -> None:
    joules, settled, seen = 0.0, {"x": Settled()}, [Impact()]
    for used, rates in steps:
        seen.append(total({"x": joules}, settled, rates))
        joules += used
        seen.append(total({"x": joules}, settled, rates))
        settled = settle({"x": joules}, settled, rates)
    assert all(a <= b for before, after in pairwise(seen) for a, b in zip(before, after, strict=True))


@given(STEPS, STEPS, RATE)
def test_counters_that_are_added_up_keep_their_sum(
    one: list[tuple[float, Rates]], other: list[tuple[float, Rates]], rates: Rates
) -> None:
    joules, settled = [0.0, 0.0], [{"x": Settled()}, {"x": Settled()}]
    for at, steps in enumerate((one, other)):
        for used, old in steps:
            joules[at] += used
            settled[at] = settle({"x": joules[at]}, settled[at], old)
    apart = [total({"x": joules[at]}, settled[at], rates) for at in range(2)]
    together = total({"x": sum(joules)}, merge(settled[0], settled[1].items()), rates)
    assert together == pytest.approx([a + b for a, b in zip(*apart, strict=True)], abs=ROUNDING)


def test_the_numbers_of_two_hours() -> None:
    """1.2133 kWh in each of two hours, at 100 and at 500 g/kWh; the intensity of the end would give 1213 g."""
    half = 1.2133 * 3.6e6
    first, second = (Factors(intensity=value).rates for value in (100.0, 500.0))
    settled = settle({"x": half}, {}, first)
    assert total({"x": 2 * half}, settled, second).grams == pytest.approx(1.2133 * 600)


def test_joules_from_before_the_rates_were_known_are_worth_nothing() -> None:
    settled = settle({"x": 1e9}, {}, UNKNOWN_RATES)
    assert total({"x": 1e9 + 10}, settled, Rates(2.0, None, None)) == Impact(20.0, 0.0, 0.0)


def test_a_ledger_settles_all_its_accounts() -> None:
    """Containers, models, what is unattributed and what is retired: their sum is the node's."""
    bench = Bench()
    cheap, dear = Rates(1.0, 1.0, 0.0), Rates(3.0, 10.0, 0.0)
    serve = process(3, "serve-llama")
    bench.tick(started=[A, B], energies=[Energy(PACKAGE, 0.0, 10.0)])
    bench.tick([use(A, 1.0, (serve, 1.0)), use(B, 1.0)], energies=[Energy(PACKAGE, 40.0, 10.0)])
    bench.ledger.settle(cheap)
    bench.tick([use(A, 1.0, (serve, 1.0))], energies=[Energy(PACKAGE, 30.0, 10.0)], ended=[B])
    rows = {row.owner.container: row for row in bench.ledger.containers() if isinstance(row.owner, Workload)}
    (model,) = bench.ledger.models()
    assert isinstance(model.owner, Model)
    assert rows["a"].impacts(dear) == model.impacts(dear) == {"active": Impact(20 + 90, 20 + 300, 0.0)}
    assert rows["b"].impacts(dear) == {"active": Impact(20.0, 20.0, 0.0)}
    assert bench.ledger.impact_of_unattributed(dear) == {"idle": Impact(20 + 30, 20 + 100, 0.0)}
    bench.tick(seconds=400.0, energies=[Energy(PACKAGE, 0.0, 0.0), Energy(GPU, 0.0, 0.0)])
    assert bench.ledger.impact_of_retired(dear) == Impact(20.0, 20.0, 0.0)


def test_a_new_counter_that_is_still_shown_as_0_has_no_impact() -> None:
    bench = Bench()
    bench.tick(started=[A], energies=[Energy(PACKAGE, 0.0, 10.0)])
    bench.tick([use(A, 1.0)], energies=[Energy(PACKAGE, 40.0, 10.0)])
    (row,) = bench.ledger.containers()
    hidden = row._replace(joules=(0.0,), settled={("cpu", "active"): Settled(40.0, 4.0)})
    assert hidden.impacts(Rates(1.0, 1.0, 1.0)) == {"active": Impact()}
