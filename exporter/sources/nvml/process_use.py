"""Utilisation samples of one card's processes, by whichever of the driver's calls reports them."""

from __future__ import annotations

from typing import Any

from ...records import Problem
from .driver import PROCESS_USE_CALLS, Driver, UtilSample
from .library import DriverError

_SILENT_SECONDS = 10.0
"""A card that was busy for so long without a sample does not report them; a shorter time is that of one sample."""

_UPDATE = (
    "update the driver to 550 or newer, or give each card or MIG instance to one process; until then the card's active "
    "energy is unattributed where several processes hold it"
)


class ProcessUse:
    """Remembers which of `PROCESS_USE_CALLS` reports the samples of one card.

    ``reported``: 0 samples mean that no process used the card, not that the driver does not report use by process.
    """

    def __init__(self, driver: Driver) -> None:
        self._driver = driver
        self._calls = list(PROCESS_USE_CALLS)
        self._answered = True
        self._silent_seconds = 0.0
        self._refusal: DriverError | None = None

    def attach(self) -> None:
        """Try every call again, because the session with the driver is a new one."""
        self._calls = list(PROCESS_USE_CALLS)
        self._answered = True
        self._silent_seconds = 0.0
        self._refusal = None

    @property
    def reported(self) -> bool:
        """Whether the driver reports use by process."""
        return self._answered and self._silent_seconds < _SILENT_SECONDS

    def read(self, handle: Any, since: float, window: float, *, busy: bool) -> list[UtilSample]:
        """Samples newer than ``since`` (driver's clock), oldest first; ``busy``: the card itself reports use.

        ``window`` is the time in s since the last read. A call that reports nothing while the card is busy gives way to
        the other one as soon as that has a sample. Raises `DriverError` if the card or the driver is gone.
        """
        self._answered = False
        for call in list(self._calls):
            try:
                samples = self._driver.utilization(call, handle, since)
            except DriverError as error:
                if error.kind in ("lost", "down"):
                    raise
                self._refusal = error
                if error.kind == "unsupported":
                    self._calls.remove(call)
                continue
            self._answered = True
            if samples:
                self._silent_seconds = 0.0
                if call != self._calls[0]:
                    self._calls.remove(call)
                    self._calls.insert(0, call)
                return samples
            if not busy:
                return []
        if busy:
            self._silent_seconds += window
        return []

    def problem(self, holders: int) -> Problem | None:
        """Why the energy of ``holders`` processes cannot be divided by use; None if it can, or need not."""
        if holders < 2 or self.reported:
            return None
        fix = self._refusal.fix if self._refusal is not None and self._refusal.fix else _UPDATE
        reason = "not_found" if self._refusal is None else self._refusal.reason
        return Problem(reason, f"the driver does not report the use of the card by each of {holders} processes", fix)
