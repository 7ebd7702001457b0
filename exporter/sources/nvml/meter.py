"""The meter of one NVIDIA card: its energy counter, or its power where the counter is missing or broken.

Broken counters, module-wide meters and repeated values are faults 24, 25 and 27 of docs/faults.md.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Protocol

from ...records import Device, EnergyReading, PowerReading, Problem
from .cross_check import Agreement
from .driver import ENERGY_MILLIJOULES, POWER_INSTANT_MILLIWATTS, Fields
from .library import DriverError

FIELDS = (ENERGY_MILLIJOULES, POWER_INSTANT_MILLIWATTS)
"""The fields that `CardMeter.read` needs."""

_FROZEN_SECONDS = 10.0
_MIN_ACTIVE_WATTS = 5.0
"""A counter that does not advance for that long while the card draws that much is broken: no driver updates it so
rarely."""

_STALE_SECONDS = 10.0
"""A driver that repeats a value for that long is reported as stuck."""

_MAX_FAILURES = 3
"""Number of failed reads in a row after which a supported counter is no longer used."""

_COMPARE = "compare with nvidia-smi -q -d POWER or hl-smi under a steady load; another driver version may fix it"

_FAILING = Problem(
    "implausible", "the energy counter keeps failing: from now on the card's power is integrated instead", _COMPARE
)
_FROZEN = Problem(
    "implausible",
    "the energy counter does not advance while the card draws power: from now on the power is integrated instead",
    _COMPARE,
)
_DISAGREE = Problem(
    "implausible",
    "the energy counter and the power gauge are more than a factor of two apart (energy_device_agreement_ratio)",
    _COMPARE,
)
_MODULE_ONLY = Problem(
    "not_found",
    "the driver reports the energy of the whole module only: it counts as the platform's, and no process is charged",
    "another driver version may report the power of the GPU alone (field 186)",
)


class MeterDriver(Protocol):
    """What a meter calls where a field is missing; both raise `DriverError`."""

    def energy_joules(self, handle: Any) -> float:
        """The card's counter."""

    def power_watts(self, handle: Any) -> float:
        """The card's power."""


