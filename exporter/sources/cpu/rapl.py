"""CPU, DRAM and platform joules from RAPL through the kernel's powercap tree (Documentation/power/powercap).

Faults of these counters are numbers 1 to 18 of docs/faults.md.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass

from ...host import Host, KeptFile, list_dir
from ...records import NODE, Component, Device, EnergyReading, Problem, Reading, Unavailable
from .apus import enclosing_cards
from .estimate import assumed_idle_share
from .mirrors import Mirrors
from .processor import Processor, read_processor
from .topology import Topology, read_topology

RESCAN_SECONDS = 60.0
"""How often to look for zones that were added, removed or renumbered (CPU hotplug, a reloaded module)."""

_ZONE = re.compile(r"intel-rapl(-[a-z]+)?((?::\d+)+)")
_PACKAGE = re.compile(r"package-(?P<package>\d+)(-die-(?P<die>\d+))?")


@dataclass(frozen=True, slots=True)
class _Domain:
    """The meaning of a zone's name. ``floor`` and ``default`` (W) bound `_max_watts`."""

    component: Component
    floor: float
    default: float


_DOMAINS = {
    "package": _Domain("cpu", 500.0, 2000.0),
    "core": _Domain("cpu", 500.0, 2000.0),
    "uncore": _Domain("cpu", 500.0, 2000.0),
    "dram": _Domain("dram", 200.0, 500.0),
    "psys": _Domain("platform", 1000.0, 5000.0),
}


@dataclass(frozen=True, slots=True)
class _Zone:
    device: Device
    energy: KeptFile
    wraps_at: float | None


@dataclass(frozen=True, slots=True)
class _Layout:
    """What a zone needs from the others: all ids, the platform's id (the first psys), the number of packages.

    ``mirrors`` maps the id of a zone that shows another one's register to that one, ``cards`` the number of a package
    to the id of the card whose meter includes it.
    """

    ids: frozenset[str]
    platform: str | None
    packages: int
    topology: Topology
    mirrors: Mapping[str, str]
    cards: Mapping[int, str]
    processor: Processor
    idle_share: tuple[float, float, float]


