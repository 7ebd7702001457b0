"""Queries of NVIDIA's driver, with results in SI units."""

from __future__ import annotations

from collections.abc import Sequence
from struct import Struct
from typing import Any, NamedTuple

from ...host import MAX_COUNTER
from .library import DriverError, Library

ENERGY_MILLIJOULES = 83
POWER_INSTANT_MILLIWATTS = 186
"""Fields of nvmlDeviceGetFieldValues; with scope 0, the default, they cover the GPU alone where a card has a choice."""

_FIELD = Struct("@IIqqii8s")
"""nvmlFieldValue_t: field, scope, timestamp, latency, nvmlValueType_t, nvmlReturn_t and nvmlValue_t."""

_VALUES = tuple(map(Struct, ("@d", "@I", "@L", "@Q", "@q", "@i", "@H")))
"""Members of nvmlValue_t, by nvmlValueType_t."""

PROCESS_USE_CALLS = ("nvmlDeviceGetProcessUtilization", "nvmlDeviceGetProcessesUtilizationInfo")
"""Calls for utilisation samples: the older one, and the one since driver 550, the only one that reports on some
Blackwell cards (Project-HAMi/HAMi#2015)."""

_SM, _MEMORY = 1, 2
"""nvmlClockType_t."""

_MPS_CLIENTS = "MPSCompute"
_PROCESS_LISTS = ("Compute", "Graphics", _MPS_CLIENTS)
"""nvmlDeviceGet…RunningProcesses: processes with a compute or a graphics context, and clients of an MPS server."""

_INVALID_PIDS = {0, 0xFFFFFFFF}

_XID_EVENT = 0x8
"""nvmlEventTypeXidCriticalError."""

_XID_WAIT_MILLISECONDS = 1
"""The shortest wait that is known to end: the meaning of 0 is not documented."""

_GPM_METRICS = _GPM_GRAPHICS, _GPM_SM, _GPM_TENSOR, _GPM_DRAM = 1, 2, 5, 10

_METRIC = Struct("@IId24x")
"""nvmlGpmMetric_t: metric, nvmlReturn_t, value; its name follows."""


class UtilSample(NamedTuple):
    """A process's share of the SMs' time (0 to 1) up to ``at`` (seconds of the driver's own clock)."""

    pid: int
    at: float
    ratio: float


class Fields(NamedTuple):
    """Values by field id, each in the driver's unit, and when the driver took them, in µs of its own clock."""

    values: dict[int, float]
    times: dict[int, int]


class Activity(NamedTuple):
    """Mean ratios between two GPM samples; None is unknown."""

    sm: float | None
    tensor: float | None
    dram: float | None


