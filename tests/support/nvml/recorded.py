"""NVIDIA cards as a file: the answers of their driver at several instants, played by the fake driver."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from exporter.sources.nvml.driver import POWER_INSTANT_MILLIWATTS, Driver
from exporter.sources.nvml.gpm import GpmWatch
from exporter.sources.nvml.library import DriverError
from exporter.sources.nvml.process_use import ProcessUse
from tests.support.nvml import control
from tests.support.nvml.control import FakeDriver, Gpu, Mig, MigInstance

Document = dict[str, Any]
"""Contents of a ``gpus.json``: see tests/hosts/README.md. A value of null is one that the driver does not report."""

_KINDS: Mapping[control.Kind, str] = {"compute": "Compute", "graphics": "Graphics", "mps": "MPSCompute"}
_WIDTH = 100
_GPM = {"sm": control.GPM_SM_UTIL, "tensor": control.GPM_ANY_TENSOR_UTIL, "dram": control.GPM_DRAM_BW_UTIL}


def dumps(document: Document) -> str:
    """The document as JSON, in which everything that fits stands on one line."""
    return _lines(document, 0) + "\n"


def _lines(value: Any, depth: int) -> str:
    flat = json.dumps(value)
    if len(flat) + depth <= _WIDTH or not isinstance(value, dict | list):
        return flat
    indent = " " * (depth + 1)
    if isinstance(value, dict):
        parts = [f"{indent}{json.dumps(key)}: {_lines(one, depth + 1)}" for key, one in value.items()]
        return "{\n" + ",\n".join(parts) + "\n" + " " * depth + "}"
    parts = [f"{indent}{_lines(one, depth + 1)}" for one in value]
    return "[\n" + ",\n".join(parts) + "\n" + " " * depth + "]"


# --- playing ---------------------------------------------------------------------------------------------------------


class Cards:
    """The cards of a document, plugged into a fake driver."""

    def __init__(self, document: Document, driver: FakeDriver) -> None:
        driver.driver_version = document["driver_version"]
        driver.nvml_version = document["nvml_version"]
        self._cards = [(_plug(driver, card), card) for card in document["gpus"]]

    def show(self, instant: int, wall: float) -> None:
        """Let the driver say what it said at this instant, which is now: ``wall`` is Unix seconds.

        Each instant but the first holds only what changed, and the samples of use taken since the one before.
        """
        for gpu, card in self._cards:
            if instant < len(card["instants"]):
                _show(gpu, card["instants"][instant], wall)


def _plug(driver: FakeDriver, card: Document) -> Gpu:
    gpu = driver.add_gpu(
        card["name"], card["uuid"], architecture=card["architecture"], memory_bytes=card["memory_total_bytes"]
    )
    domain, bus, device = card["pci_bus_id"].removesuffix(".0").split(":")
    gpu.state.pci_domain, gpu.state.pci_bus, gpu.state.pci_device = int(domain, 16), int(bus, 16), int(device, 16)
    gpu.state.memory_reserved = 0  # the driver counts it as used
    gpu.state.gpm_supported, gpu.state.mig_capable = card["gpm"], card["mig_slices"]
    return gpu


def _show(gpu: Gpu, said: Document, wall: float) -> None:
    for name, value in said.items():
        match name:
            case "processes":
                _hold(gpu, value)
            case "samples":
                for sample in value:
                    at = round((wall - sample["age_seconds"]) * 1e6)
                    gpu.sample(sample["pid"], sample["sm_percent"], timestamp_us=at)
            case "throttle":
                gpu.throttle(value["now"])
                for place, reason in enumerate(control.REASONS):
                    seconds = value["seconds"][reason]
                    raw = control.UNSUPPORTED_64 if seconds is None else round(seconds * 1e9)
                    gpu.state.throttle_ns[place] = raw
            case "gpm":
                _measure(gpu, value)
            case "xids":
                for number in value:
                    gpu.xid(number)
            case "ecc" | "repair":
                getattr(gpu, name)(**value)
            case "mig":
                _cut(gpu, value)
            case _:
                setattr(gpu, name, value)


def _hold(holder: Gpu | MigInstance, processes: Mapping[control.Kind, Mapping[str, int | None]]) -> None:
    gpu, place = (holder, -1) if isinstance(holder, Gpu) else (holder.gpu, holder.place)
    for slot in gpu.state.processes:
        if slot.mig == place:
            slot.pid = 0
    for kind, pids in processes.items():
        for pid, memory in pids.items():
            holder.process(int(pid), memory_bytes=memory, kind=kind)


def _measure(target: Gpu | MigInstance, percents: Mapping[str, float | None]) -> None:
    for name, metric in _GPM.items():
        target.gpm(metric, percents.get(name))


def _cut(gpu: Gpu, parts: Sequence[Document]) -> None:
    migs = [Mig(part["profile"], part["uuid"], part["gpu_instance"], part["compute_instance"]) for part in parts]
    if [(m.uuid, m.gpu_instance) for m in gpu.mig] != [(m.uuid, m.gpu_instance) for m in migs]:
        gpu.set_mig(migs)
    for part, said in zip(gpu.mig, parts, strict=True):
        part.memory_total_bytes, part.memory_used_bytes = said["memory_total_bytes"], said["memory_used_bytes"]
        _hold(part, said["processes"])
        _measure(part, said["gpm"])


# --- recording -------------------------------------------------------------------------------------------------------


class Recorder:
    """Makes the exporter's queries of a driver, once for every instant; leaves out what identifies a card."""

    def __init__(self, driver: Driver) -> None:
        self._driver = driver
        self._handles = [driver.handle(index) for index in range(driver.count())]
        self._watches: dict[tuple[int, int | None], GpmWatch] = {}
        self._since = [0.0] * len(self._handles)
        self._uses = [ProcessUse(self._driver) for _ in self._handles]
        self._cards = [self._card(number, handle) for number, handle in enumerate(self._handles)]

    def pids(self) -> set[int]:
        """The holders of a card now."""
        found: set[int] = set()
        for handle in self._handles:
            parts = [part for _, _, part in self._driver.mig_devices(handle, self._driver.slices(handle))]
            for holder in [handle, *parts]:
                found.update(int(pid) for pids in self._holders(holder).values() for pid in pids)
        return found

    def record(self, wall: float) -> None:
        """One more instant; ``wall`` is Unix seconds."""
        for number, (handle, card) in enumerate(zip(self._handles, self._cards, strict=True)):
            said, samples = self._instant(number, handle, wall), self._samples(number, handle, wall)
            before: Document = {}
            for earlier in card["instants"]:
                before |= earlier
            changed = {name: value for name, value in said.items() if before.get(name, ...) != value}
            card["instants"].append(changed | ({"samples": samples} if samples else {}))

    def document(self) -> Document:
        """All that was recorded."""
        return {
            "driver_version": self._driver.version(),
            "nvml_version": self._driver.call_ignoring_errors("nvmlSystemGetNVMLVersion") or "",
            "gpus": self._cards,
        }

    def close(self) -> None:
        """Give back what the driver lent."""
        for watch in self._watches.values():
            watch.close()
        self._driver.close()

    def _card(self, number: int, handle: Any) -> Document:
        driver = self._driver
        return {
            "name": driver.model(handle),
            "uuid": f"GPU-{number:08x}-0000-4000-8000-000000000000",
            "pci_bus_id": driver.bus_id(handle),
            "architecture": driver.call_ignoring_errors("nvmlDeviceGetArchitecture", handle) or 0,
            "memory_total_bytes": round(driver.memory_bytes(handle)[1] or 0),
            "gpm": driver.has_gpm(handle),
            "mig_slices": int(driver.call_ignoring_errors("nvmlDeviceGetMaxMigDeviceCount", handle) or 0),
            "instants": [],
        }

    def _instant(self, number: int, handle: Any, wall: float) -> Document:
        driver = self._driver
        wanted = [POWER_INSTANT_MILLIWATTS, *_THROTTLE_FIELDS.values(), *_ECC_FIELDS.values(), *_REPAIR_FIELDS.values()]
        fields = driver.fields(handle, wanted).values
        bits = driver.throttle_bits(handle)
        clocks = dict(driver.clock_hertz(handle))
        utilization = driver.utilization_ratio(handle)
        slices = driver.slices(handle)
        return {
            "energy_joules": _known(lambda: driver.energy_joules(handle)),
            "power_instant_watts": _scaled(fields.get(POWER_INSTANT_MILLIWATTS), 1e-3),
            "power_average_watts": _known(lambda: driver.power_watts(handle)),
            "power_limit_watts": driver.limit_watts(handle),
            "memory_used_bytes": driver.memory_bytes(handle)[0],
            "util_percent": _scaled(utilization, 100),
            "temperature_celsius": driver.temperature_celsius(handle),
            "sm_clock_hertz": clocks.get("sm"),
            "memory_clock_hertz": clocks.get("memory"),
            "throttle": {
                "now": [reason for reason, (bit, _) in control.REASONS.items() if (bits or 0) & bit],
                "seconds": {reason: _scaled(fields.get(field), 1e-9) for reason, field in _THROTTLE_FIELDS.items()},
            },
            "gpm": self._activity(number, handle, None),
            "ecc": {error: _scaled(fields.get(field), 1) for error, field in _ECC_FIELDS.items()},
            "repair": {state: _scaled(fields.get(field), 1) for state, field in _REPAIR_FIELDS.items()},
            "processes": {} if slices else self._holders(handle),
            "mig": [
                self._part(number, handle, place, *found)
                for place, found in enumerate(driver.mig_devices(handle, slices))
            ],
        }

    def _samples(self, number: int, handle: Any, wall: float) -> list[Document]:
        """Use since the last call."""
        since = self._since[number]
        found = self._uses[number].read(handle, since, 0.0, busy=True)
        self._since[number] = max([since, *[sample.at for sample in found]])
        return [
            {"pid": sample.pid, "sm_percent": round(sample.ratio * 100), "age_seconds": round(wall - sample.at, 3)}
            for sample in found
        ]

    def _part(self, number: int, card: Any, place: int, instance: int, width: int, part: Any) -> Document:
        driver = self._driver
        used, total = driver.memory_bytes(part)
        profile = re.search(r"MIG (\S+)", driver.model(part))
        return {
            "profile": profile[1] if profile else f"{width}g.{round((total or 0) / 2**30)}gb",
            "uuid": f"MIG-{number:08x}-{place:04x}-5000-8000-000000000000",
            "gpu_instance": instance,
            "compute_instance": driver.call_ignoring_errors("nvmlDeviceGetComputeInstanceId", part) or 0,
            "memory_total_bytes": total,
            "memory_used_bytes": used,
            "gpm": self._activity(number, card, instance),
            "processes": self._holders(part),
        }

    def _holders(self, holder: Any) -> dict[control.Kind, dict[str, int | None]]:
        found: dict[control.Kind, dict[str, int | None]] = {}
        for kind, name in _KINDS.items():
            entries = self._driver.call_ignoring_errors(f"nvmlDeviceGet{name}RunningProcesses", holder) or ()
            if entries:
                found[kind] = {str(entry.pid): entry.usedGpuMemory for entry in entries}
        return found

    def _activity(self, number: int, handle: Any, instance: int | None) -> dict[str, float | None]:
        if not self._driver.has_gpm(handle):
            return {}
        watch = self._watches.get((number, instance))
        if watch is None:
            watch = self._watches[number, instance] = GpmWatch(self._driver, handle, instance)
        sm, tensor, dram = watch.read()
        return {"sm": _scaled(sm, 100), "tensor": _scaled(tensor, 100), "dram": _scaled(dram, 100)}


_ECC_FIELDS = {"corrected": 5, "uncorrected": 6}
_REPAIR_FIELDS = {"pending": 144, "failed": 145}
_THROTTLE_FIELDS = {reason: field for reason, (_, field) in control.REASONS.items()}


def _known(ask: Any) -> float | None:
    try:
        return float(ask())
    except DriverError:
        return None


def _scaled(value: float | None, factor: float) -> float | None:
    return None if value is None else round(value * factor, 6)
