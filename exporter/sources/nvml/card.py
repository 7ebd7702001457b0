"""One NVIDIA card: its meter, its state, its health and its throttling times."""

from __future__ import annotations

from typing import Any, NamedTuple

from ...host import Host
from ...records import EnergyReading, GpuState, PowerReading, Problem
from .driver import Driver, Fields
from .gpm import GpmWatch
from .health import CardHealth
from .library import DriverError
from .meter import FIELDS, CardMeter

_SLOW_SECONDS = 10.0
"""How often to read the power limit, which rarely changes."""

_GAUGE_SECONDS = 5.0
"""How often to read what is only shown as it is now: memory, temperature, clocks. Each is a call of the driver."""

_STEP_SECONDS = 0.1
"""The driver's counters advance in steps, so they may exceed the time between two reads by that much."""

_THROTTLE: dict[str, tuple[int, int | None]] = {
    "sw_power_cap": (0x04, 74),
    "hw_slowdown": (0x08, None),
    "sw_thermal_slowdown": (0x20, 269),
    "hw_thermal_slowdown": (0x40, 270),
    "hw_power_brake": (0x80, 271),
}
"""Reason → its bit in the mask of current reasons (nvmlClocksEventReasons), and the field that counts its nanoseconds:
the unit of nvmlViolationTime_t, which has the same counters, and of DCGM's names for them (…_SLOWDOWN_NS)."""

_FIELDS_STABLE_SINCE = (580, 82)
"""Driver from which fields 269–271 have this meaning. The headers of drivers 575.51 to 580.65 had these counters at
251–253 and power smoothing at 269–271 (nvidia-ml-py 12.575.51, 13.580.65 and 13.580.82; NVIDIA/k8s-test-infra #691)."""


class _Gauges(NamedTuple):
    """What is only shown as it is now; None is unknown."""

    memory_used_bytes: float | None
    memory_total_bytes: float | None
    temperature_celsius: float | None
    clock_hertz: tuple[tuple[str, float], ...]


