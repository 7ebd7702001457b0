"""What provides the factors of carbon and money: the sampler asks it in each tick."""

from __future__ import annotations

from typing import Protocol

from ..records import SourceHealth
from .values import Factors


class FactorProvider(Protocol):
    """Carbon intensity and price of each moment, from wherever they are known; no method waits."""

    def at(self, unix_seconds: float) -> Factors | None:
        """The factors in force, None if neither is known here."""

    def health(self) -> tuple[SourceHealth, ...]:
        """Health of the feeds that the factors are from; constants and tables have none."""

    def retry(self) -> None:
        """Ask the feeds that are down at once."""

    def close(self) -> None:
        """End the feeds' threads, without waiting for them."""


class NoFactors:
    """Neither carbon intensity nor price is known."""

    def at(self, unix_seconds: float) -> Factors | None:  # noqa: ARG002 - the signature of `FactorProvider`
        """None."""
        return None

    def health(self) -> tuple[SourceHealth, ...]:
        """There is no feed."""
        return ()

    def retry(self) -> None:
        """There is no feed."""

    def close(self) -> None:
        """There is no feed."""
