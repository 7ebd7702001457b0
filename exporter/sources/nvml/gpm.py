"""Activity of the units of a card or MIG instance between two reads (NVML GPM, Hopper and newer)."""

from __future__ import annotations

from typing import Any

from .driver import Activity, Driver
from .library import DriverError

UNKNOWN = Activity(None, None, None)


class GpmWatch:
    """Keeps two samples of one card or GPU instance and compares them; ratios are means since the last read.

    ``permission_error`` is the error of the last read if it needs more privilege.
    """

    def __init__(self, driver: Driver, handle: Any, instance: int | None = None) -> None:
        self._driver = driver
        self._handle = handle
        self._instance = instance
        self._samples: list[Any] = []
        self._filled = False
        self._works = True
        self.permission_error: DriverError | None = None

    def read(self) -> Activity:
        """Activity since the last read; `UNKNOWN` on the first one and where the driver does not report it."""
        if not self._works:
            return UNKNOWN
        try:
            activity, self.permission_error = self._read(), None
        except DriverError as error:
            if error.kind in ("lost", "down"):
                raise
            self._works = error.kind != "unsupported"
            self._filled = False
            self.permission_error = error if error.reason == "permission" else None
            return UNKNOWN
        return activity

    def close(self) -> None:
        """Free the samples."""
        for sample in self._samples:
            self._driver.gpm_free(sample)
        self._samples = []
        self._filled = False

    def _read(self) -> Activity:
        while len(self._samples) < 2:
            self._samples.append(self._driver.gpm_sample())
        older, newer = self._samples
        self._driver.gpm_take(self._handle, self._instance, newer)
        self._samples = [newer, older]
        if not self._filled:
            self._filled = True
            return UNKNOWN
        return self._driver.gpm_activity(older, newer)
