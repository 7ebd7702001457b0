"""What the power and energy sensors of each hwmon chip measure, and what already includes them."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from typing import Literal, NamedTuple

from ...host import Host
from ...records import NODE, Component, Device, Scope, Unavailable
from ..cpu.topology import Topology
from ..drm.card import gpu_id
from .labels import Components, Meaning, Named, meaning_of, place

Unit = Literal["microjoules", "microwatts", "millivolts_milliamperes"]


@dataclass(frozen=True, slots=True)
class Chip:
    """One ``/sys/class/hwmon/hwmonN``: ``folder`` holds its attributes (older drivers keep them in ``device/``).

    ``address`` is the bus address of the device behind it (``0000:03:00.0``): stable where hwmonN is not.
    """

    host: Host
    name: str
    path: str
    folder: str
    address: str
    files: frozenset[str]
    topology: Topology

    def is_zero(self, file: str) -> bool:
        """Whether a counter reads 0 now."""
        return self.label(file) == "0"

    def label(self, file: str) -> str:
        """A label file's text; "" if it is missing."""
        try:
            return self.host.text(f"{self.folder}/{file}")
        except Unavailable:
            return ""


class Sensor(NamedTuple):
    """One meter of a chip.

    ``inside`` lists patterns of ids that include it, nearest first; the first one that exists on this machine counts.
    ``by_label``: its component is known by its label only, or by what the operator says. ``whole``: it claims to
    measure the whole platform, of which there is one. ``zero_is_absent``: as long as it has only reported 0 it measures
    nothing. ``stands_for``: the id of a sensor of the same chip in whose place it counts if that one measures nothing.
    """

    device: Device
    unit: Unit
    files: tuple[str, ...]
    inside: tuple[str, ...] = ()
    whole: bool = False
    zero_is_absent: bool = False
    stands_for: str = ""
    by_label: bool = False


def describe_all(chips: list[Chip], components: Components) -> list[tuple[Chip, Sensor]]:
    """Every sensor of the machine, with the component of those whose label or the operator says it."""
    found = [(chip, sensor) for chip in chips for sensor in describe(chip)]
    meanings: list[tuple[Meaning, int | None] | None] = []
    for chip, sensor in found:
        named = _name_of(chip, sensor)
        chosen = components.get(named.key)
        ruled = meaning_of(named) if _is_unknown(chip) else None
        meanings.append(ruled if chosen is None else (chosen, ruled[1] if ruled else None))
    counts = Counter(meaning[0] for meaning in meanings if meaning)
    placed = []
    for (chip, sensor), meaning in zip(found, meanings, strict=True):
        if meaning is None:
            placed.append((chip, sensor))
            continue
        device, inside, whole = place(sensor.device, *meaning, counts[meaning[0]], chip.topology)
        placed.append((chip, sensor._replace(device=device, inside=inside, whole=whole, by_label=True)))
    return placed


def describe(chip: Chip) -> list[Sensor]:
    """All power and energy sensors of a chip; none for the many chips that only measure heat or fans."""
    if chip.name in _CHIPS:
        return _CHIPS[chip.name](chip)
    return _intel_tile(chip) if chip.name.startswith("i915_gt") else _unknown(chip)


def _is_unknown(chip: Chip) -> bool:
    return chip.name not in _CHIPS and not chip.name.startswith("i915_gt")


def _name_of(chip: Chip, sensor: Sensor) -> Named:
    channel = sensor.files[0].partition("_")[0]
    return Named(chip.name, chip.label(f"{channel}_label") or channel)


