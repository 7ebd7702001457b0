"""Divide one tick's joules among workloads: pure arithmetic in which every joule appears exactly once."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

from ..records import (
    NODE,
    Allocation,
    Component,
    CpuUse,
    Device,
    GpuUse,
    GroupKey,
    Mode,
    Place,
    Scope,
    UnattributedReason,
    Workload,
)
from .gpu_claims import Claims

CpuIdle = Literal["node", "proportional"]
CpuMethod = Literal["time", "learned"]

_LEAST_BUSY_SECONDS = 1e-9
"""The kernel's clocks count nanoseconds; less than one is rounding, not work."""


class Energy(NamedTuple):
    """Joules of one device in a tick: ``active + idle + gap``. ``gap`` covers time for which no usage is known."""

    device: Device
    active: float
    idle: float
    gap: float = 0.0

    @property
    def joules(self) -> float:
        """All joules of the device in the tick."""
        return self.active + self.idle + self.gap


class Rate(NamedTuple):
    """Joules per busy CPU second of weight 1, of one component in one tick."""

    component: Component
    active: float
    idle: float


class GpuCharge(NamedTuple):
    """Joules of one device, charged to one of the processes that hold it.

    ``held`` is its share of the device, with idle joules; 0.0 with active ones.
    """

    use: GpuUse
    mode: Mode
    joules: float
    held: float = 0.0


class PlaceCharge(NamedTuple):
    """Joules of one device, charged to a container it is allocated to and that has no known process on it.

    ``held`` as in `GpuCharge`.
    """

    device: str
    place: Place
    mode: Mode
    joules: float
    held: float = 0.0


@dataclass(frozen=True, slots=True)
class Shares:
    """One tick's division. CPU and DRAM are rates: a workload that was busy for ``s`` seconds owes ``s × rate``.

    ``cpu_weights`` multiply the seconds of a cgroup; those without one have weight 1. ``unattributed`` holds what no
    workload owes, by component and reason.
    """

    cpu: tuple[Rate, ...]
    gpu: tuple[GpuCharge, ...]
    places: tuple[PlaceCharge, ...] = ()
    unattributed: Mapping[tuple[Component, UnattributedReason], float] = field(default_factory=dict)
    cpu_weights: Mapping[GroupKey, float] = field(default_factory=dict)


def split_idle(device: Device, joules: float, seconds: float, idle_watts: float | None) -> Energy:
    """Separate a device's active joules from its idle ones: ``active = max(0, ΔE − idle·Δt)``.

    Unlike scaling power by utilisation, this charges a workload the same joules whether other workloads run beside it
    or not. Unknown idle watts make everything active.
    """
    idle = min(joules, (idle_watts or 0.0) * seconds)
    return Energy(device, joules - idle, idle)


def countable(devices: Iterable[Device]) -> list[Device]:
    """Devices whose joules may be summed: those not within another one, except within the platform's meter.

    A fallback only where no other device of its component may be.
    """
    known = {device.id: device for device in devices}
    outermost = [
        device for device in known.values() if device.component != "platform" and not _inside_component(device, known)
    ]
    metered = {device.component for device in outermost if not device.fallback}
    return [device for device in outermost if not (device.fallback and device.component in metered)]


_OUTERMOST_FIRST: tuple[Scope, ...] = ("outlet", "supply", "node", "board")

_COARSE_JOULES = 36_000.0
"""A counter of longer steps (0.01 kWh is a minute at 600 W) is used only where there is no other meter."""


def platform_choices(devices: Iterable[Device]) -> list[list[Device]]:
    """Ways to measure the whole machine once, the preferred first (docs/containment.md).

    Several outermost meters would measure the same power, so each is a choice of its own; where each socket's module
    has its meter, the first ones of each socket are one choice. A meter within another one is the last choice of its
    scope. The outermost scope comes first; of the same scope a counter before a gauge, and the one that is read more
    often.
    """
    known = [device for device in devices if device.component == "platform" and device.scope != "part"]
    ids = {device.id for device in known}
    outermost = [device for device in known if device.within is None]
    by_socket: dict[int, Device] = {}
    for device in outermost:
        if device.socket is not None:
            by_socket.setdefault(device.socket, device)
    inner = [device for device in known if device.within in ids]
    choices = [
        *([list(by_socket.values())] if by_socket else []),
        *([device] for device in outermost if device.socket is None),
        *([device] for device in inner),
    ]
    return sorted(choices, key=lambda choice: _rank(choice[0]))


def _rank(device: Device) -> tuple[bool, int, bool, float]:
    return (
        device.step_joules > _COARSE_JOULES,
        _OUTERMOST_FIRST.index(device.scope),
        device.scope != "board" and device.method == "power_integrated",
        device.period_seconds,
    )


def _inside_component(device: Device, known: Mapping[str, Device]) -> bool:
    """Whether a meter other than a platform's includes this device, or it is only shown.

    An enclosing id that is unknown is ignored.
    """
    if device.within == NODE:
        return True
    seen = {device.id}
    while device.within is not None and device.within in known and device.within not in seen:
        device = known[device.within]
        seen.add(device.id)
        if device.component != "platform":
            return True
    return False


