"""From one tick's readings to joules per device: metered, parted into active and idle, and never summed twice."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from ..records import Component, CpuUse, Device, EnergyReading, GpuState, GpuUse, PowerBounds, PowerReading
from ..snapshot import DeviceRow, NodeRow
from .attribution import Energy, countable, platforms, split_idle
from .baseline import Baseline, Sample
from .meters import Delta, Meters, Point

OTHER = Device("other", "other", "", "measured", "other", 0.0)
"""Stands for what the platform's meter shows beyond CPU, DRAM and GPU: fans, disks, losses."""

_WATCHED = 1.5
"""A delta that covers more than this many windows of use was partly unwatched: that part is a gap."""

_BOOKED = ("ok", "wrap", "gap")
"""Events of a delta that has joules."""

_STUCK_READS = 10
_STUCK_UTILIZATION_RATIO = 0.1


@dataclass(frozen=True, slots=True)
class Use:
    """Who was busy in the ``window_seconds`` between two ticks; ``cpu_capacity`` is all CPUs of the node.

    A reading that came late covers more than a tick; who used a GPU in it is told together with its joules, so both
    are for the same time (`GpuState.window_seconds`). ``asleep`` are devices that nobody reads, lest they wake.
    """

    window_seconds: float
    cpu_capacity: float
    cpu: CpuUse | None = None
    gpu_uses: Sequence[GpuUse] = ()
    gpus: Sequence[GpuState] = ()
    socket_busy_seconds: Mapping[int, float] = field(default_factory=dict)
    asleep: Collection[str] = ()

    @property
    def gpu_windows(self) -> dict[str, float]:
        """Seconds that ``gpu_uses`` of a card cover, where its source says so."""
        return {
            gpu.uuid: gpu.window_seconds for gpu in self.gpus if gpu.window_seconds is not None and not gpu.gpu_instance
        }

    @property
    def gpu_window_seconds(self) -> float:
        """Seconds that ``gpu_uses`` cover: the longest of the cards, which all are read together."""
        return max(self.gpu_windows.values(), default=0.0) or self.window_seconds


@dataclass(frozen=True, slots=True)
class Measured:
    """What the devices used in one tick.

    ``energies`` are those that may be added up; ``watts`` the mean power of those that were read without doubt.
    ``readings`` are those that could be believed, ``asleep`` who was not asked.
    """

    deltas: Mapping[str, Delta]
    utilization: Mapping[str, float]
    energies: Sequence[Energy]
    watts: Mapping[str, float]
    readings: Mapping[str, EnergyReading | PowerReading]
    asleep: Collection[str] = ()

    @property
    def joules(self) -> dict[str, float]:
        """Joules by device, of all of them."""
        return {key: delta.joules for key, delta in self.deltas.items()}

    @property
    def metered(self) -> frozenset[Component]:
        """Components that somebody measured in this tick."""
        return frozenset(
            energy.device.component
            for energy in self.energies
            if energy.device is OTHER or energy.device.id in self.watts
        )