def resolve_nesting(found: list[tuple[Chip, Sensor]], elsewhere: set[str]) -> list[tuple[Chip, Sensor]]:
    """Give every device a unique id and set which device includes it.

    Equal ids (two identical chips) get the address of their device, which is stable where hwmonN is not. Of several
    meters of the whole platform the first one counts and includes the others: adding meters that overlap would count
    energy twice, which is worse than showing too little under ``other``.
    """
    counts = Counter(sensor.device.id for _, sensor in found)
    taken: set[str] = set()
    named: list[tuple[Chip, Sensor]] = []
    for chip, sensor in found:
        id_ = sensor.device.id
        if counts[id_] > 1:
            id_ = f"{id_}@{chip.address}"
        if id_ in taken:
            id_ = f"{id_}@{os.path.basename(chip.path)}"
        taken.add(id_)
        named.append((chip, sensor._replace(device=replace(sensor.device, id=id_))))
    whole = min((sensor.device.id for _, sensor in named if sensor.whole), default=None)
    known = sorted(taken | elsewhere | {NODE})
    first_chips = _first_chips(named)
    first_functions = _first_functions(named)
    resolved = []
    for chip, sensor in named:
        within = first_functions.get(sensor.device.id) or _enclosing(sensor, known)
        first = first_chips.get(sensor.device.component)
        if within is None and sensor.by_label and first and first[0] != chip.name:
            within = first[1]  # two drivers that measure the same component
        if within is None and sensor.device.component == "platform" and sensor.device.id != whole:
            within = whole
        resolved.append((chip, sensor._replace(device=replace(sensor.device, within=within))))
    return resolved


def _enclosing(sensor: Sensor, known: Collection[str]) -> str | None:
    """The nearest id that includes a sensor."""
    for pattern in sensor.inside:
        for id_ in known:
            if id_ != sensor.device.id and fnmatchcase(id_, pattern):
                return id_
    return None


def _first_functions(named: list[tuple[Chip, Sensor]]) -> dict[str, str]:
    """Id of an AMD GPU → that of the first PCI function of its slot, for the others.

    A card that is partitioned into functions has one socket, whose power each of them reports.
    """
    functions: dict[str, list[tuple[str, str]]] = {}
    for chip, sensor in named:
        slot, point, function = chip.address.rpartition(".")
        if chip.name == "amdgpu" and point:
            functions.setdefault(slot, []).append((function, sensor.device.id))
    return {id_: min(same)[1] for same in functions.values() for _, id_ in sorted(same)[1:]}


def _first_chips(named: list[tuple[Chip, Sensor]]) -> dict[str, tuple[str, str]]:
    """Component of CPU and memory → the chip's name and the id of its first meter; one with a rule of its own first."""
    first: dict[str, tuple[str, str]] = {}
    for chip, sensor in sorted(named, key=lambda each: each[1].by_label):
        if (
            sensor.device.component in ("cpu", "dram")
            and _enclosing(sensor, [each[1].device.id for each in named]) is None
        ):
            first.setdefault(sensor.device.component, (chip.name, sensor.device.id))
    return first


def _meter(
    id_: str,
    component: Component,
    name: str,
    unit: Unit,
    *files: str,
    capacity: float = 1.0,
    max_watts: float = 2000.0,
    socket: int | None = None,
    inside: tuple[str, ...] = (),
) -> Sensor:
    method = "energy_counter" if unit == "microjoules" else "power_integrated"
    device = Device(
        id=id_,
        component=component,
        source="hwmon",
        quality="measured",
        name=name,
        capacity=capacity,
        max_watts=max_watts,
        socket=socket,
        method=method,
    )
    return Sensor(device, unit, files, inside)


class _Scope(NamedTuple):
    pattern: re.Pattern[str]
    component: Component
    id: str
    inside: tuple[str, ...]


_ACPI_SCOPES = (
    _Scope(re.compile(r"Module Power Socket (\d+)"), "platform", "module-{}", ()),
    _Scope(re.compile(r"Grace Power Socket (\d+)"), "cpu", "grace-{}", ("module-{}",)),
    _Scope(re.compile(r"CPU Power Socket (\d+)"), "cpu", "grace-cpu-{}", ("grace-{}", "module-{}")),
    _Scope(re.compile(r"SysIO Power Socket (\d+)"), "cpu", "grace-sysio-{}", ("grace-{}", "module-{}")),
)
"""NVIDIA Grace (Grace Performance Tuning Guide, "Power and Thermals"): the module includes GPU and HBM, the
Grace socket its CPU and SysIO rails and its LPDDR."""


