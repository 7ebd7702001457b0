"""Grams and money for a joule of what runs on several nodes."""

from __future__ import annotations

import pytest

from exporter.analysis.fleet_factors import Factor, Factors
from exporter.analysis.growth import Labels

NODES: dict[Labels, Factor] = {
    ("", "a"): Factor.of(10.0, 4.0, {"EUR": 2.0}),
    ("", "b"): Factor.of(10.0, 6.0, {"EUR": 4.0, "USD": 1.0}),
    ("", "c"): Factor.of(10.0, None, {}),
    ("", "d"): Factor.of(0.0, 0.0, {"EUR": 0.0}),
}
FACTORS = Factors({}, {}, NODES)


def test_of_one_node() -> None:
    assert FACTORS.on([("", "a"), ("", "a")]) == Factor(0.4, {"EUR": 0.2})


def test_of_several_the_mean_of_what_all_have() -> None:
    found = FACTORS.on([("", "a"), ("", "b")])
    assert found.grams == pytest.approx(0.5)
    assert found.money == pytest.approx({"EUR": 0.3})


@pytest.mark.parametrize("other", ["c", "d", "not there"])
def test_nothing_is_made_up_where_one_has_none(other: str) -> None:
    assert FACTORS.on([("", "a"), ("", other)]) == Factor(None, {})


def test_of_no_node() -> None:
    assert FACTORS.on([]) == Factor(None, {})
