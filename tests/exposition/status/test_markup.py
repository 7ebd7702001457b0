"""Formatting of numbers for display."""

from __future__ import annotations

import pytest

from exporter.exposition.status.markup import EnergyUnit, Head, Layer, column, meter, number, percent, spark, table


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
    ("joules", "shown"), [(12.0, "12.0 J"), (3600.0, "1.00 Wh"), (3.6e6, "1.00 kWh"), (9e9, "2,500 kWh")]
)
def test_energy(joules: float, shown: str) -> None:
    unit = EnergyUnit.of(joules)
    assert f"{unit.amount(joules)} {unit.symbol}" == shown


@pytest.mark.parametrize(
    ("values", "shown"),
    [
        ([1234.5, 12.0, 0.4], ["1,234", "12", "&lt; 1"]),
        ([790.31, 71.54, 0.04, 0.0, None], ["790.3", "71.5", "&lt; 0.1", "0", "–"]),
        ([4.2, 0.004], ["4.20", "&lt; 0.01"]),
        ([], []),
        ([None], ["–"]),
    ],
)
def test_numbers_of_a_column_have_equal_decimals(values: list[float | None], shown: list[str]) -> None:
    assert column(values) == shown


def test_a_column_of_energy_has_one_unit() -> None:
    assert EnergyUnit.of(7.2e6).column([7.2e6, 36e3, 12.0, None]) == ["2.00", "0.01", "&lt; 0.01", "–"]


@pytest.mark.parametrize(
    ("ratio", "shown"),
    [(None, "–"), (0.0, "0 %"), (0.0004, "&lt; 0.1 %"), (0.023, "2.3 %"), (0.5, "50 %"), (1.0, "100 %")],
)
def test_percent(ratio: float | None, shown: str) -> None:
    assert percent(ratio) == shown


def test_unknown_is_a_dash_and_not_a_zero() -> None:
    assert meter(None, "gpu") == percent(None) == "–"


def test_a_column_without_a_value_is_left_out() -> None:
    heads = (Head("Name"), Head("Known", "power"), Head("Never", "power"))
    html = table(heads, [("a", "1", "–"), ("b", "–", "–")])
    assert "Known" in html
    assert "Never" not in html
    assert html.count("<td") == 2
    assert '<td class="power none">–</td>' in html


def test_a_sparkline_needs_two_points_and_a_scale() -> None:
    assert (
        spark([Layer("cpu", [1.0])], 1.0, "") == spark([Layer("cpu", [0.0, 0.0])], 0.0, "") == spark([], 1.0, "") == ""
    )
    assert 'd="M-1 40L0 40 1 20 2 0 3 0V49H-1Z"' in spark([Layer("cpu", [0.0, 5.0, 10.0])], 10.0, "")


def test_a_layer_without_power_is_not_drawn() -> None:
    drawn = spark([Layer("active", [4.0, 4.0]), Layer("idle", [0.0, 0.0])], 8.0, "at most 4 W")
    assert "c-idle" not in drawn
    assert 'aria-label="at most 4 W"' in drawn


def test_a_long_history_becomes_means_and_keeps_its_last_value() -> None:
    """What is level needs no points between its ends."""
    values = [0.0] * 150 + [10.0] * 150
    assert 'd="M-1 40L14 40 15 0 30 0V49H-1Z"' in spark([Layer("cpu", values)], 10.0, "")
