"""Grams and money of counters that only grow: settled when the rates change, else one multiplication.

The impact of a counter is linear in its joules between two changes of the rates. So nothing is done per tick: at a
change, each counter remembers its joules and their impact, and what follows is worth the new rates.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import reduce
from typing import TypeVar

from ..impact.values import NO_IMPACT, Impact, Rates, Settled

Key = TypeVar("Key")


def settle(
    joules: Mapping[Key, float], settled: Mapping[Key, Settled], rates: Rates, *, keep_money: bool = True
) -> dict[Key, Settled]:
    """Every counter as of now, at the end of the time in which ``rates`` were in force.

    Without ``keep_money``, cost and credit start again at 0: what follows is in another currency.
    """
    nothing = Settled()
    found = {key: Settled(amount, *settled.get(key, nothing).impact(amount, rates)) for key, amount in joules.items()}
    return found if keep_money else {key: one.without_money() for key, one in found.items()}


def total(joules: Mapping[Key, float], settled: Mapping[Key, Settled], rates: Rates) -> Impact:
    """The impact of all counters together."""
    nothing = Settled()
    return add_up(settled.get(key, nothing).impact(amount, rates) for key, amount in joules.items())


def sum_of(settled: Iterable[Settled]) -> Settled:
    """Of counters together."""
    return reduce(Settled.plus, settled, Settled())


def add_up(impacts: Iterable[Impact]) -> Impact:
    """The sum of impacts."""
    return reduce(Impact.plus, impacts, NO_IMPACT)


def merge(one: Mapping[Key, Settled], others: Iterable[tuple[Key, Settled]]) -> dict[Key, Settled]:
    """Of counters to which others are added, several of which may have one key."""
    merged = dict(one)
    for key, settled in others:
        merged[key] = merged[key].plus(settled) if key in merged else settled
    return merged
