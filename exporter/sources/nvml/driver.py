"""The one door to NVIDIA's driver: calls pynvml, translates its errors, converts its units to SI."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

from ...host import MAX_COUNTER
from ...records import Reason, Unavailable

Kind = Literal["unsupported", "nothing", "lost", "down", "failed"]
"""What an error means: this card cannot tell; there is none; card lost; library unusable; only this call failed."""

ENERGY_MILLIJOULES = 83
POWER_INSTANT_MILLIWATTS = 186
"""Fields of nvmlDeviceGetFieldValues; with scope 0, the default, they cover the GPU alone where a card has a choice."""

_VALUES = ("dVal", "uiVal", "ulVal", "ullVal", "sllVal", "siVal", "usVal")
"""Members of nvmlValue_t, by nvmlValueType_t."""

_SM, _MEMORY = 1, 2
"""nvmlClockType_t."""

_INVALID_PIDS = {0, 0xFFFFFFFF}

_XID_EVENT = 0x8
"""nvmlEventTypeXidCriticalError."""

_XID_WAIT_MILLISECONDS = 1
"""The shortest wait that surely ends: what 0 means is not documented."""

_GPM_GRAPHICS, _GPM_SM, _GPM_TENSOR, _GPM_DRAM = 1, 2, 5, 10

_MATCH = (
    "the library and the kernel module are of different versions, as after an upgrade: reload the module or reboot; "
    "the exporter goes on trying by itself"
)
INSTALL = (
    "nothing to do without an NVIDIA GPU; else install the driver, and in a container use the NVIDIA runtime "
    "(NVIDIA_DRIVER_CAPABILITIES=utility)"
)
_RELOAD = "check the driver with nvidia-smi; in a container that lost its devices, restart the container"
_RESET = "see dmesg for the Xid; reset the card (nvidia-smi --gpu-reset) or reboot"
_PRIVILEGE = "run as root; under MIG in a container, privileged and with NVIDIA_MIG_MONITOR_DEVICES=all"

_MEANING: dict[int, tuple[Kind, Reason, str]] = {
    1: ("down", "driver", _RELOAD),  # UNINITIALIZED
    3: ("unsupported", "not_found", ""),  # NOT_SUPPORTED
    4: ("failed", "permission", _PRIVILEGE),  # NO_PERMISSION
    6: ("nothing", "not_found", ""),  # NOT_FOUND
    9: ("down", "driver", _RELOAD),  # DRIVER_NOT_LOADED
    10: ("failed", "timeout", ""),  # TIMEOUT
    12: ("down", "not_found", INSTALL),  # LIBRARY_NOT_FOUND
    13: ("unsupported", "not_found", ""),  # FUNCTION_NOT_FOUND
    15: ("lost", "driver", _RESET),  # GPU_IS_LOST
    16: ("lost", "driver", _RESET),  # RESET_REQUIRED
    18: ("down", "driver", _MATCH),  # LIB_RM_VERSION_MISMATCH
    25: ("unsupported", "not_found", ""),  # ARGUMENT_VERSION_MISMATCH
    26: ("unsupported", "not_found", ""),  # DEPRECATED
    28: ("lost", "driver", _RESET),  # GPU_NOT_FOUND
}
"""nvmlReturn_t → what it means, why, and what to do."""


class DriverError(Unavailable):
    """A call that the driver refused; ``kind`` says how much is lost with it."""

    def __init__(self, kind: Kind, reason: Reason, message: str, fix: str = "") -> None:
        super().__init__(reason, message, fix)
        self.kind = kind


class UtilSample(NamedTuple):
    """A process's share of the SMs' time (0–1) up to ``at`` (seconds of the driver's own clock)."""

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


class Driver:
    """NVML as this exporter uses it. Every method raises `DriverError`; optional values are None where unknown.

    ``bindings`` stands for the pynvml module; None imports it on `open`.
    """

    def __init__(self, bindings: Any = None) -> None:
        self._nvml = bindings
        self._is_open = False

    def open(self) -> None:
        """Load and initialise the library."""
        if self._nvml is None:
            try:
                self._nvml = importlib.import_module("pynvml")
            except ImportError:
                raise DriverError(
                    "down", "not_found", "the module pynvml is not installed", "pip install nvidia-ml-py"
                ) from None
        self.call("nvmlInit")
        self._is_open = True

    def close(self) -> None:
        """Shut the library down; closing twice is harmless."""
        if self._is_open:
            self._is_open = False
            self.call_ignoring_errors("nvmlShutdown")

    # --- calling ------------------------------------------------------------------------------------

    def call(self, name: str, *arguments: Any) -> Any:
        """Call one function of pynvml."""
        function = getattr(self._nvml, name, None)
        if function is None:
            raise _error(name, 13, "not in this pynvml")
        try:
            return function(*arguments)
        except self._nvml.NVMLError as error:
            raise _error(name, error.value, str(error)) from None
        except self._nvml.NVMLLibraryMismatchError as error:  # not an NVMLError: a versioned symbol is missing
            raise _error(name, 13, str(error)) from None
        except UnicodeDecodeError as error:
            raise DriverError("failed", "error", f"{name}: {error}") from None

    def call_optional(self, name: str, *arguments: Any) -> Any:
        """Call it for a value that need not be known: None unless the card or the driver is gone."""
        try:
            return self.call(name, *arguments)
        except DriverError as error:
            if error.kind in ("lost", "down"):
                raise
            return None

    def call_ignoring_errors(self, name: str, *arguments: Any) -> Any:
        """Call it and never mind how it ends."""
        try:
            return self.call(name, *arguments)
        except DriverError:
            return None

    # --- cards --------------------------------------------------------------------------------------

    def version(self) -> str:
        """Version of the driver; "" if unknown."""
        return self.call_optional("nvmlSystemGetDriverVersion") or ""

    def count(self) -> int:
        """How many cards there are."""
        return int(self.call("nvmlDeviceGetCount"))

    def handle(self, index: int) -> Any:
        """Handle of a card; an index means nothing beyond this session, the UUID does."""
        return self.call("nvmlDeviceGetHandleByIndex", index)

    def handle_by_bus_id(self, bus_id: str) -> Any:
        """Handle of the card at a PCI address as `bus_id` writes it."""
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
        """Several fields in one call; those the card does not know are left out."""
        values = self.call_optional("nvmlDeviceGetFieldValues", handle, list(ids))
        known = Fields({}, {})
        for value in values if values is not None else ():
            if value.nvmlReturn == 0 and value.valueType < len(_VALUES):
                number = getattr(value.value, _VALUES[value.valueType])
                if 0 <= number < MAX_COUNTER:
                    known.values[int(value.fieldId)] = float(number)
                    known.times[int(value.fieldId)] = int(value.timestamp)
        return known

    def energy_joules(self, handle: Any) -> float:
        """Energy since the driver was loaded or the card reset (counted in mJ; Volta and newer)."""
        millijoules = self.call("nvmlDeviceGetTotalEnergyConsumption", handle)
        if not 0 <= millijoules < MAX_COUNTER:
            raise DriverError("failed", "implausible", f"energy counter says {millijoules} mJ")
        return float(millijoules / 1000)

    def power_watts(self, handle: Any) -> float:
        """Power: a mean over 1 s on Ampere (but GA100) and newer, else momentary."""
        return float(self.call("nvmlDeviceGetPowerUsage", handle) / 1000)

    def limit_watts(self, handle: Any) -> float | None:
        """Power limit now in force."""
        return _scaled(self.call_optional("nvmlDeviceGetEnforcedPowerLimit", handle), 1 / 1000)

    def memory_bytes(self, handle: Any) -> tuple[float | None, float | None]:
        """Memory used and in total."""
        info = self.call_optional("nvmlDeviceGetMemoryInfo", handle)
        return (None, None) if info is None else (float(info.used), float(info.total))

    def temperature_celsius(self, handle: Any) -> float | None:
        """Temperature of the die."""
        return _scaled(self.call_optional("nvmlDeviceGetTemperature", handle, 0), 1)

    def utilization_ratio(self, handle: Any) -> float | None:
        """Share of time in which some kernel ran; unknown under MIG."""
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
        """Mask of what holds the clocks down now (nvmlClocksEventReasons); older drivers have only the older name."""
        bits = self.call_optional("nvmlDeviceGetCurrentClocksEventReasons", handle)
        if bits is None:
            bits = self.call_optional("nvmlDeviceGetCurrentClocksThrottleReasons", handle)
        return None if bits is None else int(bits)

    # --- processes ----------------------------------------------------------------------------------

    def utilization(self, handle: Any, since: float) -> list[UtilSample]:
        """Samples newer than ``since`` by time; none of an idle card and of one that cannot tell (MIG).

        A value above 100 is garbage that drivers do return (nvtop#110): it is clamped.
        """
        try:
            found = self.call("nvmlDeviceGetProcessUtilization", handle, round(since * 1e6))
        except DriverError as error:
            if error.kind in ("lost", "down"):
                raise
            return []
        samples = [UtilSample(s.pid, s.timeStamp / 1e6, min(100, s.smUtil) / 100) for s in found]
        return sorted((s for s in samples if s.at > since), key=lambda sample: sample.at)

    def pids(self, handle: Any) -> tuple[set[int], set[int]] | None:
        """Who has a context on the card or MIG device, and which of them are MPS clients; None if it cannot tell.

        Raises `DriverError` if we may not know: who uses which part of a card takes privilege.
        Early R535 drivers write larger entries than these bindings read (nvitop#75): then the pids are those
        of nobody, 0 and 2³²−1 among them, and such a list counts for nothing.
        """
        lists = self._process_lists(handle)
        if lists is None:
            return None
        compute, graphics, clients = ({entry.pid for entry in found} for found in lists)
        pids = compute | graphics | clients
        return None if pids & _INVALID_PIDS else (pids, clients)

    def pids_by_instance(self, handle: Any) -> dict[int, tuple[set[int], set[int]]]:
        """The same for every held GPU instance of a card, in one go; none if it cannot tell."""
        found: dict[int, tuple[set[int], set[int]]] = {}
        for address, entries in enumerate(self._process_lists(handle) or ()):
            for entry in entries:
                pids, clients = found.setdefault(entry.gpuInstanceId, (set(), set()))
                pids.add(entry.pid)
                if address == 2:
                    clients.add(entry.pid)
        return {} if any(pids & _INVALID_PIDS for pids, _ in found.values()) else found

    def _process_lists(self, handle: Any) -> list[Any] | None:
        lists: list[Any] = []
        permission_error = None
        for sort in ("Compute", "Graphics", "MPSCompute"):
            try:
                lists.append(self.call(f"nvmlDeviceGet{sort}RunningProcesses", handle))
            except DriverError as error:
                if error.kind in ("lost", "down"):
                    raise
                permission_error = error if error.reason == "permission" else permission_error
                lists.append(None)
        if lists[0] is not None or lists[1] is not None:
            return [found or () for found in lists]
        if permission_error is not None:
            raise permission_error
        return None

    # --- events -------------------------------------------------------------------------------------

    def events(self, handle: Any) -> Any:
        """A queue in which the driver puts the Xid errors of a card from now on; give it back with `events_free`."""
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
        """Give back a queue."""
        self.call_ignoring_errors("nvmlEventSetFree", events)

    # --- MIG ----------------------------------------------------------------------------------------

    def slices(self, handle: Any) -> int:
        """Into how many slices MIG cuts this card; 0 where MIG is off or unknown."""
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
        """Whether the card counts what its units do."""
        support = self.call_optional("nvmlGpmQueryDeviceSupport", handle)
        return support is not None and bool(support.isSupportedDevice)

    def gpm_sample(self) -> Any:
        """Room for one sample; give it back with `gpm_free`."""
        return self.call("nvmlGpmSampleAlloc")

    def gpm_free(self, sample: Any) -> None:
        """Give back a sample."""
        self.call_ignoring_errors("nvmlGpmSampleFree", sample)

    def gpm_take(self, handle: Any, instance: int | None, sample: Any) -> None:
        """Fill a sample with the card's counters now, or those of a GPU instance of it."""
        if instance is None:
            self.call("nvmlGpmSampleGet", handle, sample)
        else:
            self.call("nvmlGpmMigSampleGet", handle, instance, sample)

    def gpm_activity(self, older: Any, newer: Any) -> Activity:
        """What happened between two samples."""
        wanted = (_GPM_GRAPHICS, _GPM_SM, _GPM_TENSOR, _GPM_DRAM)
        request = self._nvml.c_nvmlGpmMetricsGet_t()
        request.version = self._nvml.NVML_GPM_METRICS_GET_VERSION
        request.numMetrics = len(wanted)
        request.sample1, request.sample2 = older, newer
        for slot, metric in enumerate(wanted):
            request.metrics[slot].metricId = metric
        self.call("nvmlGpmMetricsGet", request)
        known = {
            metric: min(1.0, answer.value / 100)
            for metric, answer in zip(wanted, request.metrics, strict=False)
            if answer.nvmlReturn == 0 and answer.value >= 0  # NaN compares false
        }
        return Activity(known.get(_GPM_SM, known.get(_GPM_GRAPHICS)), known.get(_GPM_TENSOR), known.get(_GPM_DRAM))


def _error(name: str, code: int, text: str) -> DriverError:
    kind, reason, fix = _MEANING.get(code, ("failed", "driver", _RELOAD))
    return DriverError(kind, reason, f"{name}: {text}", fix)


def _scaled(value: Any, factor: float) -> float | None:
    return None if value is None else float(value * factor)
