"""From one tick's readings to joules by device: metered, split into active and idle, and never summed twice."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field

from ..impact.values import Impact, Rates, Settled
from ..records import Component, Device, EnergyReading, GpuState, PowerBounds, PowerReading, Problem
from ..snapshot import DeviceRow, NodeRow
from .attribution import Energy, split_idle
from .baseline import Baseline, Sample
from .device_inventory import DeviceInventory, SavedDevice, is_estimate
from .gpu_idle import expect_idle
from .held_readings import HeldReadings
from .impacts import settle, sum_of
from .measurement import OTHER, Measured, Use
from .meters import Delta, Meters, Point, gap_seconds
from .platform import Platform

_WATCHED = 1.5
"""Where a delta covers more than this many windows of usage, the time beyond the window is a gap."""

_STUCK_READS = 10
_STUCK_UTILIZATION_RATIO = 0.1


@dataclass(slots=True)
class DeviceState:
    """What `Devices` keeps across a restart.

    ``points`` are the last trusted counter values, valid in the same boot only. ``joules`` are totals by device,
    ``node_joules`` by component; ``retired_joules`` are those of devices that are no longer published. ``known`` and
    ``baselines`` (samples of the learned idle power) are written with a whole checkpoint only, as are ``gpu_indexes``
    and ``settled``, the impact of ``node_joules`` up to the last change of the rates.
    """

    points: dict[str, Point] = field(default_factory=dict)
    joules: dict[str, float] = field(default_factory=dict)
    node_joules: dict[Component, float] = field(default_factory=dict)
    retired_joules: Mapping[Component, float] = field(default_factory=dict)
    known: dict[str, SavedDevice] = field(default_factory=dict)
    baselines: dict[str, list[Sample]] = field(default_factory=dict)
    gpu_indexes: Mapping[str, str] = field(default_factory=dict)
    settled: Mapping[Component, Settled] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Restart:
    """How an earlier run ended and this one starts.

    ``ended_at`` is the earlier run's last tick in boot-time seconds, ``started_at`` now in Unix seconds. ``sources``
    are the names of the sources of this run. ``lagging``: more was published afterwards than the state file holds.
    """

    state: DeviceState = field(default_factory=DeviceState)
    ended_at: float = 0.0
    started_at: float = 0.0
    sources: Collection[str] = ()
    lagging: bool = False


class Devices:
    """Every device of the node: its meter, its idle baseline, and its joules so far.

    ``gpu_indexes`` are the indexes of its GPUs by UUID, as last reported: a GPU that sleeps keeps its labels.

    Devices of an earlier run are published from the start, unless its state was lagging: then a device's counter could
    fall until its meter is read and supplies what is missing.
    """

    def __init__(self, idle_watts: Mapping[str, float] | None = None, restart: Restart | None = None) -> None:
        """``idle_watts`` are configured by device id; the others are learned."""
        restart = restart or Restart()
        state, points = restart.state, restart.state.points
        if state.known:  # without them, the file is of a version that did not keep devices
            points = {key: at for key, at in points.items() if _continues(state.known.get(key), at, restart.ended_at)}
        # Power gauges, counters of another boot and meters that are no longer read cannot report what they missed.
        without_counter = [
            key for key, saved in state.known.items() if key not in points or saved.device.source not in restart.sources
        ]
        self.joules = defaultdict(float, state.joules)
        self.node_joules: defaultdict[Component, float] = defaultdict(float, state.node_joules)
        self.retired_joules = state.retired_joules
        self._settled: Mapping[Component, Settled] = state.settled
        self._settled_sum = sum_of(self._settled.values())
        self._settlements = 0
        self.gpu_indexes = state.gpu_indexes
        self._renumbered = 0
        self._inventory = DeviceInventory(state.known, restart.started_at, without_counter)
        self._sources = restart.sources
        self._lagging = restart.lagging
        self._idle_watts = dict(idle_watts or {})
        self._meters = Meters(points)
        self._samples = dict(state.baselines)
        self._baselines: dict[str, Baseline] = {}
        self._last_read: dict[str, float] = {}
        self._gpus: set[str] = set()
        self._platform = Platform()
        self._held = HeldReadings()
        # Joules of the CPU's estimate since its meter was last read: all of them, because a meter ends an estimate.
        self._estimated = sum(
            state.joules.get(key, 0.0) for key, saved in state.known.items() if is_estimate(saved.device)
        )
        self.cpu_metered = False

    def configure(self, idle_watts: Mapping[str, float]) -> None:
        """Replace the configured idle watts; the others are learned."""
        self._idle_watts = dict(idle_watts)
        for key, baseline in self._baselines.items():
            baseline.configure(self._idle_watts.get(key))

    def measure(self, readings: Iterable[EnergyReading | PowerReading], use: Use) -> Measured:
        """Convert one tick's readings to joules and add them to the totals."""
        unique = {reading.device.id: reading for reading in readings}
        measured = {r.device.component for r in unique.values() if r.device.quality != "estimated"}
        self.cpu_metered = self.cpu_metered or "cpu" in measured
        if self.cpu_metered:
            # Once the CPU has a meter, estimates are ignored: their joules would be counted twice.
            unique = {key: r for key, r in unique.items() if not is_estimate(r.device)}
        self._inventory.update({key: reading.device for key, reading in unique.items()}, metered=self.cpu_metered)
        for key in self._inventory.superseded:
            self._meters.forget(key)
        deltas = {delta.device.id: delta for delta in self._meters.feed(unique.values())}
        if self._estimated or not self.cpu_metered:
            self._subtract_estimated(deltas)
        utilization = self._utilization(use)
        energies = self._energies(deltas, utilization, use, unique)
        watts = {
            key: delta.joules / delta.seconds
            for key, delta in deltas.items()
            if delta.event in ("ok", "wrap") and delta.seconds > 0
        }
        self._retire()
        self._number(use.gpus)
        for key, delta in deltas.items():
            self.joules[key] += delta.joules
        for energy in energies:
            if energy.joules or energy.device is not OTHER:  # nothing is published of a platform below its parts
                self.node_joules[energy.device.component] += energy.joules
        plausible = {key: reading for key, reading in unique.items() if deltas[key].event != "implausible"}
        self._held.update(plausible, watts, use.window_seconds)
        return Measured(deltas, utilization, energies, watts, plausible, use.asleep)

    def capacity(self, use: Use) -> dict[Component, float]:
        """Busy seconds per second at full use of the node, by component whose usage is known."""
        capacity: dict[Component, float] = {}
        if use.cpu is not None and use.cpu.window_seconds > 0:
            capacity["cpu"] = use.cpu_capacity
        known, counted = self._inventory.known, self._inventory.counted
        self._gpus.update(key for key, device in known.items() if device.component == "gpu" and key in counted)
        self._gpus.update(gpu.uuid for gpu in use.gpus)  # also those without a meter, or inside the CPU's
        self._gpus.update(gpu_use.device for gpu_use in use.gpu_uses)
        if self._gpus:
            capacity["gpu"] = float(len(self._gpus))
        return capacity

    def cpu_capacity(self) -> float:
        """CPUs behind the CPU meters; 0 where there are none."""
        known, counted = self._inventory.known, self._inventory.counted
        return sum(device.capacity for key, device in known.items() if device.component == "cpu" and key in counted)

    def rows(self, measured: Measured, bounds: Mapping[str, PowerBounds], booted_at: float) -> tuple[DeviceRow, ...]:
        """Each device after the tick; ``booted_at`` is Unix seconds.

        The time of a reading is converted once, by the wall clock of that moment: the clock may be set later.
        """
        watts = {**self._held.watts, **measured.watts}
        self._last_read |= {key: reading.at + booted_at for key, reading in measured.readings.items()}
        rows = []
        for key, device in self._inventory.known.items():
            baseline = self._baseline(device)
            idle = baseline.idle
            wraps, resets, still = self._meters.counts(key)
            busy, bound = measured.utilization.get(key), bounds.get(key)
            stuck = not device.step_joules and still >= _STUCK_READS and (busy or 0.0) >= _STUCK_UTILIZATION_RATIO
            reading = measured.readings.get(key)
            up = None if key in measured.asleep else reading is not None or key in self._held
            low, high = (None, None) if bound is None else (bound.low_watts, bound.high_watts)
            rows.append(
                DeviceRow(
                    device,
                    self.joules.get(key, 0.0),
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
                    *(baseline.bounds or (None, None)),
                )
            )
        for key, device in () if self._lagging else self._inventory.pending.items():
            up = False if self._is_missed(device, measured) else None
            joules = self.joules.get(key, 0.0)
            rows.append(DeviceRow(device, joules, None, None, "", None, None, None, 0, 0, stuck=False, up=up))
        return tuple(rows)

    def node_rows(self, measured: Measured) -> tuple[NodeRow, ...]:
        """Each component of the node after the tick."""
        watts: dict[Component, float] = {}
        by_device = measured.watts
        for energy in measured.energies:
            key, component = energy.device.id, energy.device.component
            if key in by_device:
                watts[component] = watts.get(component, 0.0) + by_device[key]
        platforms = self._platform.used
        if self._platform.watts is not None:
            watts["other"] = self._platform.watts
        elif platforms and all(key in by_device for key in platforms):
            watts["other"] = max(0.0, sum(by_device[key] for key in platforms) - sum(watts.values()))
        return tuple(
            NodeRow(component, joules, watts.get(component)) for component, joules in sorted(self.node_joules.items())
        )

    def settle(self, rates: Rates, *, keep_money: bool = True) -> None:
        """Keep the impact of the node's joules so far, at the ``rates`` that were in force."""
        self._settled = settle(self.node_joules, self._settled, rates, keep_money=keep_money)
        self._settled_sum = sum_of(self._settled.values())
        self._settlements += 1

    def impact(self, rates: Rates) -> Impact:
        """Grams and money of the node."""
        return self._settled_sum.impact(sum(self.node_joules.values()), rates)

    @property
    def problems(self) -> Mapping[str, Problem]:
        """What is wrong with the meters of a source, seen beside those of others."""
        return self._platform.problems()

    def review(self, measured: Measured, at: float) -> None:
        """Retire devices that have been missing for long; to be called regularly. ``at`` is Unix seconds."""
        inventory = self._inventory
        missing = inventory.known.keys() - measured.deltas.keys() - set(measured.asleep) - self._held.devices
        missing |= {key for key, device in inventory.pending.items() if self._is_missed(device, measured)}
        inventory.review(missing, at)
        self._retire()

    @property
    def revision(self) -> int:
        """Grows when a whole checkpoint is needed."""
        return self._inventory.revision + self._renumbered + self._settlements

    def journal(self) -> DeviceState:
        """What changes in every tick, for a line of the state file's journal."""
        return DeviceState(self._meters.points(), dict(self.joules), dict(self.node_joules), self.retired_joules)

    def state(self) -> DeviceState:
        """Its whole state, for a checkpoint."""
        state = self.journal()
        state.known = self._inventory.saved()
        state.baselines = {key: list(samples) for key, samples in self._samples.items()}
        state.gpu_indexes = self.gpu_indexes
        state.settled = self._settled
        state.baselines |= {key: baseline.samples() for key, baseline in self._baselines.items()}
        return state

    def _retire(self) -> None:
        """Stop publishing retired devices; the joules that were summed stay in ``retired_joules``.

        A retired device keeps its meter, unless its parts are counted in its place: if it returns, nothing is lost.
        """
        for key, component in self._inventory.take_retired():
            self._baselines.pop(key, None)
            self._samples.pop(key, None)
            self._last_read.pop(key, None)
            self._gpus.discard(key)
            self.gpu_indexes = {uuid: index for uuid, index in self.gpu_indexes.items() if uuid != key}
            joules = self.joules.pop(key, 0.0)
            if component is not None:
                # A new mapping each time, because snapshots hold the old one.
                before = self.retired_joules.get(component, 0.0)
                self.retired_joules = {**self.retired_joules, component: before + joules}

    def _number(self, gpus: Iterable[GpuState]) -> None:
        indexes = {gpu.uuid: gpu.index for gpu in gpus if not gpu.gpu_instance}
        if not indexes.items() <= self.gpu_indexes.items():
            self.gpu_indexes = {**self.gpu_indexes, **indexes}  # a new mapping, because snapshots hold the old one
            self._renumbered += 1

    def _subtract_estimated(self, deltas: dict[str, Delta]) -> None:
        """Subtract from the gap of a meter that returns after a restart what was estimated in the meantime."""
        for key, delta in deltas.items():
            if is_estimate(delta.device):
                self._estimated += delta.joules
            elif delta.event == "gap" and delta.device.component == "cpu" and key in self._inventory.counted:
                twice = min(delta.joules, self._estimated)
                self._estimated -= twice
                deltas[key] = delta._replace(joules=delta.joules - twice)
        if self.cpu_metered:
            self._estimated = 0.0

    def _utilization(self, use: Use) -> dict[str, float]:
        """Busy seconds per second over a device's own capacity, where the usage is known."""
        found: dict[str, float] = {}
        node, window, sockets = None, use.window_seconds, use.socket_busy_seconds
        if use.divisible and use.cpu is not None and use.cpu.window_seconds > 0 and use.cpu_capacity > 0:
            node = use.cpu.busy_seconds / use.cpu.window_seconds / use.cpu_capacity
        for key, device in self._inventory.known.items():
            if device.component == "gpu" or device.capacity <= 0:
                continue
            if device.socket is not None and device.socket in sockets and window > 0:
                found[key] = sockets[device.socket] / window / device.capacity
            elif node is not None:
                found[key] = node
        gpus: defaultdict[str, float] = defaultdict(float)
        for gpu_use in use.gpu_uses:
            if gpu_use.reported:
                gpus[gpu_use.device] += gpu_use.seconds
        windows = use.gpu_windows
        for key, seconds in gpus.items():
            if windows.get(key, window) > 0:
                found[key] = seconds / windows.get(key, window)
        for gpu in use.gpus:
            if gpu.utilization_ratio is not None and not gpu.gpu_instance:
                found[gpu.uuid] = gpu.utilization_ratio
        return {key: min(1.0, max(0.0, ratio)) for key, ratio in found.items()}

    def _energies(
        self,
        deltas: Mapping[str, Delta],
        utilization: Mapping[str, float],
        use: Use,
        readings: Mapping[str, EnergyReading | PowerReading],
    ) -> list[Energy]:
        energies: list[Energy] = []
        expect_idle(self._inventory.known, self._baselines, use.gpus)
        windows, unused = use.gpu_windows, use.unused_gpus
        for key, delta in deltas.items():
            baseline = self._baseline(delta.device)
            watched = _watched(delta, windows.get(key, use.window_seconds))
            if delta.event in ("ok", "wrap") and delta.seconds > 0 and watched == 1.0 and key in utilization:
                baseline.observe(utilization[key], delta.joules / delta.seconds)
            if key in self._inventory.counted:
                is_unused = key in unused and utilization.get(key) == 0.0
                energies.append(_split(delta, baseline.idle.watts, watched, unused=is_unused))
        measured = sum(energy.joules for energy in energies if energy.device.quality != "estimated")
        parts = sum(energy.joules for energy in energies), measured
        other = self._platform.beyond(self._inventory.platform_choices, deltas, readings, parts, use.window_seconds)
        if other is not None:
            energies.append(Energy(OTHER, other, 0.0))
        return energies

    def _is_missed(self, device: Device, measured: Measured) -> bool:
        """Whether a device of an earlier run should have a reading.

        A device that sleeps need not, nor one whose source is switched off. A card that has slept from the start is
        listed by PCI address, because its id cannot be read without waking it: while there is one, it may be this.
        """
        if device.id in measured.asleep or device.source not in self._sources:
            return False
        unnamed = set(measured.asleep) - self._inventory.known.keys() - self._inventory.pending.keys()
        return device.component != "gpu" or not unnamed

    def _baseline(self, device: Device) -> Baseline:
        baseline = self._baselines.get(device.id)
        if baseline is None:
            samples = self._samples.pop(device.id, ())
            baseline = Baseline(self._idle_watts.get(device.id), samples, device.idle_watts, device.idle_share)
            self._baselines[device.id] = baseline
        return baseline