class CardMeter:
    """Turns fields into readings of one device.

    The power is integrated instead if the card has no counter (before Volta, many vGPUs), or if the counter does not
    advance or keeps failing. On a GH200 the counter covers the whole module including the CPU, which other meters
    measure too: there the power of the GPU alone is integrated. Where that is not reported, the device becomes a meter
    of the platform: its joules beyond CPU and DRAM are charged to no process, so the CPU's never count twice.
    ``data_problem`` is what makes the values of the last read doubtful.
    """

    def __init__(self, driver: MeterDriver, uuid: str, model: str, source: str = "nvml") -> None:
        self._driver = driver
        self._model = model
        self._counts = True
        self._is_module = "GH200" in model
        self._failures = 0
        self._counter: float | None = None
        self._moved_at = 0.0
        self._agreement = Agreement()
        self._timestamps = _Timestamps()
        self.data_problem: Problem | None = None
        self.device = Device(uuid, "gpu", source, "measured", model or "NVIDIA GPU", 1.0, max_watts=1500.0)

    def limit(self, watts: float) -> None:
        """Set the card's power limit: a reading far above it is implausible."""
        most = max(500.0, 2 * watts)
        if self.device.component == "gpu" and most != self.device.max_watts:
            self.device = replace(self.device, max_watts=most)

    def detach(self) -> None:
        """Forget when the counter last advanced and how the driver stamps values, because the card was away."""
        self._counter = None
        self._timestamps = _Timestamps()

    def read(self, handle: Any, fields: Fields, at: float) -> EnergyReading | PowerReading | None:
        """The reading as of boot time ``at``; None if the driver repeats its last value. Raises `DriverError`."""
        self.data_problem = _MODULE_ONLY if self.device.component == "platform" else None
        field = ENERGY_MILLIJOULES if self._counts and not self._is_module else POWER_INSTANT_MILLIWATTS
        stale = self._timestamps.repeated_for(fields, field, at)
        if stale:
            self._counter = None
            if stale >= _STALE_SECONDS:
                raise DriverError("failed", "timeout", "the driver repeats an old value", "check nvidia-smi and dmesg")
            return None
        if self._is_module:
            return self._of_gpu_alone(handle, fields, at)
        if self._counts:
            try:
                return self._energy(handle, fields, at)
            except DriverError as error:
                self._failures += error.kind != "unsupported"
                if error.kind in ("lost", "down") or (error.kind != "unsupported" and self._failures < _MAX_FAILURES):
                    raise
                self._counts = False
                if error.kind != "unsupported":
                    self.data_problem = _FAILING
        return self._power(self._watts(handle, fields), at)

    def counter_joules(self, handle: Any) -> float | None:
        """The counter alone, None where `read` does not use it. Raises `DriverError`."""
        if not self._counts or self._is_module or self.device.component != "gpu":
            return None
        return self._driver.energy_joules(handle)

    def _of_gpu_alone(self, handle: Any, fields: Fields, at: float) -> EnergyReading | PowerReading | None:
        milliwatts = fields.values.get(POWER_INSTANT_MILLIWATTS)
        if milliwatts is not None:
            return self._power(milliwatts / 1000, at)
        self._failures += 1
        if self.device.method == "power_integrated" or self._failures < _MAX_FAILURES:
            raise DriverError("failed", "driver", "the power of the GPU alone is unknown")
        self._is_module = False  # this driver measures the module only
        self.device = replace(self.device, component="platform", name=f"{self._model} (whole module)", max_watts=5000.0)
        return self.read(handle, fields, at)

    def _energy(self, handle: Any, fields: Fields, at: float) -> EnergyReading | PowerReading:
        """Raises `DriverError`."""
        millijoules = fields.values.get(ENERGY_MILLIJOULES)
        joules = self._driver.energy_joules(handle) if millijoules is None else millijoules / 1000
        self._failures = 0
        milliwatts = fields.values.get(POWER_INSTANT_MILLIWATTS)
        watts = None if milliwatts is None else milliwatts / 1000
        if joules != self._counter:
            self._counter, self._moved_at = joules, at
        elif at - self._moved_at >= _FROZEN_SECONDS:
            drawn = self._driver.power_watts(handle) if watts is None else watts
            if drawn >= _MIN_ACTIVE_WATTS:
                self._counts = False
                self.data_problem = _FROZEN
                return self._power(drawn, at)
        if watts is not None:
            self._agreement.feed(at, joules, watts, self.device.max_watts)
            if self._agreement.is_broken:
                self.data_problem = _DISAGREE
        return EnergyReading(self.device, at, joules, None, watts, self._agreement.ratio)

    def _watts(self, handle: Any, fields: Fields) -> float:
        milliwatts = fields.values.get(POWER_INSTANT_MILLIWATTS)
        return self._driver.power_watts(handle) if milliwatts is None else milliwatts / 1000

    def _power(self, watts: float, at: float) -> PowerReading:
        if self.device.method != "power_integrated":
            self.device = replace(self.device, method="power_integrated")
        return PowerReading(self.device, at, watts)


class _Timestamps:
    """How long a field has had the same value with the same timestamp.

    The driver stamps each value. The stamps count only after one was seen to advance, and not if a value changes
    without its stamp.
    """

    def __init__(self) -> None:
        self._field = 0
        self._time: int | None = None
        self._value: float | None = None
        self._at = 0.0
        self._works = False

    def repeated_for(self, fields: Fields, field: int, at: float) -> float:
        """Seconds since this value was first seen; 0 for a new value, or if its timestamp is not usable."""
        time, value = fields.times.get(field), fields.values.get(field)
        if time is None or field != self._field:
            self._field, self._time, self._value, self._works = field, time, value, False
            return 0.0
        if time != self._time:
            self._works = self._works or self._time is not None
            self._time, self._value, self._at = time, value, at
            return 0.0
        if value != self._value:
            self._value, self._works = value, False
        return at - self._at if self._works else 0.0
