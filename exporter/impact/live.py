"""Factors of feeds and of another exporter, in place of constants, tables and tariffs as long as they are fresh."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Protocol

from ..records import SourceHealth
from .exchange import Taken
from .feeds.poller import Poller
from .feeds.protocol import FeedOptions, Series
from .feeds.slots import in_force, newest
from .values import Factors


class Live(Protocol):
    """Factors that change while the exporter runs."""

    @property
    def revision(self) -> int:
        """Grows with each answer."""

    def apply(self, factors: Factors, now: float) -> Factors:
        """The ``factors``, with what is live at a Unix time in place of what is not."""

    def start(self) -> None:
        """Start to ask, if that was not done yet."""

    def health(self) -> SourceHealth:
        """Health of what is asked."""

    def retry(self) -> None:
        """Ask at once if it is down."""

    def close(self) -> None:
        """Ask no more."""


class _Polled:
    """What all have in common: a poller."""

    def __init__(self, poller: Poller[Any]) -> None:
        self._poller = poller
        self.start, self.health, self.retry, self.close = poller.start, poller.health, poller.retry, poller.close

    @property
    def revision(self) -> int:
        """Grows with each answer."""
        return self._poller.revision


class LiveSeries(_Polled):
    """One quantity of a feed.

    A value holds for its time, and for ``max_age_seconds`` after it where there is no newer one: it is estimated then.
    After that the factors below it are in force again, with their own labels; the time of the last value stays.
    ``adder`` is added to each price.
    """

    def __init__(
        self, poller: Poller[Series], options: FeedOptions, max_age_seconds: float, adder: float = 0.0
    ) -> None:
        super().__init__(poller)
        self._quantity = options.quantity
        self._provider = options.name
        self._max_age_seconds = max_age_seconds
        self._adder = adder

    def apply(self, factors: Factors, now: float) -> Factors:
        """The factors with the value of the feed, if there is one."""
        series: Series | None = self._poller.latest
        if series is None:
            return factors
        held = in_force(series.slots, now, self._max_age_seconds)
        at = newest(series.slots, now) if held is None else held.slot.start
        if self._quantity == "price":
            if held is None:
                return replace(factors, price_at=at)
            return replace(factors, price=round(held.slot.value + self._adder, 9), price_at=at)
        if self._quantity == "marginal":
            return replace(factors, marginal=None if held is None else held.slot.value, marginal_at=at)
        if held is None:
            return replace(factors, intensity_at=at)
        return replace(
            factors,
            intensity=held.slot.value,
            zone=series.zone,
            provider=self._provider,
            source=series.source,
            basis="location",
            factor_type=series.factor_type,
            year="",
            estimated=held.slot.estimated or held.late,
            intensity_at=at,
        )


class LiveExporter(_Polled):
    """The factors of another exporter, for ``max_age_seconds`` after its last answer.

    What it does not know is that of this one. A PUE that is set here comes before that of the other, which is kept
    after the factors have aged: buildings do not change.
    """

    def __init__(self, poller: Poller[Taken], max_age_seconds: float) -> None:
        super().__init__(poller)
        self._max_age_seconds = max_age_seconds

    def apply(self, factors: Factors, now: float) -> Factors:
        """The factors with those of the other exporter."""
        taken: Taken | None = self._poller.latest
        if taken is None:
            return factors
        theirs = taken.factors
        own = replace(factors, pue=theirs.pue if factors.pue == 1.0 else factors.pue)
        fresh = now < taken.at + self._max_age_seconds
        if theirs.intensity is not None:
            own = replace(own, intensity_at=_time(theirs.intensity_at, taken.at))
            if fresh:
                own = replace(
                    own,
                    intensity=theirs.intensity,
                    zone=theirs.zone,
                    provider=theirs.provider,
                    source=theirs.source,
                    basis=theirs.basis,
                    factor_type=theirs.factor_type,
                    year=theirs.year,
                    estimated=theirs.estimated,
                )
        if theirs.price is not None:
            own = replace(own, price_at=_time(theirs.price_at, taken.at), credits=own.credits or theirs.credits)
            if fresh:
                own = replace(own, price=theirs.price, currency=theirs.currency)
        if theirs.marginal is not None:
            own = replace(own, marginal=theirs.marginal if fresh else None, marginal_at=theirs.marginal_at)
        return own


def _time(theirs: float | None, taken_at: float) -> float:
    """The time of a value; one that does not age, such as a constant, is as old as the answer."""
    return taken_at if theirs is None else min(theirs, taken_at)
