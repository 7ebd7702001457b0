"""Power and energy from the kernel's hwmon chips: GPUs, ACPI meters, boards (sysfs-interface.rst)."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Iterable
from dataclasses import dataclass, replace

from ...host import Host, KeptFile, names_in
from ...records import Device, EnergyReading, GpuState, PowerReading, Problem, Reading, Unavailable
from ..cpu.estimate import assumed_idle_share
from ..cpu.topology import Topology, read_topology
from .chips import Chip, Sensor, describe_all, resolve_nesting
from .labels import Components

RESCAN_SECONDS = 60.0
"""How often to look for chips that were added or removed (hot-plugged cards, reloaded modules)."""

_ACPI_UNKNOWN_MICROWATTS = 0xFFFFFFFF * 1000
"""ACPI 6.5 §10.4.3: _PMM returns 0xFFFFFFFF milliwatts if the power is unknown."""

_MEASURES = re.compile(r"(power|energy|in|curr)\d+_")

_GPU_FILES = (
    ("temperature_celsius", "temp1_input", 1000),  # m°C
    ("temperature_celsius", "temp2_input", 1000),  # xe has no temp1: its package is temp2
    ("power_limit_watts", "power1_cap", 1_000_000),  # µW, amdgpu
    ("power_limit_watts", "power1_max", 1_000_000),  # µW, i915 and xe
    ("memory_used_bytes", "device/mem_info_vram_used", 1),
    ("memory_total_bytes", "device/mem_info_vram_total", 1),
    ("utilization_ratio", "device/gpu_busy_percent", 100),
    ("graphics", "freq1_input", 1),  # Hz
)
"""State of a GPU: field, file, divisor to the base unit. The first readable file counts."""


@dataclass(slots=True)
class _Meter:
    """A sensor and its kept files; ``runtime_status`` is the runtime power state of the GPU it belongs to."""

    sensor: Sensor
    files: list[KeptFile]
    runtime_status: KeptFile | None
    maybe_absent: bool

    def value(self) -> float:
        """Joules or watts. Raises `Unavailable`."""
        if self.sensor.unit == "millivolts_milliamperes":
            millivolts, milliamperes = (_signed(file) for file in self.files)
            # a shunt amplifier's offset makes an idle rail read a few mA below zero
            return max(0, millivolts) * max(0, milliamperes) / 1e6
        raw = self.files[0].counter()
        if self.sensor.unit == "microwatts" and raw >= _ACPI_UNKNOWN_MICROWATTS:
            raise Unavailable("implausible", f"{self.files[0].path}: the meter reports an unknown power ({raw} µW)")
        return raw / 1e6


@dataclass(slots=True)
class _Gpu:
    device: Device
    index: str
    address: str
    files: list[tuple[str, KeptFile, int]]
    runtime_status: KeptFile | None

    def state(self) -> GpuState:
        """Its state; a file that cannot be read is an unknown value, not a problem."""
        known: dict[str, float] = {}
        for field, file, divisor in self.files:
            try:
                value = _signed(file) / divisor
            except Unavailable:
                continue
            if field != "power_limit_watts" or value > 0:  # 0 is "no limit set" (i915 ABI)
                known.setdefault(field, value)
        return GpuState(
            uuid=self.device.id,
            index=self.index,
            gpu_model=self.device.name,
            pci_bus_id=self.address,
            power_limit_watts=known.get("power_limit_watts"),
            memory_used_bytes=known.get("memory_used_bytes"),
            memory_total_bytes=known.get("memory_total_bytes"),
            temperature_celsius=known.get("temperature_celsius"),
            utilization_ratio=known.get("utilization_ratio"),
            clock_hertz=(("graphics", known["graphics"]),) if "graphics" in known else (),
        )


class HwmonSource:
    """Reads every hwmon sensor of power (µW) or energy (µJ); `chips` describes what each one covers.

    A runtime-suspended GPU is not read, because that would wake it; the reading lists it as asleep. EAGAIN, ENODATA and
    EIO, which drivers return while firmware is busy, are a problem of that tick only (fault 12 of docs/faults.md).
    ``components`` says what sensors measure whose label does not, or not rightly.
    """

    name = "hwmon"

    def __init__(self, host: Host, components: Components | None = None) -> None:
        self._host = host
        self._components = components or {}
        self._meters: list[_Meter] = []
        self._gpus: list[_Gpu] = []
        self._scan_problems: list[Problem] = []
        self._seen_nonzero: set[str] = set()
        self._scan_at = -math.inf

    def read(self, now: float) -> Reading:
        """Read all sensors; one that fails is reported as a problem. Raises `Unavailable` if none can be read."""
        if now >= self._scan_at:
            self._scan(now)
        meters: list[EnergyReading | PowerReading] = []
        problems = list(self._scan_problems)
        absent: set[str] = set()
        asleep: list[str] = []
        for meter in self._meters:
            device = meter.sensor.device
            if _is_suspended(meter.runtime_status):
                asleep.append(device.id)
                continue
            try:
                value = meter.value()
            except Unavailable as error:
                problems.append(Problem(error.reason, error.message, error.fix))
                if error.reason == "not_found":
                    self._scan_at = -math.inf
                continue
            if meter.maybe_absent and value == 0:
                absent.add(device.id)
                continue
            if meter.sensor.stands_for in absent:
                absent.add(device.id)
                self._scan_at = -math.inf  # the next scan finds that this sensor advances and the other does not
                continue
            meter.maybe_absent = False
            self._seen_nonzero.add(device.id)
            at = self._host.clock()
            if meter.sensor.unit == "microjoules":
                meters.append(EnergyReading(device, at, value, None))
            else:
                meters.append(PowerReading(device, at, value))
        if problems and not meters and not absent and not asleep:
            self.close()
            raise Unavailable(*problems[0])
        gpus = tuple(gpu.state() for gpu in self._gpus if not _is_suspended(gpu.runtime_status))
        return Reading(meters=tuple(meters), gpus=gpus, problems=tuple(problems), asleep=tuple(asleep))

    def close(self) -> None:
        """Close the files; the next read looks for chips again."""
        for meter in self._meters:
            _close([*meter.files, meter.runtime_status])
        for gpu in self._gpus:
            _close([*(file for _, file, _ in gpu.files), gpu.runtime_status])
        self._meters, self._gpus = [], []
        self._scan_at = -math.inf

    def _scan(self, now: float) -> None:
        """Find and open all sensors. Raises `Unavailable` if there is none."""
        self.close()
        self._scan_problems = []
        topology = read_topology(self._host)
        found = describe_all(self._chips(topology), self._components)
        resolved = resolve_nesting(found, self._powercap_names())
        idle_share = assumed_idle_share(self._host)
        resolved = [
            (chip, sensor._replace(device=replace(sensor.device, idle_share=idle_share)))
            if sensor.device.component == "cpu" and sensor.device.within is None
            else (chip, sensor)
            for chip, sensor in resolved
        ]
        for chip, sensor in resolved:
            gpu = sensor.device.component == "gpu"
            try:
                files = [self._host.keep(f"{chip.folder}/{file}") for file in sensor.files]
            except Unavailable as error:
                self._scan_problems.append(Problem(error.reason, error.message, error.fix))
                continue
            runtime_status = self._keep(f"{chip.path}/device/power/runtime_status") if gpu else None
            maybe_absent = sensor.zero_is_absent and sensor.device.id not in self._seen_nonzero
            self._meters.append(_Meter(sensor, files, runtime_status, maybe_absent))
        self._find_gpus(resolved)
        if not self._meters and not self._scan_problems:
            raise Unavailable(
                "not_found",
                f"{self._host.sys('class/hwmon')}: no hwmon chip here measures power or energy",
                "nothing to do on most machines; on an ACPI or NVIDIA Grace host: sudo modprobe acpi_power_meter "
                "(Grace also needs the boot parameter acpi_power_meter.force_cap_on=y)",
            )
        self._scan_at = now + RESCAN_SECONDS

    def _find_gpus(self, resolved: list[tuple[Chip, Sensor]]) -> None:
        cards = [(chip, sensor.device) for chip, sensor in resolved if _is_card(chip, sensor)]
        for index, (chip, device) in enumerate(sorted(cards, key=lambda card: card[0].address)):
            files = [
                (field, kept, divisor)
                for field, file, divisor in _GPU_FILES
                if (kept := self._keep(f"{chip.path}/{file}")) is not None
            ]
            runtime_status = self._keep(f"{chip.path}/device/power/runtime_status")
            self._gpus.append(_Gpu(device, str(index), chip.address, files, runtime_status))

    def _chips(self, topology: Topology) -> list[Chip]:
        root = self._host.sys("class/hwmon")
        chips = []
        for entry in names_in(root):
            path = f"{root}/{entry}"
            own, parent = names_in(path), names_in(f"{path}/device")
            measuring = any(_MEASURES.match(file) for file in own)
            folder, files = (path, own) if measuring else (f"{path}/device", parent)
            for home in (path, f"{path}/device"):  # older drivers keep all their attributes in device/
                try:
                    name = self._host.text(f"{home}/name")
                except Unavailable:
                    continue  # a dangling link, or not in this folder
                address = os.path.basename(os.path.realpath(f"{path}/device"))
                chips.append(Chip(self._host, name, path, folder, address, frozenset(files), topology))
                break
        return chips

    def _powercap_names(self) -> set[str]:
        """Names of the RAPL zones, so that what they include is not counted twice."""
        root = self._host.sys("class/powercap")
        names = set()
        for zone in names_in(root):
            try:
                names.add(self._host.text(f"{root}/{zone}/name"))
            except Unavailable:
                continue
        return names

    def _keep(self, path: str) -> KeptFile | None:
        """Keep an optional file open; None if it is missing. Opening a sysfs file does not wake a device."""
        try:
            return self._host.keep(path)
        except Unavailable:
            return None


def _is_card(chip: Chip, sensor: Sensor) -> bool:
    """Whether this sensor is the first of a GPU, so that a card with two meters or two tiles is one GPU."""
    return chip.name in ("amdgpu", "i915", "xe") and (sensor.device.within is None or chip.name == "amdgpu")


def _is_suspended(status: KeptFile | None) -> bool:
    """Whether the runtime power state (Documentation/power/runtime_pm.rst) is suspended or suspending."""
    try:
        return status is not None and status.read(32).startswith(b"suspend")
    except Unavailable:
        return False


def _signed(file: KeptFile) -> int:
    """Read one integer that may be negative. Raises `Unavailable`."""
    raw = file.read(64)
    try:
        return int(raw)
    except ValueError:
        raise Unavailable("implausible", f"{file.path}: not a number: {raw[:32]!r}") from None


def _close(files: Iterable[KeptFile | None]) -> None:
    for file in files:
        if file is not None:
            file.close()