def _acpi(chip: Chip) -> list[Sensor]:
    """ACPI 4.0 power meter (drivers/hwmon/acpi_power_meter.c), µW; without a Grace label it is the platform's."""
    file = "power1_average"
    if file not in chip.files:
        return []
    total = float(chip.topology.total)
    label = chip.label("power1_oem_info")
    for scope in _ACPI_SCOPES:
        if found := scope.pattern.fullmatch(label):
            id_ = scope.id.format(found[1])
            inside = tuple(outer.format(found[1]) for outer in scope.inside)
            socket = chip.topology.package_of_socket(int(found[1]))
            capacity = chip.topology.capacity(socket)
            meter = _meter(
                id_,
                scope.component,
                label,
                "microwatts",
                file,
                capacity=capacity,
                max_watts=5000.0 if scope.component == "platform" else 2000.0,
                socket=socket,
                inside=inside,
            )
            return [meter]
    name = label or "ACPI power meter"
    meter = _meter("platform", "platform", name, "microwatts", file, capacity=total, max_watts=20_000.0)
    return [meter._replace(device=replace(meter.device, scope="node"), whole=True)]


def _amdgpu(chip: Chip) -> list[Sensor]:
    """AMD GPU (Documentation/gpu/amdgpu/thermal.rst), µW: the card; on an APU the socket including its CPU.

    Only APUs have the northbridge voltage in1 (``vddnb``); theirs is shown within the CPU package. An MI250 has
    two dies, of which the first reports the card's power and the second always 0.
    """
    id_ = gpu_id(chip.host, "amdgpu", chip.address, f"{chip.path}/device")
    name = chip.label("device/product_name") or _model("AMD GPU", chip)
    inside = ("package-0", "package-0-die-*", NODE) if chip.label("in1_label") == "vddnb" else ()
    if "energy1_input" in chip.files:
        return [_meter(id_, "gpu", name, "microjoules", "energy1_input", inside=inside)]
    for file in ("power1_average", "power1_input"):
        if file in chip.files:
            return [_meter(id_, "gpu", name, "microwatts", file, inside=inside)._replace(zero_is_absent=True)]
    return []


def _intel_gpu(chip: Chip) -> list[Sensor]:
    """Intel discrete GPU (Documentation/ABI/testing/sysfs-driver-intel-{i915,xe}-hwmon), µJ.

    The register has 32 bits, but the driver accumulates it in 63 (drivers/gpu/drm/i915/i915_hwmon.c: 278 years
    at 1000 W), so the file never wraps. Under xe, energy1 is the card and energy2 the package on it; where the card has
    no meter, or one that stays 0 while the package's advances, the package stands for it.
    """
    card, name = gpu_id(chip.host, chip.name, chip.address, f"{chip.path}/device"), _model("Intel GPU", chip)
    sensors = []
    package = "energy2_input" in chip.files
    if "energy1_input" in chip.files and not (
        package and chip.is_zero("energy1_input") and not chip.is_zero("energy2_input")
    ):
        sensors.append(_meter(card, "gpu", name, "microjoules", "energy1_input"))
        card, name = f"{card}-pkg", f"{name} package"
    if package:
        inside = (sensors[0].device.id,) if sensors else ()
        meter = _meter(card, "gpu", name, "microjoules", "energy2_input", inside=inside)
        sensors.append(meter._replace(stands_for=sensors[0].device.id if sensors else ""))
    return [sensor._replace(zero_is_absent=True) for sensor in sensors]


def _model(kind: str, chip: Chip) -> str:
    """What a card without a name of its own is called: its kind and PCI device id, where known."""
    return f"{kind} {chip.label('device/device')}".strip()


def _intel_tile(chip: Chip) -> list[Sensor]:
    """One tile of an i915 card (``i915_gtN``); within the card where that has a meter of its own."""
    if "energy1_input" not in chip.files:
        return []
    id_, inside = f"{chip.name}-{chip.address}", (f"i915-{chip.address}",)
    return [_meter(id_, "gpu", "Intel GPU tile", "microjoules", "energy1_input", inside=inside)]