class Driver(Library):
    """NVML as this exporter uses it. Every method raises `DriverError`; optional values are None where unknown."""

    _gpm_request: Any = None

    # --- cards --------------------------------------------------------------------------------------

    def version(self) -> str:
        """Version of the driver; "" if unknown."""
        return self.call_optional("nvmlSystemGetDriverVersion") or ""

    def count(self) -> int:
        """How many cards there are."""
        return int(self.call("nvmlDeviceGetCount"))

    def handle(self, index: int) -> Any:
        """Handle of a card. An index is valid in this session only; the UUID is stable."""
        return self.call("nvmlDeviceGetHandleByIndex", index)

    def handle_by_bus_id(self, bus_id: str) -> Any:
        """Handle of the card at a PCI address in the format of `bus_id`."""
        return self.call("nvmlDeviceGetHandleByPciBusId", bus_id)

    def index(self, handle: Any) -> int:
        """Index of a card in this session."""
        return int(self.call("nvmlDeviceGetIndex", handle))

    def uuid(self, handle: Any) -> str:
        """UUID of a card or MIG device."""
        return str(self.call("nvmlDeviceGetUUID", handle))

    def model(self, handle: Any) -> str:
        """Product name; "" if unknown."""
        return self.call_optional("nvmlDeviceGetName", handle) or ""

    def bus_id(self, handle: Any) -> str:
        """PCI address as sysfs writes it (``0000:41:00.0``); "" if unknown."""
        info = self.call_optional("nvmlDeviceGetPciInfo", handle)
        if info is None:
            return ""
        raw = info.busId
        text = (raw.decode("ascii", "replace") if isinstance(raw, bytes) else str(raw)).lower()
        domain, _, rest = text.partition(":")
        return f"{domain[-4:]}:{rest}"

    # --- energy and state ---------------------------------------------------------------------------

    def fields(self, handle: Any, ids: Sequence[int]) -> Fields:
        """Several fields in one call; fields the card does not support are left out."""
        values = self.call_optional("nvmlDeviceGetFieldValues", handle, list(ids))
        known = Fields({}, {})
        if values is None:
            return known
        # As bytes: pynvml's structures convert a member in 1 µs each time it is read.
        for field, _, time, _, kind, status, raw in _FIELD.iter_unpack(bytes(values)):
            if status == 0 and kind < len(_VALUES):
                (number,) = _VALUES[kind].unpack_from(raw)
                if 0 <= number < MAX_COUNTER:
                    known.values[field] = float(number)
                    known.times[field] = time
        return known

    def energy_joules(self, handle: Any) -> float:
        """Energy since the driver was loaded or the card reset (counted in mJ; Volta and newer)."""
        millijoules = self.call("nvmlDeviceGetTotalEnergyConsumption", handle)
        if not 0 <= millijoules < MAX_COUNTER:
            raise DriverError("failed", "implausible", f"energy counter reads {millijoules} mJ")
        return float(millijoules / 1000)

    def power_watts(self, handle: Any) -> float:
        """Power: averaged over 1 s on Ampere (except GA100) and newer, else instantaneous."""
        return float(self.call("nvmlDeviceGetPowerUsage", handle) / 1000)

    def limit_watts(self, handle: Any) -> float | None:
        """Power limit in force."""
        return _scaled(self.call_optional("nvmlDeviceGetEnforcedPowerLimit", handle), 1 / 1000)

    def memory_bytes(self, handle: Any) -> tuple[float | None, float | None]:
        """Memory used and total."""
        info = self.call_optional("nvmlDeviceGetMemoryInfo", handle)
        return (None, None) if info is None else (float(info.used), float(info.total))

    def temperature_celsius(self, handle: Any) -> float | None:
        """Temperature of the die."""
        return _scaled(self.call_optional("nvmlDeviceGetTemperature", handle, 0), 1)

    def utilization_ratio(self, handle: Any) -> float | None:
        """Share of time (0 to 1) in which at least one kernel ran; unknown under MIG."""
        rates = self.call_optional("nvmlDeviceGetUtilizationRates", handle)
        return None if rates is None else min(1.0, rates.gpu / 100)

    def clock_hertz(self, handle: Any) -> tuple[tuple[str, float], ...]:
        """Clocks of the SMs and the memory."""
        megahertz = {
            "sm": self.call_optional("nvmlDeviceGetClockInfo", handle, _SM),
            "memory": self.call_optional("nvmlDeviceGetClockInfo", handle, _MEMORY),
        }
        return tuple((domain, value * 1e6) for domain, value in megahertz.items() if value is not None)

    def throttle_bits(self, handle: Any) -> int | None:
        """Bit mask of the reasons for lower clocks (nvmlClocksEventReasons); older drivers have only the older name."""
        bits = self.call_optional("nvmlDeviceGetCurrentClocksEventReasons", handle)
        if bits is None:
            bits = self.call_optional("nvmlDeviceGetCurrentClocksThrottleReasons", handle)
        return None if bits is None else int(bits)

    # --- processes ----------------------------------------------------------------------------------

    def utilization(self, call: str, handle: Any, since: float) -> list[UtilSample]:
        """Samples newer than ``since``, oldest first, by one of `PROCESS_USE_CALLS`; none if there are none.

        Raises `DriverError` if the card does not report them this way (MIG).
        Drivers do return values above 100 (nvtop#110): they are clamped.
        """
        try:
            found = self.call(call, handle, round(since * 1e6))
        except DriverError as error:
            if error.kind == "nothing":
                return []
            raise
        samples = [UtilSample(s.pid, s.timeStamp / 1e6, min(100, s.smUtil) / 100) for s in found]
        return sorted((s for s in samples if s.at > since), key=lambda sample: sample.at)

    def pids(self, handle: Any) -> tuple[set[int], set[int]] | None:
        """Pids with a context on the card or MIG device, and those of them that are MPS clients; None if not reported.

        Raises `DriverError` if reading the lists needs more privilege: which process uses which part of a card does.
        Early R535 drivers write larger entries than these bindings read (nvitop#75): such a list contains pids that
        no process has, 0 and 2³²−1 among them, and is ignored.
        """
        lists = self._process_lists(handle)
        if lists is None:
            return None
        pids = {entry.pid for entries in lists.values() for entry in entries}
        return None if pids & _INVALID_PIDS else (pids, {entry.pid for entry in lists[_MPS_CLIENTS]})

    def pids_by_instance(self, handle: Any) -> dict[int, tuple[set[int], set[int]]]:
        """The same by GPU instance in use, with one query of the whole card; empty if not reported."""
        found: dict[int, tuple[set[int], set[int]]] = {}
        for name, entries in (self._process_lists(handle) or {}).items():
            for entry in entries:
                pids, clients = found.setdefault(entry.gpuInstanceId, (set(), set()))
                pids.add(entry.pid)
                if name == _MPS_CLIENTS:
                    clients.add(entry.pid)
        return {} if any(pids & _INVALID_PIDS for pids, _ in found.values()) else found

    def _process_lists(self, handle: Any) -> dict[str, Any] | None:
        """Entries by name of the list; None if the driver has neither a compute nor a graphics list."""
        lists: dict[str, Any] = {}
        permission_error = None
        for name in _PROCESS_LISTS:
            try:
                lists[name] = self.call(f"nvmlDeviceGet{name}RunningProcesses", handle)
            except DriverError as error:
                if error.kind in ("lost", "down"):
                    raise
                permission_error = error if error.reason == "permission" else permission_error
        if lists.keys() - {_MPS_CLIENTS}:
            return {name: lists.get(name) or () for name in _PROCESS_LISTS}
        if permission_error is not None:
            raise permission_error
        return None

    # --- events -------------------------------------------------------------------------------------

    def events(self, handle: Any) -> Any:
        """A queue that receives the Xid errors of a card from now on; free it with `events_free`."""
        events = self.call("nvmlEventSetCreate")
        try:
            self.call("nvmlDeviceRegisterEvents", handle, _XID_EVENT, events)
        except DriverError:
            self.events_free(events)
            raise
        return events

    def next_xid(self, events: Any) -> int | None:
        """Number of the next Xid error in a queue; None if there is none."""
        event = self.call_optional("nvmlEventSetWait_v2", events, _XID_WAIT_MILLISECONDS)
        return None if event is None else int(event.eventData)

    def events_free(self, events: Any) -> None:
        """Free a queue."""
        self.call_ignoring_errors("nvmlEventSetFree", events)

    # --- MIG ----------------------------------------------------------------------------------------

    def slices(self, handle: Any) -> int:
        """Number of slices that MIG divides this card into; 0 where MIG is off or unknown."""
        mode = self.call_optional("nvmlDeviceGetMigMode", handle)
        if mode is None or mode[0] != 1:
            return 0
        return int(self.call_optional("nvmlDeviceGetMaxMigDeviceCount", handle) or 0)

    def mig_devices(self, handle: Any, slices: int) -> list[tuple[int, int, Any]]:
        """Every MIG device of a card: id and slices of its GPU instance, handle."""
        found = []
        for index in range(slices):
            part = self.call_optional("nvmlDeviceGetMigDeviceHandleByIndex", handle, index)
            instance = None if part is None else self.call_optional("nvmlDeviceGetGpuInstanceId", part)
            if instance is not None:
                attributes = self.call_optional("nvmlDeviceGetAttributes", part)
                found.append((int(instance), attributes.gpuInstanceSliceCount if attributes else 1, part))
        return found

    # --- GPM (Hopper and newer) ---------------------------------------------------------------------

    def has_gpm(self, handle: Any) -> bool:
        """Whether the card supports GPM."""
        support = self.call_optional("nvmlGpmQueryDeviceSupport", handle)
        return support is not None and bool(support.isSupportedDevice)

    def gpm_sample(self) -> Any:
        """Allocate one sample; free it with `gpm_free`."""
        return self.call("nvmlGpmSampleAlloc")

    def gpm_free(self, sample: Any) -> None:
        """Free a sample."""
        self.call_ignoring_errors("nvmlGpmSampleFree", sample)

    def gpm_take(self, handle: Any, instance: int | None, sample: Any) -> None:
        """Fill a sample with the current counters of the card, or of one GPU instance of it."""
        if instance is None:
            self.call("nvmlGpmSampleGet", handle, sample)
        else:
            self.call("nvmlGpmMigSampleGet", handle, instance, sample)

    def gpm_activity(self, older: Any, newer: Any) -> Activity:
        """Mean activity between two samples."""
        request = self._gpm_request
        if request is None:
            request = self._gpm_request = self._nvml.c_nvmlGpmMetricsGet_t()
            request.version = self._nvml.NVML_GPM_METRICS_GET_VERSION
            request.numMetrics = len(_GPM_METRICS)
            for slot, metric in enumerate(_GPM_METRICS):
                request.metrics[slot].metricId = metric
        request.sample1, request.sample2 = older, newer
        self.call("nvmlGpmMetricsGet", request)
        known = {}
        for slot in range(len(_GPM_METRICS)):
            metric, status, value = _METRIC.unpack_from(request, type(request).metrics.offset + slot * _METRIC.size)
            if status == 0 and value >= 0:  # NaN compares false
                known[metric] = min(1.0, value / 100)
        return Activity(known.get(_GPM_SM, known.get(_GPM_GRAPHICS)), known.get(_GPM_TENSOR), known.get(_GPM_DRAM))


def _scaled(value: Any, factor: float) -> float | None:
    return None if value is None else float(value * factor)
