"""Units in which others publish carbon intensity and prices, as factors to grams per kWh and to money per kWh."""

from __future__ import annotations

from collections.abc import Mapping

INTENSITY: Mapping[str, float] = {
    "g/kWh": 1.0,
    "kg/MWh": 1.0,
    "lbs/MWh": 0.45359237,
    "kg/kWh": 1e3,
    "t/MWh": 1e3,
    "t/kWh": 1e6,
}
"""Unit → grams per kWh in one of it. A pound is exactly 453.59237 g."""

PRICE: Mapping[str, float] = {"kWh": 1.0, "MWh": 1e-3}
"""The amount of energy that a price is for → its share of a kWh's price."""


def grams_per_kwh(value: float, unit: str) -> float:
    """A carbon intensity in a unit of `INTENSITY`, in grams per kWh."""
    return value * INTENSITY[unit]


def price_per_kwh(value: float, unit: str) -> float:
    """A price for a unit of `PRICE`, for a kWh."""
    return value * PRICE[unit]
