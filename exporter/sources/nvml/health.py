"""Errors of one NVIDIA card: ECC counts, pending memory repairs, and Xid events."""

from __future__ import annotations

from typing import Any

from .driver import Driver
from .library import DriverError

_ECC_SECONDS = 60.0
"""Errors are rare, and reading them from a card that has many may take long (NVIDIA/DCGM #313)."""

_XID_SECONDS = 10.0
_MAX_XIDS = 64

_ECC = {"corrected": 5, "uncorrected": 6}
"""Fields of the aggregate counts, which last as long as the card. The volatile ones restart with each load of the
driver, which without persistence mode is each run of a program, and are not reported in MIG mode."""

_REPAIR = {"pending": (31, 144), "failed": (145,)}
"""Fields for a page to be retired (before Ampere) or a row to be remapped at the next reset, and for a failed
remapping, after which the card has to be replaced."""


class CardHealth:
    """Error counters of a card, read rarely because they rarely change.

    ``ecc_errors`` and ``memory_repair`` are empty where the card has no ECC. ``xid_errors`` counts the events since
    the exporter started, None where the driver does not report them; it reports none of a lost card (Xid 79).
    """

    def __init__(self, driver: Driver) -> None:
        self._driver = driver
        self._ecc_at = self._xid_at = float("-inf")
        self._events: Any = None
        self._watches = True
        self.ecc_errors: tuple[tuple[str, float], ...] = ()
        self.memory_repair: tuple[tuple[str, float], ...] = ()
        self.xid_errors: float | None = None
        self.last_xid: float | None = None

    def refresh(self, handle: Any, now: float) -> None:
        """Read what is due. Raises `DriverError` only if the card or the driver is gone."""
        if now - self._xid_at >= _XID_SECONDS:
            self._xid_at = now
            self._read_xids(handle)
        if now - self._ecc_at >= _ECC_SECONDS:
            self._ecc_at = now
            self._read_memory_errors(handle)

    def detach(self) -> None:
        """Free what belongs to a session with the driver."""
        if self._events is not None:
            self._driver.events_free(self._events)
        self._events, self._watches = None, True
        self._xid_at = float("-inf")

    def _read_memory_errors(self, handle: Any) -> None:
        fields = [*_ECC.values(), *(field for group in _REPAIR.values() for field in group)]
        known = self._driver.fields(handle, fields).values
        self.ecc_errors = tuple((error, known[field]) for error, field in _ECC.items() if field in known)
        self.memory_repair = tuple(
            (state, float(any(known.get(field) for field in group)))
            for state, group in _REPAIR.items()
            if any(field in known for field in group)
        )

    def _read_xids(self, handle: Any) -> None:
        if self._events is None and self._watches:
            try:
                self._events = self._driver.events(handle)
            except DriverError as error:
                if error.kind in ("lost", "down"):
                    raise
                self._watches = False
        if self._events is None:
            return
        self.xid_errors = self.xid_errors or 0.0
        for _ in range(_MAX_XIDS):  # a flood of events must not block the read
            xid = self._driver.next_xid(self._events)
            if xid is None:
                break
            self.xid_errors += 1.0
            self.last_xid = float(xid)