class RaplSource:
    """Reads every RAPL zone: Intel's and AMD's both appear as ``intel-rapl``.

    Nesting (powercap/powercap #3): a package includes its core and uncore but not DRAM; psys includes everything. The
    duplicate of a package under another control type (``intel-rapl-mmio``) counts only where the MSR zone is missing,
    and of several zones on one register one counts (`Mirrors`). A zone is identified by its name and its package's
    name, not by its number, so that it survives renumbering. AMD's core zone is the register of one core, so it is only
    shown.

    Wraps, resets and implausible jumps are handled by accounting: ``joules`` is the raw counter and ``wraps_at`` its
    range, None where the kernel does not report one.
    """

    name = "rapl"

    def __init__(self, host: Host) -> None:
        self._host = host
        self._zones: list[_Zone] = []
        self._scan_problems: list[Problem] = []
        self._scan_at = -math.inf
        self._processor: Processor | None = None
        self._mirrors = Mirrors(by_vendor=False)

    def read(self, now: float) -> Reading:
        """Read all zones; one that fails is reported as a problem. Raises `Unavailable` if none can be read."""
        if now >= self._scan_at:
            self._scan(now)
        meters: list[EnergyReading] = []
        problems = list(self._scan_problems)
        for zone in self._zones:
            try:
                joules = zone.energy.counter() / 1e6
            except Unavailable as error:
                problems.append(self._problem(error))
                if error.reason == "not_found":
                    self._scan_at = -math.inf
                continue
            meters.append(EnergyReading(zone.device, self._host.clock(), joules, zone.wraps_at))
        if not meters:
            self.close()
            raise Unavailable(*problems[0])
        if self._mirrors.observe(meters):
            self._scan(now)
            devices = {zone.device.id: zone.device for zone in self._zones}
            meters = [meter._replace(device=devices.get(meter.device.id, meter.device)) for meter in meters]
        return Reading(meters=tuple(meters), problems=tuple(problems))

    def close(self) -> None:
        """Close the files; the next read looks for zones again."""
        for zone in self._zones:
            zone.energy.close()
        self._zones = []
        self._scan_at = -math.inf

    def _scan(self, now: float) -> None:
        """Find and open all zones. Raises `Unavailable` if there is none."""
        self.close()
        self._scan_problems = []
        root = self._host.sys("class/powercap")
        names = self._zone_names(root)
        ids = _identities(names)
        if self._processor is None:
            self._processor = read_processor(self._host)
            self._mirrors = Mirrors(by_vendor=self._processor.one_counter_per_package)
        topology = read_topology(self._host)
        layout = _Layout(
            ids=frozenset(ids.values()),
            platform=min((id_ for id_ in ids.values() if _domain_of(id_) == "psys"), key=_natural, default=None),
            packages=sum(_domain_of(id_) == "package" for id_ in ids.values()),
            topology=topology,
            mirrors=self._mirrors.of(ids.values()),
            cards=enclosing_cards(self._host, topology),
            processor=self._processor,
            idle_share=assumed_idle_share(self._host),
        )
        for zone, id_ in ids.items():
            path = f"{root}/{zone}"
            try:
                energy = self._host.keep(f"{path}/energy_uj")
            except Unavailable as error:
                self._scan_problems.append(self._problem(error))
                continue
            device = self._device(path, id_, names[zone], layout)
            self._zones.append(_Zone(device, energy, self._wraps_at(path)))
        self._scan_at = now + RESCAN_SECONDS

    def _zone_names(self, root: str) -> dict[str, str]:
        """Zone directory → its ``name``, MSR zones first. Raises `Unavailable`, with the reason, if there is none."""
        try:
            zones = sorted((zone for zone in list_dir(root) if _ZONE.fullmatch(zone)), key=_zone_order)
        except Unavailable as error:
            if error.reason != "not_found":
                raise
            zones = []
        names: dict[str, str] = {}
        for zone in zones:
            try:
                label = self._host.text(f"{root}/{zone}/name")
            except Unavailable as error:
                if error.reason != "not_found":  # a dangling link is no zone
                    self._scan_problems.append(self._problem(error))
                continue
            if label:
                names[zone] = label
        if not names:
            if self._scan_problems:
                raise Unavailable(*self._scan_problems[0])
            if zones:
                raise Unavailable(
                    "not_found",
                    f"{root}: zones are listed but hidden: a container runtime masks /sys/devices/virtual/powercap",
                    "mount the host's /sys read-only at /host/sys and set --path.sysfs=/host/sys",
                )
            raise Unavailable(
                "not_found",
                f"{root}: no RAPL zone: a virtual machine, or a CPU or kernel without RAPL",
                "on bare metal: sudo modprobe -a intel_rapl_common intel_rapl_msr; in a virtual machine there is "
                "nothing to do: the estimate source models the CPU instead",
            )
        return names

    def _device(self, path: str, id_: str, label: str, layout: _Layout) -> Device:
        domain = _domain_of(id_)
        meaning = _DOMAINS.get(domain)
        if meaning is None:  # not in the table: shown, never summed
            total = float(layout.topology.total)
            return Device(id_, "platform", self.name, "measured", label, total, within=NODE, max_watts=5000.0)
        within = layout.platform if layout.platform != id_ else None
        capacity, socket = float(layout.topology.total), None
        package = _PACKAGE.fullmatch("package-" + id_.partition("-")[2].partition("@")[0])
        if package and domain != "psys":
            socket = int(package["package"])
            whole = id_ in layout.mirrors.values() or id_ in layout.mirrors
            die = int(package["die"]) if package["die"] and not whole else None
            capacity = layout.topology.capacity(socket, die, layout.packages)
            within = layout.mirrors.get(id_, layout.cards.get(socket, within) if domain == "package" else within)
            if domain in ("core", "uncore") and package[0] in layout.ids:
                within = package[0]
        if domain == "core" and layout.processor.one_counter_per_package:
            label, capacity = "one core of the package", 0.0
            within = within if package and package[0] in layout.ids else NODE
        return Device(
            id=id_,
            component=meaning.component,
            source=self.name,
            quality="measured",
            name=label,
            capacity=capacity,
            within=within,
            max_watts=self._max_watts(path, meaning),
            socket=socket,
            idle_share=layout.idle_share if domain == "package" else None,
        )

    def _max_watts(self, path: str, meaning: _Domain) -> float:
        """Watts above which a reading is implausible.

        Four times the highest limit of the zone (TDP or a power limit), because turbo and PL2 exceed TDP by a factor of
        up to about 2.5 and a tick may be short; at least the domain's floor, since a capped machine has a low limit.
        A limit of 0 (none set) or above the default (4096 W is "off") is ignored; without any other limit the result
        is the default, which no such hardware reaches.
        """
        limits = []
        for constraint in range(3):
            for limit in ("max_power_uw", "power_limit_uw"):
                try:
                    limits.append(self._host.counter(f"{path}/constraint_{constraint}_{limit}") / 1e6)
                except Unavailable:
                    continue  # optional: AMD and most subzones have none
        plausible = [watts for watts in limits if 1.0 <= watts <= meaning.default]
        return max(meaning.floor, 4.0 * max(plausible)) if plausible else meaning.default

    def _wraps_at(self, path: str) -> float | None:
        try:
            return self._host.counter(f"{path}/max_energy_range_uj") / 1e6 or None
        except Unavailable:
            return None  # without a range a decrease counts as a reset

    def _problem(self, error: Unavailable) -> Problem:
        if error.reason != "permission":
            return Problem(error.reason, error.message, error.fix)
        files = self._host.sys("class/powercap/intel-rapl*:*/energy_uj")
        return Problem(
            "permission",
            f"{error.message}: energy_uj is readable by root only since Linux 5.10 (PLATYPUS, CVE-2020-8694)",
            "run as root (uid 0 needs no capabilities), or let a group of this user read it: "
            f"sudo sh -c 'chgrp GROUP {files} && chmod g+r {files}'; permanently: the udev rule in docs/permissions.md",
        )


def _identities(names: dict[str, str]) -> dict[str, str]:
    """Zone directory → unique device id; one of another control type that duplicates an MSR zone is left out."""
    ids: dict[str, str] = {}
    for zone, label in names.items():
        parent = names.get(zone.rpartition(":")[0], "")
        id_ = label
        if label == "psys":
            id_ = "psys-0"
        elif not _PACKAGE.fullmatch(label) and _PACKAGE.fullmatch(parent):
            id_ = f"{label}-{parent.removeprefix('package-')}"
        if id_ in ids.values():
            if zone.startswith("intel-rapl-"):
                continue
            id_ = f"{id_}@{zone}"
        ids[zone] = id_
    return ids


def _domain_of(id_: str) -> str:
    return id_.partition("-")[0]


def _zone_order(zone: str) -> tuple[bool, list[int]]:
    return zone.startswith("intel-rapl-"), [int(number) for number in zone.split(":")[1:]]


def _natural(id_: str) -> list[int]:
    return [int(number) for number in re.findall(r"\d+", id_)]
