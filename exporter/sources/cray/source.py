"""Energy of HPE Cray nodes and of what is in them, from the counters of the node's controller."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace

from ...host import Host, KeptFile, list_dir, parse_counter
from ...records import Component, Device, EnergyReading, PowerReading, Problem, Reading, Unavailable
from ..cpu.estimate import assumed_idle_share
from ..cpu.topology import read_topology

RESCAN_SECONDS = 60.0
"""How often to look for files that were added or removed."""

_ENERGY = re.compile(r"(?:(?P<part>(?P<kind>cpu|memory|accel)\d*)_)?energy")
_COMPONENTS: Mapping[str | None, Component] = {None: "platform", "cpu": "cpu", "memory": "dram", "accel": "gpu"}
_NAMES: Mapping[str | None, str] = {None: "node", "cpu": "processors", "memory": "memory", "accel": "accelerator"}

_MAX_WATTS: Mapping[Component, float] = {"platform": 20_000.0, "cpu": 4000.0, "dram": 2000.0, "gpu": 2500.0}
"""Watts above which a reading is implausible."""

_TRIES = 4
"""The counters are updated ten times a second and a round of reads takes a millisecond: two tries are enough."""

_FROZEN_SECONDS = 10.0
_MIN_ACTIVE_WATTS = 5.0
"""Counters that stand still for that long, the node's or one that has a power file of so much, are not updated."""

_ABSENT = "nothing to do on machines that are not HPE Cray nodes; in a container, mount the host's /sys read-only"
_CONTROLLER = "the node's controller updates them: look at its log, or restart it"


@dataclass(slots=True)
class _Meter:
    """One energy file, and the power file beside it.

    ``offset`` continues the counter when the controller begins again; ``moved_at`` is when it last advanced.
    """

    device: Device
    energy: KeptFile
    power: KeptFile | None
    offset: float = 0.0
    joules: float | None = None
    moved_at: float = 0.0


