"""What a sensor measures by its chip and label, for chips without a rule of their own, and what the operator says.

A label is trusted where it names a whole component. A rail of a component (``Chip 0 Vdd``) is not one.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Literal, NamedTuple

from ...records import NODE, Component, Device
from ..cpu.topology import Topology

Meaning = Literal["cpu", "dram", "gpu", "platform", "none"]
"""A component whose meter the sensor is, ``platform`` for the whole machine's; ``none``: shown, never summed."""

Components = Mapping[str, Meaning]
"""The operator's ``CHIP/LABEL`` → meaning; the name of the file's channel (``power1``) where there is no label."""


class _Rule(NamedTuple):
    chip: re.Pattern[str]
    label: re.Pattern[str]
    meaning: Meaning


def _rule(chip: str, label: str, meaning: Meaning) -> _Rule:
    return _Rule(re.compile(chip), re.compile(label, re.IGNORECASE), meaning)


_RULES = (
    # OPAL's sensors of POWER9 (Documentation/hwmon/ibmpowernv.rst; skiboot hw/occ-sensor.c): a chip is a socket.
    _rule("ibmpowernv", r"Chip (?P<socket>\d+)", "cpu"),
    _rule("ibmpowernv", r"Chip \d+ Memory|Memory", "dram"),
    _rule("ibmpowernv", r"System", "platform"),
    # Documentation/hwmon/fam15h_power.rst: one sensor without a label, the processor's.
    _rule("fam15h_power", r"power1", "cpu"),
    # HSMP's socket power (drivers/platform/x86/amd/hsmp/hwmon.c), one chip per socket, no label.
    _rule("amd_hsmp_hwmon", r"power1", "cpu"),
    # Documentation/hwmon/smpro-hwmon.rst: the cores' regulator; SoC and RCA regulators feed the rest of the socket.
    _rule("smpro.*", r"Core VRD power", "cpu"),
    # Ampere Altra: apm_xgene and altra_hwmon have "CPU power" beside "IO power" (kepler#485); others say the same.
    _rule(".*", r"(CPU|Processor)[ _]?(?P<socket>\d*)([ _](package|socket))?[ _]power([ _]\d+)?", "cpu"),
    _rule(".*", r"(Socket|Package)[ _]?(?P<socket>\d+)[ _]power", "cpu"),
    _rule(".*", r"(DRAM|DIMM|Memory)[ _]?\d*([ _]VRD\d*)?[ _]power([ _]\d+)?", "dram"),
    _rule(".*", r"(Total[ _])?System([ _]Total)?[ _]power", "platform"),
)
"""The first rule that matches both names decides; patterns match the whole name."""

_SUPPLIES = re.compile(r"corsair.*|.*psu.*|pmbus|.*adapter.*|BAT\d*|ucsi.*", re.IGNORECASE)
"""Chips that measure a supply: its rails feed more than what they are named after."""


class Named(NamedTuple):
    """What a sensor is called: ``label`` is its label, or its channel where it has none."""

    chip: str
    label: str

    @property
    def key(self) -> str:
        """``CHIP/LABEL``, as the operator writes it."""
        return f"{self.chip}/{self.label}"


class Placed(NamedTuple):
    """A device with its component, and patterns of the ids that would include it."""

    device: Device
    inside: tuple[str, ...]
    whole: bool


def meaning_of(named: Named) -> tuple[Meaning, int | None] | None:
    """What a sensor measures by its label, and of which socket; None if the label does not say."""
    if _SUPPLIES.fullmatch(named.chip):
        return None
    for rule in _RULES:
        if rule.chip.fullmatch(named.chip) and (found := rule.label.fullmatch(named.label)):
            socket = found.groupdict().get("socket")
            return rule.meaning, int(socket) if socket else None
    return None


def place(device: Device, meaning: Meaning, socket: int | None, meters: int, topology: Topology) -> Placed:
    """Make a device the meter of a component; ``meters`` is how many there are of its kind on the machine.

    A RAPL meter of the same component includes it: two drivers that measure one thing count once.
    """
    if meaning == "none":
        return Placed(replace(device, component="platform", within=NODE), (NODE,), whole=False)
    total = float(topology.total)
    component: Component = meaning
    if meaning == "platform":
        placed = replace(device, component=component, capacity=total, max_watts=20_000.0, scope="node")
        return Placed(placed, (), whole=True)
    if meaning == "gpu":
        return Placed(replace(device, component=component, capacity=1.0), (), whole=False)
    package = None if socket is None else topology.package_of_socket(socket)
    if package not in topology.packages:
        package = None
    capacity = total / meters if package is None else topology.capacity(package)
    kind = "package" if meaning == "cpu" else "dram"
    inside = (f"{kind}-{package}", f"{kind}-{package}-die-*") if package is not None else ()
    placed = replace(device, component=component, capacity=capacity, socket=package, max_watts=5000.0)
    return Placed(placed, (*inside, f"{kind}-*"), whole=False)
