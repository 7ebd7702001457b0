"""Share out one tick's joules: pure arithmetic, in which every joule that goes in comes out once."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

from ..records import Component, CpuUse, Device, GpuUse, Loss, Mode

CpuIdle = Literal["node", "proportional"]

_LEAST_BUSY_SECONDS = 1e-9
"""The kernel's clocks count nanoseconds: less than one is nobody's work."""


class Energy(NamedTuple):
    """What one device used in a tick: ``active + idle + gap`` is all of it. ``gap`` was spent unwatched."""

    device: Device
    active: float
    idle: float
    gap: float = 0.0

    @property
    def joules(self) -> float:
        """All of it."""
        return self.active + self.idle + self.gap


class Rate(NamedTuple):
    """Joules per busy CPU second of one component in one tick."""

    component: Component
    active: float
    idle: float


class GpuCharge(NamedTuple):
    """Joules of one device to one of the processes that hold it."""

    use: GpuUse
    mode: Mode
    joules: float


@dataclass(frozen=True, slots=True)
class Shares:
    """A tick's division. CPU and DRAM are given as rates: whoever was busy ``s`` seconds owes ``s × rate``.

    What no workload owes stands in ``unattributed``.
    """

    cpu: tuple[Rate, ...]
    gpu: tuple[GpuCharge, ...]
    unattributed: Mapping[tuple[Component, Loss], float] = field(default_factory=dict)


def split_idle(device: Device, joules: float, seconds: float, idle_watts: float | None) -> Energy:
    """Part a device's joules into active and idle: ``active = max(0, ΔE − idle·Δt)``.

    Unlike scaling power by utilisation, this charges a workload the same joules whether the machine beside
    it is busy or not. Unknown idle watts make everything active.
    """
    idle = min(joules, (idle_watts or 0.0) * seconds)
    return Energy(device, joules - idle, idle)


def countable(devices: Iterable[Device]) -> list[Device]:
    """Devices whose joules may be added up: not within another one, except within the platform's meter."""
    known = {device.id: device for device in devices}
    return [
        device for device in known.values() if device.component != "platform" and not _inside_component(device, known)
    ]


def platforms(devices: Iterable[Device]) -> list[Device]:
    """Meters of the whole machine: the first outermost one (several of them would measure the same)."""
    outermost = [device for device in devices if device.component == "platform" and device.within is None]
    return outermost[:1]


def _inside_component(device: Device, known: Mapping[str, Device]) -> bool:
    """Whether a meter that is itself no platform includes this one. An unknown enclosing id does not count."""
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
) -> Shares:
    """Divide the joules of countable devices.

    CPU and DRAM: active joules by busy CPU seconds; idle joules stay with the node, or with
    ``proportional`` go the same way. GPU: active joules by GPU-busy seconds, all of them to a single
    holder; idle joules to the holders by ``GpuUse.hold``, because a card that is held and idle is the
    waste people look for.
    """
    unattributed: defaultdict[tuple[Component, Loss], float] = defaultdict(float)
    active: defaultdict[Component, float] = defaultdict(float)
    idle: defaultdict[Component, float] = defaultdict(float)
    holders: defaultdict[str, list[GpuUse]] = defaultdict(list)
    for use in gpu_uses:
        holders[use.device].append(use)

    charges: list[GpuCharge] = []
    for energy in energies:
        component = energy.device.component
        if energy.gap:
            unattributed[component, "gap"] += energy.gap
        if component == "other":
            # What the platform's meter shows beyond the others (fans, disks, losses) is nobody's.
            unattributed["other", "unknown"] += energy.active + energy.idle
        elif component == "gpu":
            charges += _share_gpu(energy, holders[energy.device.id], unattributed)
        else:
            active[component] += energy.active
            idle[component] += energy.idle

    busy = cpu.busy_seconds if cpu is not None else 0.0
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
        if cpu_idle == "node":
            unattributed[component, "idle"] += idle[component]
    return Shares(tuple(rates), tuple(charges), {key: joules for key, joules in unattributed.items() if joules})


def _share_gpu(
    energy: Energy, holders: Sequence[GpuUse], unattributed: defaultdict[tuple[Component, Loss], float]
) -> list[GpuCharge]:
    charges: list[GpuCharge] = []
    busy = sum(use.seconds for use in holders)
    hold = sum(use.hold for use in holders)
    for use in holders:
        share_of_busy = use.seconds / busy if busy > 0 else 0.0
        active = energy.active * (share_of_busy if len(holders) > 1 else 1.0)
        idle = energy.idle * (use.hold / hold) if hold > 0 else 0.0
        if use.process.key.pid == 0:
            # Somebody whom this machine's /proc does not show: nobody else pays for it.
            unattributed["gpu", "unknown"] += active
            unattributed["gpu", "idle"] += idle
            continue
        if active:
            charges.append(GpuCharge(use, "active", active))
        charges.append(GpuCharge(use, "idle", idle))
    if len(holders) != 1 and busy <= 0:
        # Nobody is known to have run: either it exited between two looks, or the driver gave no samples.
        unattributed["gpu", "unknown" if holders else "exited"] += energy.active
    if hold <= 0:
        unattributed["gpu", "idle"] += energy.idle
    return charges
