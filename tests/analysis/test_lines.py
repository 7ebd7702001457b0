"""Arithmetic of a report: whatever is spread or put together, nothing is lost."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from exporter.analysis.formats import quantity
from exporter.analysis.lines import Amounts, Line, Report, Spread, add_up, spread, top
from exporter.analysis.window import Window

AMOUNT = st.floats(0, 1e12)
CELLS = st.dictionaries(
    st.tuples(st.sampled_from(["cpu", "gpu", "dram"]), st.sampled_from(["active", "idle"])), AMOUNT, max_size=4
)
AMOUNTS = st.builds(
    Amounts,
    joules=CELLS,
    grams=st.none() | AMOUNT,
    cost=st.dictionaries(st.sampled_from(["EUR", "USD"]), st.floats(-1e6, 1e6)),
    tokens=st.none() | AMOUNT,
)


@st.composite
def reports(draw: st.DrawFn) -> Report:
    """A report of a few lines, whose total is their sum."""
    lines = [Line((f"model-{number}",), amounts) for number, amounts in enumerate(draw(st.lists(AMOUNTS, max_size=6)))]
    shared = [(f"reason {number}", amounts) for number, amounts in enumerate(draw(st.lists(AMOUNTS, max_size=3)))]
    total = add_up([*(line.used for line in lines), *(amounts for _, amounts in shared)])
    return Report(Window(0.0, 60.0), ("model_name",), lines, shared, total, 60.0, 0.0)


@given(report=reports(), rule=st.sampled_from(["even", "proportional"]), count=st.integers(0, 4))
def test_lines_bear_all_that_is_shared(report: Report, rule: Spread, count: int) -> None:
    """Their own and their share are the total, in every unit, however many lines are shown."""
    if not report.lines:
        return
    shown = top(spread(report, rule), count)
    borne = add_up(line.used.plus(line.share) for line in shown.lines)
    assert borne.total_joules == pytest.approx(report.total.total_joules, rel=1e-9, abs=1e-6)
    assert (borne.grams is None) == (report.total.grams is None)
    assert (borne.grams or 0.0) == pytest.approx(report.total.grams or 0.0, rel=1e-9, abs=1e-6)
    for currency, amount in report.total.cost.items():
        assert borne.cost[currency] == pytest.approx(amount, rel=1e-9, abs=1e-3)


def test_unknown_grams_are_not_zero() -> None:
    """A sum knows what one of its parts knows; nothing known stays unknown."""
    assert Amounts().plus(Amounts()).grams is None
    assert Amounts().plus(Amounts(grams=2.0), 0.5).grams == 1.0
    assert Amounts(grams=2.0).plus(Amounts()).grams == 2.0


def test_tokens_without_any_make_no_quotient() -> None:
    """Joules per token of a model that generated none are absent."""
    assert Amounts({("gpu", "active"): 5.0}, tokens=0.0).joules_per_token is None
    assert Amounts({("gpu", "active"): 5.0}).joules_per_token is None
    assert Amounts({("gpu", "active"): 5.0, ("cpu", "idle"): 1.0}, tokens=2.0).joules_per_token == 3.0


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        *[(None, ""), (0.0, "0.000"), (0.0001, "<0.001"), (0.0616, "0.062"), (0.99951, "1.00"), (9.994, "9.99")],
        *[(9.996, "10.0"), (99.94, "99.9"), (99.96, "100"), (12345.6, "12,346"), (-21.44, "-21.4")],
    ],
)
def test_three_digits(value: float | None, shown: str) -> None:
    """Rounded once, to at most three significant digits below a thousand."""
    assert quantity(value) == shown