class Devices:
    """Every device ever read, with its meter and its idle baseline."""

    def __init__(
        self,
        idle_watts: Mapping[str, float] | None = None,
        points: Mapping[str, Point] | None = None,
        samples: Mapping[str, Sequence[Sample]] | None = None,
    ) -> None:
        self._idle_watts = dict(idle_watts or {})
        self._meters = Meters(points)
        self._samples = dict(samples or {})
        self._baselines: dict[str, Baseline] = {}
        self._known: dict[str, Device] = {}
        self._last_read: dict[str, float] = {}
        self._counted: set[str] = set()
        self._platforms: list[str] = []
        self._gpus: set[str] = set()
        self._other_owed = 0.0
        self.cpu_metered = False

    def configure(self, idle_watts: Mapping[str, float]) -> None:
        """Take idle watts that the operator knows; the others are learned."""
        self._idle_watts = dict(idle_watts)
        for key, baseline in self._baselines.items():
            baseline.configure(self._idle_watts.get(key, self._known[key].idle_watts))

    def measure(self, readings: Iterable[EnergyReading | PowerReading], use: Use) -> Measured:
        """Book one tick's readings."""
        unique = {reading.device.id: reading for reading in readings}
        measured = {r.device.component for r in unique.values() if r.device.quality == "measured"}
        self.cpu_metered = self.cpu_metered or "cpu" in measured
        if self.cpu_metered:
            # Once a meter was seen, no model is mixed in: its joules would be counted a second time.
            unique = {key: r for key, r in unique.items() if not _is_stand_in(r.device)}
        self._learn_devices(unique)
        deltas = {delta.device.id: delta for delta in self._meters.feed(unique.values())}
        utilization = self._utilization(use)
        energies = self._energies(deltas, utilization, use)
        watts = {
            key: delta.joules / delta.seconds
            for key, delta in deltas.items()
            if delta.event in ("ok", "wrap") and delta.seconds > 0
        }
        believed = {key: reading for key, reading in unique.items() if deltas[key].event != "implausible"}
        return Measured(deltas, utilization, energies, watts, believed, use.asleep)

    def capacity(self, use: Use) -> dict[Component, float]:
        """Busy seconds per second the node could do, of the components whose use is known."""
        capacity: dict[Component, float] = {}
        if use.cpu is not None and use.cpu.window_seconds > 0:
            capacity["cpu"] = use.cpu_capacity
        self._gpus.update(key for key in self._counted if self._known[key].component == "gpu")
        self._gpus.update(gpu.uuid for gpu in use.gpus)  # one without a meter, or inside the CPU's, works as well
        self._gpus.update(gpu_use.device for gpu_use in use.gpu_uses)
        if self._gpus:
            capacity["gpu"] = float(len(self._gpus))
        return capacity

    def cpu_capacity(self) -> float:
        """CPUs behind the CPU meters; 0 where there are none."""
        return sum(self._known[key].capacity for key in self._counted if self._known[key].component == "cpu")

    def rows(
        self, measured: Measured, totals: Mapping[str, float], bounds: Mapping[str, PowerBounds], booted_at: float
    ) -> tuple[DeviceRow, ...]:
        """How each device stands after the tick; ``totals`` are joules so far, ``booted_at`` is Unix seconds.

        When a device was last read is worked out once, as the wall clock stood then: later it may be set (fault 50).
        """
        watts = measured.watts
        self._last_read |= {key: reading.at + booted_at for key, reading in measured.readings.items()}
        rows = []
        for key, device in self._known.items():
            idle = self._baseline(device).idle
            wraps, resets, still = self._meters.counts(key)
            busy, bound = measured.utilization.get(key), bounds.get(key)
            stuck = still >= _STUCK_READS and busy is not None and busy >= _STUCK_UTILIZATION_RATIO
            reading = measured.readings.get(key)
            up = None if key in measured.asleep else reading is not None
            low, high = (None, None) if bound is None else (bound.low_watts, bound.high_watts)
            rows.append(
                DeviceRow(
                    device,
                    totals.get(key, 0.0),
                    watts.get(key),
                    idle.watts,
                    idle.method,
                    busy,
                    low,
                    high,
                    wraps,
                    resets,
                    stuck,
                    up,
                    self._last_read.get(key),
                    reading.agreement_ratio if isinstance(reading, EnergyReading) else None,
                )
            )
        return tuple(rows)

    def node_rows(self, measured: Measured, totals: Mapping[Component, float]) -> tuple[NodeRow, ...]:
        """How each component of the node stands after the tick."""
        watts: dict[Component, float] = {}
        by_device = measured.watts
        for energy in measured.energies:
            key, component = energy.device.id, energy.device.component
            if key in by_device:
                watts[component] = watts.get(component, 0.0) + by_device[key]
        if self._platforms and all(key in by_device for key in self._platforms):
            watts["other"] = max(0.0, sum(by_device[key] for key in self._platforms) - sum(watts.values()))
        return tuple(NodeRow(component, joules, watts.get(component)) for component, joules in sorted(totals.items()))

    def points(self) -> dict[str, Point]:
        """Last trusted counter values, for the checkpoint."""
        return self._meters.points()

    def samples(self) -> dict[str, list[Sample]]:
        """What the baselines remember, for the checkpoint."""
        kept = {key: list(samples) for key, samples in self._samples.items()}
        return kept | {key: baseline.samples() for key, baseline in self._baselines.items()}

    def _learn_devices(self, readings: Mapping[str, EnergyReading | PowerReading]) -> None:
        known = {key: device for key, device in self._known.items() if not (self.cpu_metered and _is_stand_in(device))}
        known |= {key: reading.device for key, reading in readings.items()}
        if known != self._known:
            self._known = known
            self._counted = {device.id for device in countable(known.values())}
            self._platforms = [device.id for device in platforms(known.values())]

    def _utilization(self, use: Use) -> dict[str, float]:
        """Busy seconds per second over a device's own capacity, where the use is known."""
        found: dict[str, float] = {}
        node, window, sockets = None, use.window_seconds, use.socket_busy_seconds
        if use.cpu is not None and use.cpu.window_seconds > 0 and use.cpu_capacity > 0:
            node = use.cpu.busy_seconds / use.cpu.window_seconds / use.cpu_capacity
        for key, device in self._known.items():
            if device.component == "gpu":
                continue
            if device.socket is not None and device.socket in sockets and window > 0 and device.capacity > 0:
                found[key] = sockets[device.socket] / window / device.capacity
            elif node is not None:
                found[key] = node
        gpus: defaultdict[str, float] = defaultdict(float)
        for gpu_use in use.gpu_uses:
            gpus[gpu_use.device] += gpu_use.seconds
        windows = use.gpu_windows
        for key, seconds in gpus.items():
            if windows.get(key, window) > 0:
                found[key] = seconds / windows.get(key, window)
        for gpu in use.gpus:
            if gpu.utilization_ratio is not None and not gpu.gpu_instance:
                found[gpu.uuid] = gpu.utilization_ratio
        return {key: min(1.0, max(0.0, ratio)) for key, ratio in found.items()}

    def _energies(self, deltas: Mapping[str, Delta], utilization: Mapping[str, float], use: Use) -> list[Energy]:
        energies: list[Energy] = []
        windows = use.gpu_windows
        for key, delta in deltas.items():
            baseline = self._baseline(delta.device)
            watched = _watched(delta, windows.get(key, use.window_seconds))
            if delta.event in ("ok", "wrap") and delta.seconds > 0 and watched == 1.0 and key in utilization:
                baseline.observe(utilization[key], delta.joules / delta.seconds)
            if key in self._counted:
                energies.append(_part(delta, baseline.idle.watts, watched))
        whole = [deltas[key] for key in self._platforms if key in deltas and deltas[key].event in _BOOKED]
        if whole:
            # Meters are not read at the same instant: what was booked too much is taken back first.
            self._other_owed += sum(delta.joules for delta in whole) - sum(energy.joules for energy in energies)
            energies.append(Energy(OTHER, max(0.0, self._other_owed), 0.0))
            self._other_owed = min(0.0, self._other_owed)
        return energies

    def _baseline(self, device: Device) -> Baseline:
        baseline = self._baselines.get(device.id)
        if baseline is None:
            watts = self._idle_watts.get(device.id, device.idle_watts)
            baseline = self._baselines[device.id] = Baseline(watts, self._samples.pop(device.id, ()))
        return baseline


def _watched(delta: Delta, window_seconds: float) -> float:
    """The part of a delta's time of which it is known who was busy."""
    return window_seconds / delta.seconds if delta.seconds > window_seconds * _WATCHED + 0.1 else 1.0


def _part(delta: Delta, idle_watts: float | None, watched: float) -> Energy:
    """Active, idle and gap of one delta; the part of it that nobody watched is a gap."""
    if delta.event == "gap":
        return Energy(delta.device, 0.0, 0.0, delta.joules)
    energy = split_idle(delta.device, delta.joules * watched, delta.seconds * watched, idle_watts)
    return energy if watched == 1.0 else energy._replace(gap=delta.joules - energy.active - energy.idle)


def _is_stand_in(device: Device) -> bool:
    return device.quality == "estimated" and device.component == "cpu"