class CraySource:
    """Reads ``/sys/cray/pm_counters`` of HPE Cray nodes (docs-csm, "User Access to Compute Node Power Data").

    ``energy`` is the node's and includes ``cpu_energy``, ``memory_energy`` and each ``accelN_energy``. All are measured
    before the voltage regulators, so they exceed the counters on the chips. Where RAPL, or the driver of the cards,
    measures a component, that counts, because its users are known (N is not the number of a card), and what the
    regulators lose is in ``other``; the file of the component is shown.

    A round of reads counts only if ``freshness`` and ``startup`` are the same before and after it. When ``startup``
    changes, the controller has begun to count again. ``generation`` counts changes of ``power_cap`` and says nothing
    about energy.
    """

    name = "cray"

    def __init__(self, host: Host) -> None:
        self._host = host
        self._root = host.sys("cray/pm_counters")
        self._names: list[str] = []
        self._meters: list[_Meter] = []
        self._stamps: dict[str, KeptFile] = {}
        self._startup = b""
        self._freshness = b""
        self._fresh_at = 0.0
        self._scan_at = -math.inf

    def read(self, now: float) -> Reading:
        """Read all counters of one update. Raises `Unavailable` if there are none, or if nothing updates them."""
        if now >= self._scan_at:
            self._scan(now)
        found, at = self._round()
        if at - self._fresh_at >= _FROZEN_SECONDS:
            text = f"{self._root}: freshness has not changed for {at - self._fresh_at:.0f} s"
            raise Unavailable("driver", text, _CONTROLLER)
        meters: list[EnergyReading | PowerReading] = []
        problems: list[Problem] = []
        for meter, value in zip(self._meters, found, strict=True):
            if isinstance(value, Unavailable):
                problems.append(Problem(value.reason, value.message, value.fix))
                if value.reason == "not_found":
                    self._scan_at = -math.inf
                continue
            meters.append(_reading(meter, *value, at, problems))
        if problems and not meters:
            self.close()
            raise Unavailable(*problems[0])
        return Reading(meters=tuple(meters), problems=tuple(problems))

    def close(self) -> None:
        """Close the files; the next read looks for them again."""
        for meter in self._meters:
            meter.energy.close()
            if meter.power is not None:
                meter.power.close()
        for stamp in self._stamps.values():
            stamp.close()
        self._names, self._stamps, self._scan_at = [], {}, -math.inf

    # --- finding the files --------------------------------------------------------------------------

    def _scan(self, now: float) -> None:
        """Find and open all counters. Raises `Unavailable` if there is none."""
        try:
            names = [name for name in list_dir(self._root) if not name.startswith(".")]
        except Unavailable as error:
            raise error if error.reason != "not_found" else self._absent() from None
        if not any(map(_ENERGY.fullmatch, names)):
            raise self._absent()
        if names != self._names:
            self.close()
            before = {meter.device.id: meter for meter in self._meters}
            stamps = [name for name in ("freshness", "startup") if name in names]
            self._stamps = {name: self._host.keep(f"{self._root}/{name}") for name in stamps}
            self._meters = [self._meter(name, names, before) for name in names if _ENERGY.fullmatch(name)]
            self._names = names
        self._scan_at = now + RESCAN_SECONDS

    def _absent(self) -> Unavailable:
        return Unavailable("not_found", f"{self._root}: no energy counters of an HPE Cray node", _ABSENT)

    def _meter(self, name: str, names: list[str], before: Mapping[str, _Meter]) -> _Meter:
        device = self._device(name, names)
        beside = name.removesuffix("energy") + "power"
        power = self._host.keep(f"{self._root}/{beside}") if beside in names else None
        meter = _Meter(device, self._host.keep(f"{self._root}/{name}"), power, moved_at=self._host.clock())
        if known := before.get(device.id):
            meter.device, meter.offset, meter.joules = replace(device, method=known.device.method), known.offset, None
        return meter

    def _device(self, name: str, names: list[str]) -> Device:
        found = _ENERGY.fullmatch(name)
        assert found is not None
        kind, part = found["kind"], found["part"]
        component = _COMPONENTS[kind]
        within = "cray-node" if kind is not None and "energy" in names else None
        if kind is not None and part != kind and f"{kind}_energy" in names:
            within = f"cray-{kind}"  # there is a file of all of them
        return Device(
            id=f"cray-{part or 'node'}",
            component=component,
            source=self.name,
            quality="measured",
            name=f"HPE Cray {_NAMES[kind]}{(part or '').removeprefix(kind or '')}",
            capacity=1.0 if component == "gpu" else float(read_topology(self._host).total),
            within=within,
            max_watts=_MAX_WATTS[component],
            idle_share=assumed_idle_share(self._host) if component == "cpu" else None,
            scope="node" if kind is None else "part",
            fallback=kind is not None,
        )

    # --- reading them -------------------------------------------------------------------------------

    def _round(self) -> tuple[list[tuple[float, float | None] | Unavailable], float]:
        """Joules and watts of each meter, or why not, as of one update; and the boot time. Raises `Unavailable`."""
        for _ in range(_TRIES):
            before = self._stamp()
            found = [_values(meter) for meter in self._meters]
            at = self._host.clock()
            if self._stamp() == before:
                break
        else:
            text = f"{self._root}: the counters were updated during each of {_TRIES} rounds of reads"
            raise Unavailable("timeout", text, "the next reading has what this one lacks; look for a stalled machine")
        freshness, startup = before
        if startup != self._startup:
            if self._startup:
                for meter, value in zip(self._meters, found, strict=True):
                    if meter.joules is not None and not isinstance(value, Unavailable):
                        meter.offset, meter.moved_at = meter.joules - value[0], at
            self._startup = startup
        if freshness != self._freshness or "freshness" not in self._stamps:
            self._freshness, self._fresh_at = freshness, at
        return found, at

    def _stamp(self) -> tuple[bytes, bytes]:
        """``freshness`` and ``startup``; empty where the controller has none. Raises `Unavailable`."""
        freshness, startup = (
            self._stamps[name].read(64).split(b" ")[0].strip() if name in self._stamps else b""
            for name in ("freshness", "startup")
        )
        return freshness, startup


def _values(meter: _Meter) -> tuple[float, float | None] | Unavailable:
    try:
        joules = _value(meter.energy, b"J")
    except Unavailable as error:
        return error
    try:
        return joules, None if meter.power is None else _value(meter.power, b"W")
    except Unavailable:
        return joules, None


def _value(file: KeptFile, unit: bytes) -> float:
    """The number in ``3148743 J 1700000000000000 us``. Raises `Unavailable`, also for another unit."""
    raw = file.read(128)
    words = raw.split()
    if len(words) > 1 and words[1] != unit:
        raise Unavailable("implausible", f"{file.path}: not in {unit.decode()}: {raw[:64]!r}")
    return float(parse_counter(words[0] if words else b"", file.path))


def _reading(
    meter: _Meter, joules: float, watts: float | None, at: float, problems: list[Problem]
) -> EnergyReading | PowerReading:
    """The counter, or its power file if the counter stands still although power is drawn."""
    total = joules + meter.offset
    if total != meter.joules:
        meter.joules, meter.moved_at = total, at
        if meter.device.method != "energy_counter":
            meter.device = replace(meter.device, method="energy_counter")
    elif watts is not None and watts >= _MIN_ACTIVE_WATTS and at - meter.moved_at >= _FROZEN_SECONDS:
        text = f"{meter.energy.path}: does not advance while {watts:g} W are drawn: the power is integrated instead"
        problems.append(Problem("implausible", text, _CONTROLLER))
        meter.device = replace(meter.device, method="power_integrated")
        return PowerReading(meter.device, at, watts)
    return EnergyReading(meter.device, at, total, None, watts)
