"""From one tick's readings to joules per device: metered, parted into active and idle, and never summed twice."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from ..records import Component, CpuUse, Device, EnergyReading, GpuState, GpuUse, PowerBounds, PowerReading
from ..snapshot import DeviceRow, NodeRow
from .attribution import Energy, split_idle
from .baseline import Baseline, Sample
from .device_inventory import GoneDevice, Roster, SavedDevice, is_stand_in
from .meters import GAP_SECONDS, Delta, Meters, Point

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
    """Every device of the node, with its meter and its idle baseline.

    ``saved`` are those of an earlier run, which ``ended_at`` a boot time in seconds; ``started_at`` is now in Unix
    seconds, ``sources`` are the names of who is asked in this run, ``modelled`` the joules that were booked by the
    stand-in of the CPU since its meter was last read. What is saved is shown from the start, unless it ``lags``: then
    the counter of a device would fall until it is read, which tells what is missing.
    """

    def __init__(
        self,
        idle_watts: Mapping[str, float] | None = None,
        points: Mapping[str, Point] | None = None,
        samples: Mapping[str, Sequence[Sample]] | None = None,
        saved: Mapping[str, SavedDevice] | None = None,
        *,
        ended_at: float = 0.0,
        started_at: float = 0.0,
        sources: Collection[str] = (),
        modelled: float = 0.0,
        lags: bool = False,
    ) -> None:
        saved, points = saved or {}, points or {}
        if saved:  # else it is a file of before devices were kept
            points = {key: point for key, point in points.items() if _goes_on(saved.get(key), point, ended_at)}
        # A power gauge, a counter of another boot and one that nobody reads do not tell what they missed.
        untold = [key for key, entry in saved.items() if key not in points or entry.device.source not in sources]
        self._roster = Roster(saved, started_at, untold)
        self._sources = sources
        self._lags = lags
        self._idle_watts = dict(idle_watts or {})
        self._meters = Meters(points)
        self._samples = dict(samples or {})
        self._baselines: dict[str, Baseline] = {}
        self._last_read: dict[str, float] = {}
        self._gpus: set[str] = set()
        self._other_owed = 0.0
        self._unseen = 0.0  # joules of the parts since the platform was read
        self._modelled = modelled
        self.cpu_metered = False

    def configure(self, idle_watts: Mapping[str, float]) -> None:
        """Take idle watts that the operator knows; the others are learned."""
        self._idle_watts = dict(idle_watts)
        for key, baseline in self._baselines.items():
            baseline.configure(self._idle_watts.get(key))

    def measure(self, readings: Iterable[EnergyReading | PowerReading], use: Use) -> Measured:
        """Book one tick's readings."""
        unique = {reading.device.id: reading for reading in readings}
        measured = {r.device.component for r in unique.values() if r.device.quality == "measured"}
        self.cpu_metered = self.cpu_metered or "cpu" in measured
        if self.cpu_metered:
            # Once a meter was seen, no model is mixed in: its joules would be counted a second time.
            unique = {key: r for key, r in unique.items() if not is_stand_in(r.device)}
        self._roster.learn({key: reading.device for key, reading in unique.items()}, metered=self.cpu_metered)
        for key in self._roster.replaced:
            self._meters.forget(key)
        deltas = {delta.device.id: delta for delta in self._meters.feed(unique.values())}
        if self._modelled or not self.cpu_metered:
            self._book_once(deltas)
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
        known, counted = self._roster.known, self._roster.counted
        self._gpus.update(key for key, device in known.items() if device.component == "gpu" and key in counted)
        self._gpus.update(gpu.uuid for gpu in use.gpus)  # one without a meter, or inside the CPU's, works as well
        self._gpus.update(gpu_use.device for gpu_use in use.gpu_uses)
        if self._gpus:
            capacity["gpu"] = float(len(self._gpus))
        return capacity

    def cpu_capacity(self) -> float:
        """CPUs behind the CPU meters; 0 where there are none."""
        known, counted = self._roster.known, self._roster.counted
        return sum(device.capacity for key, device in known.items() if device.component == "cpu" and key in counted)

    def rows(
        self, measured: Measured, totals: Mapping[str, float], bounds: Mapping[str, PowerBounds], booted_at: float
    ) -> tuple[DeviceRow, ...]:
        """How each device stands after the tick; ``totals`` are joules so far, ``booted_at`` is Unix seconds.

        When a device was last read is worked out once, as the wall clock stood then: later it may be set (fault 50).
        """
        watts = measured.watts
        self._last_read |= {key: reading.at + booted_at for key, reading in measured.readings.items()}
        rows = []
        for key, device in self._roster.known.items():
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
        for key, device in () if self._lags else self._roster.awaited.items():
            up = False if self._is_missed(device, measured) else None
            joules = totals.get(key, 0.0)
            rows.append(DeviceRow(device, joules, None, None, "", None, None, None, 0, 0, stuck=False, up=up))
        return tuple(rows)

    def node_rows(self, measured: Measured, totals: Mapping[Component, float]) -> tuple[NodeRow, ...]:
        """How each component of the node stands after the tick."""
        watts: dict[Component, float] = {}
        by_device = measured.watts
        for energy in measured.energies:
            key, component = energy.device.id, energy.device.component
            if key in by_device:
                watts[component] = watts.get(component, 0.0) + by_device[key]
        platforms = self._roster.platforms
        if platforms and all(key in by_device for key in platforms):
            watts["other"] = max(0.0, sum(by_device[key] for key in platforms) - sum(watts.values()))
        return tuple(NodeRow(component, joules, watts.get(component)) for component, joules in sorted(totals.items()))

    def review(self, measured: Measured, at: float) -> None:
        """Give up devices that are missed for long. To be called now and then; ``at`` is Unix seconds."""
        roster = self._roster
        missing = roster.known.keys() - measured.deltas.keys() - set(measured.asleep)
        missing |= {key for key, device in roster.awaited.items() if self._is_missed(device, measured)}
        roster.review(missing, at)

    def take_gone(self) -> list[GoneDevice]:
        """Devices that are no longer shown, since the last call.

        Its meter is kept, unless a part of it is counted in its place: who returns has lost nothing.
        """
        gone = self._roster.take_gone()
        for key, _ in gone:
            self._baselines.pop(key, None)
            self._samples.pop(key, None)
            self._last_read.pop(key, None)
            self._gpus.discard(key)
        return gone

    @property
    def revision(self) -> int:
        """Grows when `saved` has something new."""
        return self._roster.revision

    def saved(self) -> dict[str, SavedDevice]:
        """Every device that is shown, for the checkpoint."""
        return self._roster.saved()

    def points(self) -> dict[str, Point]:
        """Last trusted counter values, for the checkpoint."""
        return self._meters.points()

    def samples(self) -> dict[str, list[Sample]]:
        """What the baselines remember, for the checkpoint."""
        kept = {key: list(samples) for key, samples in self._samples.items()}
        return kept | {key: baseline.samples() for key, baseline in self._baselines.items()}

    def _book_once(self, deltas: dict[str, Delta]) -> None:
        """A meter of an earlier run that returns tells of a time that was modelled in its place: less that it is a gap.

        Its joules are the hardware's, but those of the model were booked.
        """
        for key, delta in deltas.items():
            if is_stand_in(delta.device):
                self._modelled += delta.joules
            elif delta.event == "gap" and delta.device.component == "cpu" and key in self._roster.counted:
                twice = min(delta.joules, self._modelled)
                self._modelled -= twice
                deltas[key] = delta._replace(joules=delta.joules - twice)
        if self.cpu_metered:
            self._modelled = 0.0

    def _utilization(self, use: Use) -> dict[str, float]:
        """Busy seconds per second over a device's own capacity, where the use is known."""
        found: dict[str, float] = {}
        node, window, sockets = None, use.window_seconds, use.socket_busy_seconds
        if use.cpu is not None and use.cpu.window_seconds > 0 and use.cpu_capacity > 0:
            node = use.cpu.busy_seconds / use.cpu.window_seconds / use.cpu_capacity
        for key, device in self._roster.known.items():
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
            if key in self._roster.counted:
                energies.append(_part(delta, baseline.idle.watts, watched))
        platforms = self._roster.platforms
        told = [deltas[key] for key in platforms if key in deltas]
        whole = [delta for delta in told if delta.event in _BOOKED]
        booked = sum(energy.joules for energy in energies)
        if whole:
            shown = sum(delta.joules for delta in whole) - self._unseen
            if any(delta.event == "gap" for delta in whole):  # it does not tell all of what it missed
                shown = max(0.0, shown)
            # Meters are not read at the same instant: what was booked too much is taken back first.
            self._other_owed += shown - booked
            energies.append(Energy(OTHER, max(0.0, self._other_owed), 0.0))
            self._other_owed = min(0.0, self._other_owed)
        believed = any(delta.event != "implausible" for delta in told)
        self._unseen = 0.0 if believed else self._unseen + booked
        return energies

    def _is_missed(self, device: Device, measured: Measured) -> bool:
        """Whether a device of an earlier run ought to have a reading.

        Not one that sleeps, and not one of a source that is switched off. A card that slept from the start is named by
        its place, because its id is not known without waking it: as long as there is such a one, it may be this.
        """
        if device.id in measured.asleep or device.source not in self._sources:
            return False
        unnamed = set(measured.asleep) - self._roster.known.keys() - self._roster.awaited.keys()
        return device.component != "gpu" or not unnamed

    def _baseline(self, device: Device) -> Baseline:
        baseline = self._baselines.get(device.id)
        if baseline is None:
            samples = self._samples.pop(device.id, ())
            baseline = Baseline(self._idle_watts.get(device.id), samples, device.idle_watts)
            self._baselines[device.id] = baseline
        return baseline


def _goes_on(saved: SavedDevice | None, point: Point, ended_at: float) -> bool:
    """Whether a counter tells what was used since an earlier run read it.

    Not if the device was given up: others may be counted in its place. Nor if the meter of the platform was away when
    that run ended: what its parts were booked meanwhile is not kept, and must not be told once more.
    """
    if saved is None:
        return False
    whole = saved.device.component == "platform" and saved.device.within is None
    return not whole or ended_at - point.at <= GAP_SECONDS


def _watched(delta: Delta, window_seconds: float) -> float:
    """The part of a delta's time of which it is known who was busy."""
    return window_seconds / delta.seconds if delta.seconds > window_seconds * _WATCHED + 0.1 else 1.0


def _part(delta: Delta, idle_watts: float | None, watched: float) -> Energy:
    """Active, idle and gap of one delta; the part of it that nobody watched is a gap."""
    if delta.event == "gap":
        return Energy(delta.device, 0.0, 0.0, delta.joules)
    energy = split_idle(delta.device, delta.joules * watched, delta.seconds * watched, idle_watts)
    return energy if watched == 1.0 else energy._replace(gap=delta.joules - energy.active - energy.idle)