def share(
    energies: Sequence[Energy],
    cpu: CpuUse | None,
    gpu_uses: Sequence[GpuUse],
    cpu_idle: CpuIdle = "node",
    allocations: Sequence[Allocation] = (),
    owners: Mapping[GroupKey, Workload] | None = None,
    cpu_weights: Mapping[GroupKey, float] | None = None,
    reserved: frozenset[Place] = frozenset(),
) -> Shares:
    """Divide the joules of countable devices.

    CPU and DRAM: active joules by busy CPU seconds, times the weight in ``cpu_weights`` (1 where there is none); idle
    joules stay with the node, or are divided the same way with ``proportional``. GPU: active joules by GPU-busy
    seconds, all of them to a single holder; idle joules by ``GpuUse.hold``, because a card that is held and idle is the
    waste that operators look for. A card that the cluster has allocated is held by the containers it is allocated to,
    with or without a process on it. ``owners`` maps the cgroups of ``gpu_uses`` to workloads; it may be omitted where
    there are no ``allocations``. ``reserved`` are containers that have a card allocated only to reserve it for others
    and owe no idle joules.
    """
    unattributed: defaultdict[tuple[Component, UnattributedReason], float] = defaultdict(float)
    active: defaultdict[Component, float] = defaultdict(float)
    idle: defaultdict[Component, float] = defaultdict(float)
    holders: defaultdict[str, list[GpuUse]] = defaultdict(list)
    for use in gpu_uses:
        holders[use.device].append(use)
    allocated: defaultdict[str, defaultdict[Place, float]] = defaultdict(lambda: defaultdict(float))
    for allocation in allocations:
        allocated[allocation.device][allocation.place] += allocation.share

    charges: list[GpuCharge | PlaceCharge] = []
    for energy in energies:
        component = energy.device.component
        if energy.gap:
            unattributed[component, "gap"] += energy.gap
        if component == "other":
            # The platform's meter beyond the other meters (fans, disks, losses) belongs to no workload.
            unattributed["other", "unknown"] += energy.active + energy.idle
        elif component == "gpu":
            claims = Claims(holders[energy.device.id], allocated.get(energy.device.id, {}), owners or {}, reserved)
            charges += _share_gpu(energy, claims, unattributed)
        else:
            active[component] += energy.active
            idle[component] += energy.idle

    busy = cpu.busy_seconds if cpu is not None else 0.0
    if cpu is not None and cpu_weights:
        busy += sum([seconds * (cpu_weights.get(group, 1.0) - 1.0) for group, seconds, *_ in cpu.groups])
    rates: list[Rate] = []
    for component in active:
        if cpu is None or busy < _LEAST_BUSY_SECONDS:
            unattributed[component, "unknown"] += active[component]
            unattributed[component, "idle"] += idle[component]
            continue
        rate = Rate(component, active[component] / busy, idle[component] / busy if cpu_idle == "proportional" else 0.0)
        rates.append(rate)
        unattributed[component, "kernel"] += cpu.kernel_seconds * (rate.active + rate.idle)
        unattributed[component, "exited"] += cpu.exited_seconds * (rate.active + rate.idle)
        unattributed[component, "unknown"] += cpu.outside_seconds * (rate.active + rate.idle)
        if cpu_idle == "node":
            unattributed[component, "idle"] += idle[component]
    return Shares(
        tuple(rates),
        tuple([charge for charge in charges if isinstance(charge, GpuCharge)]),
        tuple([charge for charge in charges if isinstance(charge, PlaceCharge)]),
        {key: joules for key, joules in unattributed.items() if joules},
        cpu_weights or {},
    )


def _share_gpu(
    energy: Energy, claims: Claims, unattributed: defaultdict[tuple[Component, UnattributedReason], float]
) -> list[GpuCharge | PlaceCharge]:
    charges: list[GpuCharge | PlaceCharge] = []
    holders = claims.holders
    busy = sum(use.seconds for use in holders)
    unknown = 0.0
    for use in holders:
        active = energy.active * ((use.seconds / busy if busy > 0 else 0.0) if len(holders) > 1 else 1.0)
        if not use.known:
            unknown += active  # of a process without a known owner: no other one is charged for it
        elif active:
            charges.append(GpuCharge(use, "active", active))
    if len(holders) != 1 and busy <= 0:
        # No process is known to have run: it exited between two readings, or the driver had no samples.
        unknown += energy.active
    if claims.sole_owner is None:
        unattributed["gpu", "unknown" if claims.held else "exited"] += unknown
    elif unknown:
        charges.append(PlaceCharge(energy.device.id, claims.sole_owner, "active", unknown))

    weights = sum(weight for _, weight in claims.weights)
    for claimant, weight in claims.weights:
        held = weight / weights if weights > 0 else 0.0
        idle = energy.idle * held
        if not isinstance(claimant, GpuUse):
            charges.append(PlaceCharge(energy.device.id, claimant, "idle", idle, held))
        elif not claimant.known:
            unattributed["gpu", "idle"] += idle
        else:
            charges.append(GpuCharge(claimant, "idle", idle, held))
    if weights <= 0:
        unattributed["gpu", "idle"] += energy.idle
    return charges
