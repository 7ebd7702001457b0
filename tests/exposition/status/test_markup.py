"""Formatting of numbers for display."""

from __future__ import annotations

import pytest

from exporter.exposition.status.markup import energy, meter, number, percent, spark, watts


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (0.0, "0.00"),
        (0.084, "0.08"),
        (9.994, "9.99"),
        (9.996, "10.0"),
        (99.94, "99.9"),
        (99.96, "100"),
        (12345.6, "12,346"),
    ],
)
def test_number(value: float, shown: str) -> None:
    assert number(value) == shown


@pytest.mark.parametrize(
    ("joules", "shown"),
    [(12.0, ("12.0", "J")), (3600.0, ("1.00", "Wh")), (3.6e6, ("1.00", "kWh")), (9e9, ("2,500", "kWh"))],
)
def test_energy(joules: float, shown: tuple[str, str]) -> None:
    assert energy(joules) == shown


@pytest.mark.parametrize(
    ("ratio", "shown"),
    [(None, "–"), (0.0, "0 %"), (0.0004, "< 0.1 %"), (0.023, "2.3 %"), (0.5, "50 %"), (1.0, "100 %")],
)
def test_percent(ratio: float | None, shown: str) -> None:
    assert percent(ratio) == shown


def test_unknown_is_a_dash_and_not_a_zero() -> None:
    assert watts(None) == meter(None, "gpu") == "–"


def test_a_sparkline_needs_two_points_and_some_power() -> None:
    assert spark([1.0], "cpu") == spark([0.0, 0.0], "cpu") == ""
    assert 'd="M0.0,30.0 60.0,16.0 120.0,2.0"' in spark([0.0, 5.0, 10.0], "cpu")
