"""Factors of carbon and money, and what joules are worth at them: values only."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

JOULES_PER_KWH = 3.6e6

MOST_GRAMS_PER_KWH = 5000.0
"""No grid is near it: the dirtiest have 1,500 g/kWh."""


class Rates(NamedTuple):
    """What a joule of this machine emits and costs, PUE included; None is unknown.

    ``grams`` of CO2e, ``cost`` and ``credit`` in units of the currency; at a negative price the cost is 0 and the
    credit positive, so that counters of both only grow.
    """

    grams: float | None = None
    cost: float | None = None
    credit: float | None = None


UNKNOWN_RATES = Rates()


@dataclass(frozen=True, slots=True)
class Factors:
    """Carbon intensity, electricity price and PUE in force, and where they are from; None or "" is unknown.

    ``intensity`` is in grams of CO2e per kWh and ``price`` in ``currency`` per kWh, both without PUE. ``basis`` and
    ``factor_type`` are how the intensity is accounted for: ``location`` or ``market``, ``lifecycle`` or ``direct``;
    ``year`` is that of its data. ``credits`` is whether prices may be negative. ``marginal`` is the carbon intensity
    of a little more or less use, in grams per kWh: it is shown, and never counted. The ``…_at`` are the Unix times of
    the newest live values, whether or not they are still in force; None for what does not age: constants, tables and
    tariffs.
    """

    intensity: float | None = None
    price: float | None = None
    pue: float = 1.0
    currency: str = ""
    zone: str = ""
    provider: str = ""
    source: str = ""
    basis: str = ""
    factor_type: str = ""
    year: str = ""
    estimated: bool = False
    credits: bool = False
    intensity_at: float | None = None
    price_at: float | None = None
    marginal: float | None = None
    marginal_at: float | None = None

    @property
    def rates(self) -> Rates:
        """What a joule emits and costs."""
        per_joule = self.pue / JOULES_PER_KWH
        grams = None if self.intensity is None else self.intensity * per_joule
        if self.price is None:
            return Rates(grams)
        return Rates(grams, max(0.0, self.price) * per_joule, max(0.0, -self.price) * per_joule)


class Embodied(NamedTuple):
    """Grams of CO2e from the manufacture of a GPU for each hour of its life: a range, and where it is from."""

    low: float
    high: float
    source: str = ""


class InForce(NamedTuple):
    """Rates since the last settlement, and the currency of all money that was counted so far, "" if none was."""

    rates: Rates = UNKNOWN_RATES
    currency: str = ""

    def followed_by(self, factors: Factors | None) -> InForce:
        """What is in force with other factors; without a price the currency stays."""
        if factors is None:
            return InForce(UNKNOWN_RATES, self.currency)
        return InForce(factors.rates, self.currency if factors.price is None else factors.currency)


NOTHING_IN_FORCE = InForce()


class Impact(NamedTuple):
    """Grams of CO2e, cost and credit of some joules; 0 where a rate was unknown."""

    grams: float = 0.0
    cost: float = 0.0
    credit: float = 0.0

    def plus(self, other: Impact) -> Impact:
        """Of both together."""
        return Impact(self.grams + other.grams, self.cost + other.cost, self.credit + other.credit)

    def times(self, factor: float) -> Impact:
        """Of so many times the joules."""
        return Impact(self.grams * factor, self.cost * factor, self.credit * factor)


NO_IMPACT = Impact()


class Settled(NamedTuple):
    """A counter of joules at the last change of the rates, and the impact of those joules."""

    joules: float = 0.0
    grams: float = 0.0
    cost: float = 0.0
    credit: float = 0.0

    def impact(self, joules: float, rates: Rates) -> Impact:
        """The impact of the counter at ``joules``: what came since the last change at the rates in force."""
        new = max(0.0, joules - self.joules)
        grams, cost, credit = rates
        return Impact(
            self.grams + new * (grams or 0.0), self.cost + new * (cost or 0.0), self.credit + new * (credit or 0.0)
        )

    def without_money(self) -> Settled:
        """The same, with cost and credit at 0."""
        return Settled(self.joules, self.grams)

    def plus(self, other: Settled) -> Settled:
        """Of the sum of two counters."""
        return Settled(*map(sum, zip(self, other, strict=True)))
