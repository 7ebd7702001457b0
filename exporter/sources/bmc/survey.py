"""Which resources of a BMC are of this machine: its system, that system's chassis, and what measures energy in it."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from ...records import Problem, Unavailable
from .session import ROOT
from .values import link, links, text

Get = Callable[[str], Mapping[str, Any]]
Resource = Mapping[str, Any]

_MAX_SUPPLIES = 16
_MAX_BOARDS = 64
_MAX_FAILED = 3

_PART_OF_A_BOARD = re.compile(r"HGX|GPU|NVSwitch|Retimer|ERoT|FPGA|PCIeSwitch|HMC|Baseboard|CPU_\d|Cpu_\d|DIMM")
"""Ids of chassis and systems that are parts of a baseboard with GPUs (NVIDIA's HGX), each a chassis of its own."""

_GPU = re.compile(r"(?:HGX_)?GPU_(?:SXM_)?\d+")
_ENERGY = re.compile(r"energy", re.IGNORECASE)

_PARTS = ("Component", "Module", "Card", "Zone", "IPBasedDrive", "Expansion", "Cartridge", "StorageEnclosure")
"""ChassisType of what is in a server."""

_OUTER = ("Rack", "RackGroup", "Enclosure", "Row", "Pod")
"""ChassisType of what several servers are in; of one without another chassis it is said nevertheless."""


@dataclass(frozen=True, slots=True)
class Survey:
    """Resources by path, as last read. ``system`` and ``chassis`` are those of this machine.

    ``environment``, ``power`` and ``energy_sensors`` are paths of the chassis's, "" without; ``supplies`` those of the
    metrics of its power supplies, ``gpus`` the EnvironmentMetrics of the GPUs by the id of their chassis. ``unread``
    says what could not be read.
    """

    system: Resource
    chassis: Resource
    resources: dict[str, Resource]
    environment: str = ""
    power: str = ""
    supplies: tuple[str, ...] = ()
    energy_sensors: tuple[str, ...] = ()
    gpus: Mapping[str, str] = field(default_factory=dict)
    unread: tuple[Problem, ...] = ()

    @property
    def name(self) -> str:
        """Maker and model of the machine."""
        return " ".join(filter(None, (text(self.system, "Manufacturer"), text(self.system, "Model"))))

    def at(self, path: str) -> Resource:
        """A resource; empty if there is none, or it could not be read."""
        return self.resources.get(path, {})


def survey(get: Get, system_id: str = "") -> Survey:
    """Read everything once. ``system_id`` names the system where a BMC has several. Raises `Unavailable`.

    A resource that the BMC lists and does not have (404) is left out, as is one that it fails to read: a board with a
    broken card is no reason to know nothing of the machine.
    """
    attempts = _Attempts(get)
    root = get(ROOT)
    systems = _members(attempts, link(root, "Systems"))
    system = _system(systems, system_id)
    chassis = _chassis(_all_chassis(attempts, link(root, "Chassis"), system), system)
    found: dict[str, Resource] = {}

    def read(path: str, *, own: bool = True) -> str:
        """The path of a resource, "" if there is none."""
        if path and path not in found:
            resource = attempts.get(path, own=own)
            if resource is None:
                return ""
            found[path] = resource
        return path

    of_machine = chassis[0]
    supplies = []
    subsystem = read(link(of_machine, "PowerSubsystem"))
    collection = read(link(found.get(subsystem), "PowerSupplies"))
    for supply in links(found.get(collection), "Members")[:_MAX_SUPPLIES]:
        if read(supply) and (metrics := link(found[supply], "Metrics")) and read(metrics):
            found[metrics] = {**found[metrics], "_supply": found[supply]}
            supplies.append(metrics)
    environment = read(link(of_machine, "EnvironmentMetrics"))
    sensors = read(link(of_machine, "Sensors")) if not environment else ""
    listed = [path for path in links(found.get(sensors), "Members") if _ENERGY.search(_last(path))]
    return Survey(
        system,
        of_machine,
        found,
        environment,
        read(link(of_machine, "Power")),
        tuple(supplies),
        tuple([path for path in listed[:_MAX_SUPPLIES] if read(path)]),
        {id_: path for id_, path in _gpus(chassis[1:]) if read(path, own=False)},
        tuple(attempts.failed),
    )


class _Attempts:
    """Reads resources, some of which may fail: those of this machine with an error, others in any way, a few times."""

    def __init__(self, get: Get) -> None:
        self.must_get = get
        self.failed: list[Problem] = []

    def get(self, path: str, *, own: bool = True) -> Resource | None:
        """A resource, None if there is none or it cannot be read. Raises `Unavailable` if the BMC seems to fail."""
        try:
            return self.must_get(path)
        except Unavailable as error:
            if error.reason != "not_found":
                self.failed.append(Problem(error.reason, error.message, error.fix))
                if (own and error.reason in ("timeout", "permission")) or len(self.failed) > _MAX_FAILED:
                    raise
            return None


def _all_chassis(get: _Attempts, collection: str, system: Resource) -> list[Resource]:
    """Those that the system names and those of GPUs; all, where it names none: a baseboard has dozens."""
    own = links(system, "Links", "Chassis")
    if not own:
        return _members(get, collection)
    listed = links(get.must_get(collection), "Members") if collection else []
    gpus = [path for path in listed if path not in own and _GPU.fullmatch(_last(path))]
    return _read(get, own) + _read(get, gpus, own=False)


def _last(path: str) -> str:
    return path.rstrip("/").rpartition("/")[2]


def _members(get: _Attempts, collection: str) -> list[Resource]:
    return _read(get, links(get.must_get(collection), "Members")) if collection else []


def _read(get: _Attempts, paths: list[str], *, own: bool = True) -> list[Resource]:
    resources = [(path, get.get(path, own=own)) for path in paths[:_MAX_BOARDS]]
    return [{**resource, "@odata.id": path} for path, resource in resources if resource is not None]


def _system(systems: list[Resource], wanted: str) -> Resource:
    """The machine itself; of a BMC of several machines, the one that the operator names."""
    if wanted:
        found = [system for system in systems if text(system, "Id") == wanted]
    else:
        found = [system for system in systems if not _PART_OF_A_BOARD.search(text(system, "Id"))]
    ids = ", ".join(sorted(text(system, "Id") or "?" for system in systems))
    if wanted and not found:
        raise Unavailable("not_found", f"the BMC has no system {wanted}", f"set --bmc.redfish.system to one of {ids}")
    if len(found) > 1:
        raise Unavailable(
            "not_found", f"the BMC has several systems: {ids}", "say in --bmc.redfish.system which one is this machine"
        )
    return found[0] if found else {}


def _chassis(every: list[Resource], system: Resource) -> list[Resource]:
    """The chassis of the machine, followed by the others. Raises `Unavailable` without one.

    Of those that the system names, the outermost one that has a meter and holds this machine alone: no rack, and no
    enclosure of several blades. Where it names none, the outermost that is no part of a board.
    """
    own = set(links(system, "Links", "Chassis"))
    named = [chassis for chassis in every if link(chassis) in own]
    whole = [chassis for chassis in (named or every) if not _is_part(chassis)] or named
    whole = [chassis for chassis in whole if not _holds_several(chassis, system)] or whole
    ids = {link(chassis) for chassis in whole}
    outermost = [chassis for chassis in whole if link(chassis, "Links", "ContainedBy") not in ids]
    ordered = sorted(outermost, key=lambda chassis: not _is_metered(chassis))
    if not ordered:
        raise Unavailable("not_found", "the BMC lists no chassis of this machine", "nothing to do: it has no meter")
    return [ordered[0], *(chassis for chassis in every if chassis is not ordered[0])]


def _is_part(chassis: Resource) -> bool:
    return text(chassis, "ChassisType") in _PARTS or bool(_PART_OF_A_BOARD.search(text(chassis, "Id")))


def _holds_several(chassis: Resource, system: Resource) -> bool:
    """Whether it is a rack, or an enclosure of machines; some systems name it beside the chassis of their own."""
    systems = {path for path in links(chassis, "Links", "ComputerSystems") if not _PART_OF_A_BOARD.search(_last(path))}
    return text(chassis, "ChassisType") in _OUTER or bool(systems - {link(system)})


def _is_metered(chassis: Resource) -> bool:
    return any(link(chassis, name) for name in ("EnvironmentMetrics", "PowerSubsystem", "Power"))


def _gpus(chassis: list[Resource]) -> Iterator[tuple[str, str]]:
    for one in chassis:
        id_ = text(one, "Id")
        if _GPU.fullmatch(id_) and (path := link(one, "EnvironmentMetrics")):
            yield id_, path
