"""What the poller of a BMC expects of a way to read it."""

from __future__ import annotations

from typing import NamedTuple, Protocol

from ...records import EnergyReading, PowerReading, Problem


class Found(NamedTuple):
    """What was read: meters, and what is wrong with a part of them."""

    meters: tuple[EnergyReading | PowerReading, ...]
    problems: tuple[Problem, ...] = ()


class Reader(Protocol):
    """Reads a BMC in one way; used by one thread, except `interrupt`."""

    @property
    def name(self) -> str:
        """Its name in messages."""

    def read(self) -> Found:
        """Read once, however long it takes. Raises `Unavailable`."""

    def close(self) -> None:
        """End what a login began, and close what is open."""

    def interrupt(self) -> None:
        """End the current read; called from another thread."""