def _amd_energy(chip: Chip) -> list[Sensor]:
    """AMD sockets (Documentation/hwmon/amd_energy.rst), µJ: the same registers as RAPL, accumulated in 64 bits.

    Within ``package-N`` where RAPL has that zone. The core counters are left out: reading one interrupts its
    core, so a hundred of them every second would disturb what they measure.
    """
    sensors = []
    for file in sorted(chip.files):
        number = re.fullmatch(r"energy(\d+)_input", file)
        found = re.fullmatch(r"Esocket(\d+)", chip.label(f"energy{number[1]}_label")) if number else None
        if found:
            socket = chip.topology.package_of_socket(int(found[1]))
            meter = _meter(
                f"socket-{found[1]}",
                "cpu",
                f"CPU socket {found[1]}",
                "microjoules",
                file,
                capacity=chip.topology.capacity(socket),
                socket=socket,
                inside=(f"package-{socket}", f"package-{socket}-die-*"),
            )
            sensors.append(meter)
    return sensors


_JETSON_TOTALS = ("VDD_IN", "VIN", "POM_5V_IN")
_JETSON_RAILS: Mapping[str, Component] = {
    "VDD_CPU_CV": "cpu",
    "VDD_CPU": "cpu",
    "POM_5V_CPU": "cpu",
    "CPU": "cpu",
    "VDD_GPU_SOC": "gpu",
    "VDD_GPU": "gpu",
    "POM_5V_GPU": "gpu",
    "GPU": "gpu",
}
"""Rails that mostly feed one component (Jetson Linux Developer Guide, "Platform Power and Performance").
VDD_CPU_CV also feeds the vision engines and VDD_GPU_SOC the SoC; VDD_CPU_GPU_CV feeds everything, and Thor's
VDD_CPU_SOC_MSS memory and SoC too, so they have no component and are only shown."""


def _jetson(chip: Chip) -> list[Sensor]:
    """INA3221 rails of Jetson boards (Documentation/hwmon/ina3221.rst): in[123] mV × curr[123] mA.

    L4T 4's own files (``in_power0_input``, mW, under /sys/bus/i2c) are left out: those releases are at their end.
    """
    sensors = []
    totals = tuple(f"ina3221-{name}" for name in _JETSON_TOTALS)
    for n in (1, 2, 3):
        files = (f"in{n}_input", f"curr{n}_input")
        label = chip.label(f"in{n}_label")
        if not label or label == "NC" or not chip.files.issuperset(files):
            continue
        whole = label in _JETSON_TOTALS
        component = _JETSON_RAILS.get(label, "platform")
        meter = _meter(
            f"ina3221-{label}",
            component,
            label,
            "millivolts_milliamperes",
            *files,
            capacity=1.0 if component == "gpu" else float(chip.topology.total),
            max_watts=200.0,
            inside=() if whole else totals if component != "platform" else (*totals, NODE),
        )
        scope: Scope = "board" if whole else "part"
        sensors.append(meter._replace(device=replace(meter.device, scope=scope), whole=whole))
    return sensors


def _unknown(chip: Chip) -> list[Sensor]:
    """A chip that is not in the table: unless a label says more, it is shown within the node and never summed."""
    found: dict[str, tuple[Unit, str, str]] = {}
    for file in sorted(chip.files, reverse=True):  # an average replaces its gauge, an energy counter both
        if match := re.fullmatch(r"(power|energy)(\d+)_(input|average)", file):
            label = chip.label(f"{match[1]}{match[2]}_label")
            unit: Unit = "microjoules" if match[1] == "energy" else "microwatts"
            found[label or match[2]] = (unit, file, label)
    sensors = []
    for number, (unit, file, label) in sorted(found.items(), key=lambda item: item[1][1]):
        id_, name = f"{chip.name}-{'_'.join(number.split())}", f"{chip.name} {label}".strip()
        total = float(chip.topology.total)
        sensors.append(_meter(id_, "platform", name, unit, file, capacity=total, max_watts=20_000.0, inside=(NODE,)))
    return sensors


_CHIPS: Mapping[str, Callable[[Chip], list[Sensor]]] = {
    "power_meter": _acpi,
    "amdgpu": _amdgpu,
    "i915": _intel_gpu,
    "xe": _intel_gpu,
    "amd_energy": _amd_energy,
    "ina3221": _jetson,
}