def _continues(saved: SavedDevice | None, point: Point, ended_at: float) -> bool:
    """Whether a counter still covers the time since an earlier run read it.

    It does not if the device was retired, because others may be counted in its place; nor if the platform's meter was
    missing when that run ended, because its parts were counted meanwhile and that sum is not kept.
    """
    if saved is None:
        return False
    whole = saved.device.component == "platform" and saved.device.within is None
    return not whole or ended_at - point.at <= gap_seconds(saved.device)


def _watched(delta: Delta, window_seconds: float) -> float:
    """The fraction of a delta's time for which usage is known."""
    return window_seconds / delta.seconds if delta.seconds > window_seconds * _WATCHED + 0.1 else 1.0


def _split(delta: Delta, idle_watts: float | None, watched: float, *, unused: bool) -> Energy:
    """Active, idle and gap of one delta; time without known usage is a gap.

    An ``unused`` card is idle at any power: a loaded model keeps it in a higher power state.
    """
    if delta.event == "gap":
        return Energy(delta.device, 0.0, 0.0, delta.joules)
    if unused:
        return Energy(delta.device, 0.0, delta.joules * watched, delta.joules * (1.0 - watched))
    energy = split_idle(delta.device, delta.joules * watched, delta.seconds * watched, idle_watts)
    return energy if watched == 1.0 else energy._replace(gap=delta.joules - energy.active - energy.idle)