class Card:
    """A card, identified by its UUID, because handles and indexes change.

    ``read_at`` is when its meter was last read (boot time), ``window_seconds`` the time between the last two reads;
    None and 0 after it was away. ``has_new_gauges`` says whether `state` read memory, temperature and clocks this time.
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
        self.read_at: float | None = None
        self.window_seconds = 0.0
        self._limit_watts: float | None = None
        self._slow_at = float("-inf")
        self.has_new_gauges = False
        self._gauges: _Gauges | None = None
        self._gauges_due_at = float("-inf")
        self._throttled: dict[str, float] = {}
        self._nanoseconds: dict[int, float] = {}
        self._gpm: GpmWatch | None = None
        self._health = CardHealth(driver)
        self._meter = CardMeter(driver, uuid, self.model)

    def attach(self, handle: Any, index: int, version: str) -> None:
        """Take the handle of a new session, or the new index after cards were added or removed."""
        self.handle, self.index, self.lost, self.version = handle, str(index), None, version

    def detach(self) -> None:
        """Free what belongs to a session with the driver; the next read starts a new window."""
        self.read_at = self._gauges = None
        if self._gpm is not None:
            self._gpm.close()
            self._gpm = None
        self._health.detach()
        self._meter.detach()

    def meter(self, now: float) -> EnergyReading | PowerReading | None:
        """Read its meter and its throttling counters; None if the driver has no newer value.

        The window is that between two readings, not between two ticks, because a driver may answer late.
        Raises `DriverError`.
        """
        if now - self._slow_at >= _SLOW_SECONDS:
            self._slow_at = now
            self._limit_watts = self._driver.limit_watts(self.handle)
            if self._limit_watts is not None:
                self._meter.limit(self._limit_watts)
        fields = self._driver.fields(self.handle, self._wanted())
        at = self._host.clock()
        self.window_seconds = 0.0 if self.read_at is None else at - self.read_at
        self.read_at = at
        self._note_throttling(fields, self.window_seconds)
        return self._meter.read(self.handle, fields, at)

    def counter_joules(self) -> float | None:
        """Its energy counter alone, None where its meter does not use it. Raises `DriverError`."""
        return self._meter.counter_joules(self.handle)

    @property
    def data_problem(self) -> Problem | None:
        """What makes the values of the last reading doubtful."""
        return self._meter.data_problem

    @property
    def permission_error(self) -> DriverError | None:
        """The error if GPM needs more privilege."""
        return None if self._gpm is None else self._gpm.permission_error

    def read_health(self, now: float) -> None:
        """Read its error counters when due. Raises `DriverError` only if the card or the driver is gone."""
        self._health.refresh(self.handle, now)

    def state(self, *, mig: bool) -> GpuState:
        """What it reports about itself. Raises `DriverError` only if the card or the driver is gone."""
        driver, handle = self._driver, self.handle
        if self._gpm is None and not mig and driver.has_gpm(handle):
            self._gpm = GpmWatch(driver, handle)
        sm = tensor = dram = None
        if self._gpm is not None and not mig:
            sm, tensor, dram = self._gpm.read()
        gauges = self._read_gauges()
        return GpuState(
            self.uuid,
            self.index,
            gpu_model=self.model,
            driver_version=self.version,
            pci_bus_id=self.bus_id,
            power_limit_watts=self._limit_watts,
            memory_used_bytes=gauges.memory_used_bytes,
            memory_total_bytes=gauges.memory_total_bytes,
            temperature_celsius=gauges.temperature_celsius,
            utilization_ratio=driver.utilization_ratio(handle),
            sm_active_ratio=sm,
            tensor_active_ratio=tensor,
            dram_active_ratio=dram,
            clock_hertz=gauges.clock_hertz,
            throttle_seconds=tuple(self._throttled.items()),
            ecc_errors=self._health.ecc_errors,
            memory_repair=self._health.memory_repair,
            xid_errors=self._health.xid_errors,
            last_xid=self._health.last_xid,
            window_seconds=self.window_seconds,
        )

    def _read_gauges(self) -> _Gauges:
        """Those of the last five seconds; cards take turns, so that a tick does not read all of them."""
        now = self._host.clock()
        self.has_new_gauges = self._gauges is None or now >= self._gauges_due_at
        if self._gauges is None or self.has_new_gauges:
            driver, handle = self._driver, self.handle
            turn = 0.0 if self._gauges is not None else int(self.index) % _GAUGE_SECONDS
            self._gauges_due_at = now + _GAUGE_SECONDS - turn
            self._gauges = _Gauges(
                *driver.memory_bytes(handle), driver.temperature_celsius(handle), driver.clock_hertz(handle)
            )
        return self._gauges

    # --- throttling ---------------------------------------------------------------------------------

    def _wanted(self) -> list[int]:
        stable = _numbers(self.version) >= _FIELDS_STABLE_SINCE
        times = [field for _, field in _THROTTLE.values() if field is not None and (stable or field == 74)]
        return [*FIELDS, *times]

    def _note_throttling(self, fields: Fields, window: float) -> None:
        """Add what the driver counted since the last read, or without a counter the time since then if it applies."""
        bits = self._driver.throttle_bits(self.handle)
        for reason, (bit, field) in _THROTTLE.items():
            counted = None if field is None else fields.values.get(field)
            if field is not None and counted is not None:
                passed = max(0.0, counted - self._nanoseconds.get(field, counted)) / 1e9
                seconds = min(window + _STEP_SECONDS, passed)
                self._nanoseconds[field] = counted
            elif bits is not None:
                seconds = window if bits & bit else 0.0
            else:
                continue
            self._throttled[reason] = self._throttled.get(reason, 0.0) + seconds


def _numbers(version: str) -> tuple[int, ...]:
    """``580.95.05`` → (580, 95, 5); a part that is not a number counts as 0."""
    return tuple(int(part) if part.isdigit() else 0 for part in version.split("."))
