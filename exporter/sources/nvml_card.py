"""One NVIDIA card: its energy meter, its state and how long its clocks were held down."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from ..host import Host
from ..records import Device, EnergyReading, GpuState, PowerReading, Unavailable
from .nvml_driver import ENERGY_MILLIJOULES, POWER_INSTANT_MILLIWATTS, Driver, DriverError
from .nvml_gpm import GpmWatch

_SLOW_SECONDS = 10.0
"""How often to read what hardly ever changes."""

_FROZEN_SECONDS = 10.0
_AWAKE_WATTS = 5.0
"""A counter that stands still that long on a card that draws that much is broken: no driver updates it so rarely."""

_REFUSALS = 3
"""After so many failed reads in a row a counter that the card was said to have is given up."""

_THROTTLE: dict[str, tuple[int, int | None]] = {
    "sw_power_cap": (0x04, 74),
    "hw_slowdown": (0x08, None),
    "sw_thermal_slowdown": (0x20, 269),
    "hw_thermal_slowdown": (0x40, 270),
    "hw_power_brake": (0x80, 271),
}
"""Reason → its bit among those in force (nvmlClocksEventReasons), and the field that counts its nanoseconds."""

_FIELDS_STABLE_SINCE = 580
"""Fields 269–271 had other numbers in the bindings of driver 570: before this version only 74 is what it seems."""


class Card:
    """A card by its UUID; handles and indexes come and go.

    Energy comes from the card's counter. A card without one (before Volta, many vGPUs), or whose counter
    stands still or keeps failing, has its power integrated instead (faults 24, 25). On a GH200 the counter
    covers the whole module, CPU included, which other meters measure too: there the power of the GPU alone
    is preferred.
    """

    def __init__(self, driver: Driver, host: Host, uuid: str, handle: Any, index: int, version: str) -> None:
        self._driver = driver
        self._host = host
        self.uuid = uuid
        self.handle = handle
        self.index = str(index)
        self.lost: DriverError | None = None
        self.model = driver.model(handle)
        self.bus_id = driver.bus_id(handle)
        self.version = version
        self._counts = True
        self._is_module = "GH200" in self.model
        self._refusals = 0
        self._counter = -1.0
        self._moved_at = 0.0
        self._limit_watts: float | None = None
        self._slow_at = float("-inf")
        self._throttled = dict.fromkeys(_THROTTLE, 0.0)
        self._nanoseconds: dict[int, float] = {}
        self._gpm: GpmWatch | None = None
        self.device = Device(uuid, "gpu", "nvml", "measured", self.model or "NVIDIA GPU", 1.0, max_watts=1500.0)

    def attach(self, handle: Any, index: int, version: str) -> None:
        """Take the handle of a new session, or the index after others came or went (fault 31)."""
        self.handle, self.index, self.lost, self.version = handle, str(index), None, version

    def detach(self) -> None:
        """Let go of what belongs to a session with the driver."""
        if self._gpm is not None:
            self._gpm.close()
            self._gpm = None

    def asleep(self) -> bool:
        """Whether the card is runtime-suspended: a call would wake it (Documentation/power/runtime_pm.rst)."""
        if not self.bus_id:
            return False
        try:
            status = self._host.text(self._host.sys("bus/pci/devices", self.bus_id, "power/runtime_status"))
        except Unavailable:
            return False
        return status.startswith("suspend")

    def meter(self, now: float, window: float) -> EnergyReading | PowerReading:
        """Read its meter and take note of what holds its clocks down. Raises `DriverError`."""
        if now - self._slow_at >= _SLOW_SECONDS:
            self._slow_at = now
            self._look_at_limit()
        if not window:
            self._counter = -1.0  # it may have slept: how long the counter stood still is not known
        fields = self._driver.fields(self.handle, self._wanted())
        at = self._host.clock()
        reading = self._reading(fields, at)
        self._note_throttling(fields, window)
        return reading

    def state(self, *, mig: bool) -> GpuState:
        """What it says of itself now. Raises `DriverError` only if the card or the driver is gone."""
        driver, handle = self._driver, self.handle
        if self._gpm is None and not mig and driver.has_gpm(handle):
            self._gpm = GpmWatch(driver, handle)
        sm = tensor = dram = None
        if self._gpm is not None and not mig:
            sm, tensor, dram = self._gpm.read()
        used, total = driver.memory_bytes(handle)
        return GpuState(
            self.uuid,
            self.index,
            gpu_model=self.model,
            driver_version=self.version,
            pci_bus_id=self.bus_id,
            power_limit_watts=self._limit_watts,
            memory_used_bytes=used,
            memory_total_bytes=total,
            temperature_celsius=driver.temperature_celsius(handle),
            utilization_ratio=driver.utilization_ratio(handle),
            sm_active_ratio=sm,
            tensor_active_ratio=tensor,
            dram_active_ratio=dram,
            clock_hertz=driver.clock_hertz(handle),
            throttle_seconds=tuple(self._throttled.items()),
        )

    # --- the meter ----------------------------------------------------------------------------------

    def _wanted(self) -> list[int]:
        major = self.version.partition(".")[0]
        stable = major.isdigit() and int(major) >= _FIELDS_STABLE_SINCE
        times = [field for _, field in _THROTTLE.values() if field is not None and (stable or field == 74)]
        return [ENERGY_MILLIJOULES, POWER_INSTANT_MILLIWATTS, *times]

    def _reading(self, fields: dict[int, float], at: float) -> EnergyReading | PowerReading:
        if self._is_module:
            milliwatts = fields.get(POWER_INSTANT_MILLIWATTS)
            if milliwatts is not None:
                return self._power(milliwatts / 1000, at)
            self._refusals += 1
            if self.device.method == "power_integrated" or self._refusals < _REFUSALS:
                raise DriverError("failed", "driver", f"GPU {self.index}: the power of the GPU alone is unknown")
            self._is_module = False  # this one measures the module only
            self.device = replace(self.device, name=f"{self.model} (whole module)")
        if self._counts:
            try:
                return self._energy(fields, at)
            except DriverError as error:
                self._refusals += error.kind != "unsupported"
                if error.kind in ("lost", "down") or (error.kind != "unsupported" and self._refusals < _REFUSALS):
                    raise
                self._counts = False
        return self._power(self._watts(fields), at)

    def _energy(self, fields: dict[int, float], at: float) -> EnergyReading:
        """Raises `DriverError`: ``unsupported`` also for a counter that stands still while the card draws power."""
        millijoules = fields.get(ENERGY_MILLIJOULES)
        joules = self._driver.energy_joules(self.handle) if millijoules is None else millijoules / 1000
        self._refusals = 0
        if joules != self._counter:
            self._counter, self._moved_at = joules, at
        elif at - self._moved_at >= _FROZEN_SECONDS and self._watts(fields) >= _AWAKE_WATTS:
            raise DriverError("unsupported", "driver", f"GPU {self.index}: the energy counter stands still")
        return EnergyReading(self.device, at, joules, None)

    def _watts(self, fields: dict[int, float]) -> float:
        milliwatts = fields.get(POWER_INSTANT_MILLIWATTS)
        return self._driver.power_watts(self.handle) if milliwatts is None else milliwatts / 1000

    def _power(self, watts: float, at: float) -> PowerReading:
        if self.device.method != "power_integrated":
            self.device = replace(self.device, method="power_integrated")
        return PowerReading(self.device, at, watts)

    def _look_at_limit(self) -> None:
        self._limit_watts = self._driver.limit_watts(self.handle)
        if self._limit_watts is not None:
            most = max(500.0, 2 * self._limit_watts)
            if most != self.device.max_watts:
                self.device = replace(self.device, max_watts=most)

    # --- throttling ---------------------------------------------------------------------------------

    def _note_throttling(self, fields: dict[int, float], window: float) -> None:
        """Add what the driver counted since the last read, or the time since then if the reason is in force."""
        bits = self._driver.throttle_bits(self.handle)
        for reason, (bit, field) in _THROTTLE.items():
            counted = None if field is None else fields.get(field)
            if field is not None and counted is not None:
                before = self._nanoseconds.get(field, counted)
                self._throttled[reason] += min(window, max(0.0, counted - before) / 1e9)
                self._nanoseconds[field] = counted
            elif bits & bit:
                self._throttled[reason] += window
