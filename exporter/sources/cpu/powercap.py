"""Power and energy of powercap zones other than RAPL's: Arm's SCMI, and control types that are not known yet."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace

from ...host import Host, KeptFile, list_dir
from ...records import NODE, Device, EnergyReading, PowerReading, Problem, Reading, Unavailable
from ..hwmon.labels import Components, Meaning, Named, meaning_of, place
from .estimate import assumed_idle_share
from .topology import Topology, read_topology

RESCAN_SECONDS = 60.0

_ZONE = re.compile(r"(?P<type>[^:]+)(?P<numbers>(?::\d+)+)")

_OTHERS = re.compile(r"intel-rapl.*|dtpm|idle-injection")
"""RAPL's have a source of their own. DTPM's power is the kernel's energy model, not a meter
(Documentation/power/powercap/dtpm.rst); idle injection has none."""

_MAX_WATTS = 5000.0


@dataclass(frozen=True, slots=True)
class _Zone:
    device: Device
    file: KeptFile
    wraps_at: float | None


class PowercapSource:
    """Reads each zone's ``energy_uj`` or, without one, its ``power_uw``, which is integrated.

    SCMI's zones have only ``power_uw``, the firmware's average over its last interval
    (drivers/powercap/arm_scmi_powercap.c has no get_energy_uj). The firmware names them: a name that says so makes a
    zone the meter of a component, as the operator may (``arm-scmi/NAME=cpu``); all others are shown. A zone includes
    those below it. It is a fallback, because hwmon may have the same component.
    """

    name = "powercap"

    def __init__(self, host: Host, components: Components | None = None) -> None:
        self._host = host
        self._components = components or {}
        self._zones: list[_Zone] = []
        self._scan_problems: list[Problem] = []
        self._scan_at = -math.inf

    def read(self, now: float) -> Reading:
        """Read all zones; one that fails is reported as a problem. Raises `Unavailable` if none can be read."""
        if now >= self._scan_at:
            self._scan(now)
        meters: list[EnergyReading | PowerReading] = []
        problems = list(self._scan_problems)
        for zone in self._zones:
            try:
                value = zone.file.counter() / 1e6
            except Unavailable as error:
                problems.append(Problem(error.reason, error.message, error.fix))
                if error.reason == "not_found":
                    self._scan_at = -math.inf
                continue
            at = self._host.clock()
            if zone.device.method == "energy_counter":
                meters.append(EnergyReading(zone.device, at, value, zone.wraps_at))
            else:
                meters.append(PowerReading(zone.device, at, value))
        if not meters:
            self.close()
            raise Unavailable(*problems[0])
        return Reading(meters=tuple(meters), problems=tuple(problems))

    def close(self) -> None:
        """Close the files; the next read looks for zones again."""
        for zone in self._zones:
            zone.file.close()
        self._zones, self._scan_at = [], -math.inf

    def _scan(self, now: float) -> None:
        """Find and open all zones. Raises `Unavailable` if there is none."""
        self.close()
        self._scan_problems = []
        root = self._host.sys("class/powercap")
        labels = self._labels(root)
        ids = _identities(labels)
        topology = read_topology(self._host)
        for zone, label in labels.items():
            try:
                opened = self._open(f"{root}/{zone}")
            except Unavailable as error:
                self._scan_problems.append(Problem(error.reason, error.message, error.fix))
                continue
            if opened is None:
                continue
            file, method, wraps_at = opened
            outer = ids.get(zone.rpartition(":")[0])
            device = self._device(zone, ids[zone], label, outer, topology)
            self._zones.append(_Zone(replace(device, method=method), file, wraps_at))
        if not self._zones:
            if self._scan_problems:
                raise Unavailable(*self._scan_problems[0])
            raise Unavailable(
                "not_found",
                f"{root}: no zone beside RAPL's that measures anything",
                "nothing to do on most machines; on an Arm server with SCMI: sudo modprobe arm_scmi_powercap",
            )
        self._scan_at = now + RESCAN_SECONDS

    def _labels(self, root: str) -> dict[str, str]:
        """Zone directory → its name; the outer ones first."""
        try:
            zones = list_dir(root)
        except Unavailable as error:
            if error.reason != "not_found":
                raise
            zones = []
        labels = {}
        for zone in sorted(zones, key=lambda each: (each.count(":"), each)):
            found = _ZONE.fullmatch(zone)
            if found and not _OTHERS.fullmatch(found["type"]):
                try:
                    labels[zone] = self._host.text(f"{root}/{zone}/name")
                except Unavailable:
                    continue  # a dangling link
        return labels

    def _open(self, path: str) -> tuple[KeptFile, str, float | None] | None:
        """Its file, how joules are obtained, and its range; None for a zone that only limits. Raises `Unavailable`."""
        for file, method in (("energy_uj", "energy_counter"), ("power_uw", "power_integrated")):
            try:
                kept = self._host.keep(f"{path}/{file}")
            except Unavailable as error:
                if error.reason != "not_found":
                    raise
                continue
            try:
                return kept, method, self._host.counter(f"{path}/max_energy_range_uj") / 1e6 or None
            except Unavailable:
                return kept, method, None
        return None

    def _device(self, zone: str, id_: str, label: str, outer: str | None, topology: Topology) -> Device:
        named = Named(zone.partition(":")[0], label)
        total = float(topology.total)
        name = f"{named.chip} {label}".strip()  # as hwmon's sensors are called
        device = Device(id_, "platform", self.name, "measured", name, total, within=NODE, max_watts=_MAX_WATTS)
        chosen = self._components.get(named.key)
        ruled = meaning_of(named)
        meaning: tuple[Meaning, int | None] | None = ruled if chosen is None else (chosen, ruled[1] if ruled else None)
        if meaning is None or meaning[0] == "none":
            return replace(device, within=outer or NODE, scope="part")
        placed = place(replace(device, within=outer), *meaning, 1, topology).device
        if placed.component == "platform":
            return placed
        idle_share = assumed_idle_share(self._host) if placed.component == "cpu" else None
        return replace(placed, idle_share=idle_share, fallback=True)


def _identities(labels: Mapping[str, str]) -> dict[str, str]:
    """Zone directory → unique device id, from its name where no other zone has it."""
    names = list(labels.values())
    return {
        zone: f"powercap-{'_'.join(label.split())}" + (f"@{zone}" if names.count(label) > 1 else "")
        for zone, label in labels.items()
    }
