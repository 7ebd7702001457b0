"""Readings of devices that have a new value more rarely than once a tick: the last one holds until one is overdue."""

from __future__ import annotations

from collections.abc import Mapping

from ..records import EnergyReading, PowerReading

_OVERDUE_PERIODS = 3.5


class HeldReadings:
    """Devices with ``period_seconds`` that are up. ``watts`` is the mean power between their last two readings."""

    def __init__(self) -> None:
        self._left: dict[str, float] = {}  # seconds until a value is overdue
        self.watts: dict[str, float] = {}

    def update(
        self, plausible: Mapping[str, EnergyReading | PowerReading], watts: Mapping[str, float], seconds: float
    ) -> None:
        """Add the readings of a tick of ``seconds``."""
        if self._left:
            self._left = {key: left - seconds for key, left in self._left.items() if left > seconds}
        for key, reading in plausible.items():
            if reading.device.period_seconds:
                self._left[key] = _OVERDUE_PERIODS * reading.device.period_seconds
                if key in watts:
                    self.watts[key] = watts[key]
        if self.watts:
            self.watts = {key: value for key, value in self.watts.items() if key in self._left}

    def __contains__(self, device: str) -> bool:
        return device in self._left

    @property
    def devices(self) -> frozenset[str]:
        """Ids of those that are up."""
        return frozenset(self._left)
