"""One tick: read every source within its deadline, divide the joules, publish one immutable snapshot."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from ..accounting.accounts import Period
from ..accounting.attribution import CpuIdle, share
from ..accounting.device_inventory import is_stand_in
from ..accounting.devices import Devices, Measured, Use
from ..accounting.gpu_allocations import Allocations
from ..accounting.ledger import Ledger, Limits
from ..host import Host
from ..records import Allocation, Namer, Reading, Source
from ..snapshot import Snapshot
from .checkpointer import Changes, Keeper
from .deadline import Crew
from .source_runner import SourceRunner
from .state_file import StateStore

_log = logging.getLogger("sampler")

_CPU_COUNT_TICKS = 60
_REVIEW_SECONDS = 600.0
_MEMORY_CHECK_SECONDS = 10.0
_MEMORY_SHED_RATIO = 0.85
_MEMORY_BACK_RATIO = 0.75


@dataclass(frozen=True, slots=True)
class SamplerOptions:
    """How to sample. Seconds and watts; see the settings table for what each means and its bounds."""

    interval_seconds: float = 1.0
    source_timeout_seconds: float = 0.5
    process_top: int = 50
    container_max: int = 5000
    cpu_idle: CpuIdle = "node"
    linger_seconds: float = 300.0
    idle_watts: Mapping[str, float] = field(default_factory=dict)
    checkpoint_seconds: float = 60.0

    @property
    def limits(self) -> Limits:
        """The part that concerns the ledger."""
        return Limits(self.process_top, self.container_max, self.linger_seconds)


class Sampler:
    """Owns the ledger and everything that changes with a tick. ``tick`` is called from one thread only.

    ``snapshot`` may be read from any thread: it is replaced by a single assignment. ``crews`` makes the threads, by
    name, that read the sources and write the state file.
    """

    def __init__(
        self,
        sources: Sequence[Source],
        namer: Namer,
        host: Host,
        options: SamplerOptions | None = None,
        *,
        store: StateStore | None = None,
        observers: Sequence[Callable[[Snapshot], None]] = (),
        demo: bool = False,
        crews: Callable[[str], Crew] = Crew,
    ) -> None:
        self.options = options or SamplerOptions()
        self.snapshot: Snapshot | None = None
        self.config_reload_ok = True
        self._host = host
        self._demo = demo
        self._observers = observers
        self._crew = crews("sources")
        self._sources = [SourceRunner(source, host.clock, self._crew) for source in sources]
        self._namer = namer
        self._ledger = Ledger(namer, self.options.limits)
        self._keeper = None if store is None else Keeper(store, host, crews("state"), demo=demo)
        self._booted_at = host.wall() - host.clock()
        self._devices = self._open_books()
        self._allocations = Allocations()
        self._last_at: float | None = None
        self._sequence = 0
        self._sample_seconds = 0.0
        self._overruns = 0
        self._start_time = host.wall()
        self._memory_at = float("-inf")
        self._review_at = host.clock() + _REVIEW_SECONDS
        self._cpus = 0.0

    def _open_books(self) -> Devices:
        """Go on where the last run ended, if there was one."""
        loaded = None if self._keeper is None else self._keeper.load()
        if loaded is None:
            return Devices(self.options.idle_watts)
        state, same_boot = loaded
        self._ledger.restore(state.books, self._host.clock(), same_boot=same_boot)
        _log.info(
            "books restored: %d accounts, %s", len(state.books.accounts), "same boot" if same_boot else "new boot"
        )
        return Devices(
            self.options.idle_watts,
            state.points if same_boot else {},
            state.baselines,
            state.known,
            ended_at=state.at,
            started_at=self._booted_at + self._host.clock(),
            sources=[source.name for source in self._sources],
            # A meter of the CPU ends its stand-in: what that one has was all booked since.
            modelled=sum(
                state.books.devices.get(key, 0.0) for key, entry in state.known.items() if is_stand_in(entry.device)
            ),
            lags=state.lags,
        )

    # --- running ------------------------------------------------------------------------------------

    def run(self, stop: threading.Event) -> None:
        """Tick on a steady schedule until ``stop``; ticks that were missed are skipped and counted (fault 52)."""
        clock = self._host.clock
        due = clock()
        while not stop.is_set():
            self.tick()
            due += self.options.interval_seconds
            late = clock() - due
            if late > 0:
                missed = int(late / self.options.interval_seconds) + 1
                self._overruns += missed
                due += missed * self.options.interval_seconds
            stop.wait(max(0.0, due - clock()))

    def reconfigure(self, options: SamplerOptions) -> None:
        """Take new options from the next tick on; accounts and learned baselines stay. Call between ticks."""
        self.options = options
        self._ledger.limits = options.limits
        self._devices.configure(options.idle_watts)

    def retry(self) -> None:
        """Have the next tick read the sources that are down, and names asked for again at once. Call between ticks."""
        for source in self._sources:
            source.retry()
        self._namer.retry()

    def close(self) -> None:
        """Write a last checkpoint, release the state file, and let the sources go."""
        if self._keeper is not None:
            self._keeper.close(self._host.clock(), self._ledger, self._devices)
        for source in self._sources:
            source.close()
        self._crew.stop()
        self._namer.close()

    # --- one tick -----------------------------------------------------------------------------------

    def tick(self) -> Snapshot:
        """Read, divide, publish."""
        began = self._host.clock()
        window = 0.0 if self._last_at is None else began - self._last_at
        self._last_at = began
        readings = self._read(began)
        use = self._use(readings, window)
        measured = self._devices.measure((meter for reading in readings for meter in reading.meters), use)
        self._part_with_devices(measured, began)
        implausible = [delta for delta in measured.deltas.values() if delta.event == "implausible"]
        for source in self._sources:
            source.reject(implausible)
        told = next((reading.allocations for reading in readings if reading.allocations is not None), None)
        allocations = self._allocations.learn(told, use.gpus, began)
        shares = share(measured.energies, use.cpu, use.gpu_uses, self.options.cpu_idle, allocations, self._ledger.owner)
        period = Period.of(
            began,
            window or self.options.interval_seconds,
            measured.metered,
            self._devices.capacity(use),
            shares.cpu,
            use.gpu_window_seconds,
        )
        changed = self._ledger.post(
            period,
            measured.joules,
            measured.energies,
            shares,
            cpu=use.cpu,
            gpu_uses=use.gpu_uses,
            allocations=allocations,
        )
        closed = self._ledger.take_closed()
        if self._keeper is not None:
            state = Changes(changed, closed)
            self._keeper.write(began, self._ledger, self._devices, state, self.options.checkpoint_seconds)
        self._sequence += 1
        snapshot = self.snapshot = self._picture(readings, measured, allocations, began)
        for observe in self._observers:
            observe(snapshot)
        self._check_memory(began)
        self._sample_seconds += self._host.clock() - began
        return snapshot

    def _read(self, now: float) -> list[Reading]:
        for source in self._sources:
            # The estimate stands in for a meter: once there is one, it is not asked any more.
            if not (source.name == "estimate" and self._devices.cpu_metered):
                source.ask(now)
        deadline = now + min(self.options.source_timeout_seconds, self.options.interval_seconds)
        taken = [source.take(deadline, self._host.wall()) for source in self._sources]
        return [reading for reading in taken if reading is not None]

    def _use(self, readings: Sequence[Reading], window: float) -> Use:
        if self._demo:
            cpus = self._devices.cpu_capacity()
        else:
            if self._sequence % _CPU_COUNT_TICKS == 0:
                self._cpus = float(self._host.cpu_count())
            cpus = self._cpus
        return Use(
            window,
            cpus,
            next((reading.cpu for reading in readings if reading.cpu is not None), None),
            [use for reading in readings for use in reading.gpu_uses],
            [gpu for reading in readings for gpu in reading.gpus],
            {socket: busy for reading in readings for socket, busy in reading.socket_busy_seconds.items()},
            frozenset(device for reading in readings for device in reading.asleep),
        )

    def _part_with_devices(self, measured: Measured, now: float) -> None:
        if now >= self._review_at:
            self._review_at = now + _REVIEW_SECONDS
            self._devices.review(measured, self._booted_at + now)  # as the wall clock stood at the start (fault 50)
        for device, component in self._devices.take_gone():
            self._ledger.retire(device, component)

    # --- publishing ---------------------------------------------------------------------------------

    def _picture(
        self, readings: Sequence[Reading], measured: Measured, allocations: tuple[Allocation, ...], began: float
    ) -> Snapshot:
        bounds = {bound.device: bound for reading in readings for bound in reading.bounds}
        ledger = self._ledger
        directories = self._namer.health()
        unnamed = ledger.unnamed()
        return Snapshot(
            sequence=self._sequence,
            taken_at=self._host.wall(),
            monotonic_at=began,
            interval_seconds=self.options.interval_seconds,
            demo=self._demo,
            devices=self._devices.rows(measured, ledger.devices, bounds, self._host.wall() - self._host.clock()),
            nodes=self._devices.node_rows(measured, ledger.nodes),
            containers=ledger.containers(),
            processes=ledger.processes(),
            models=ledger.models(),
            unattributed=tuple((*key, joules) for key, joules in sorted(ledger.unattributed.items())),
            retired=tuple((component, ledger.retired.get(component, 0.0)) for component in sorted(ledger.nodes)),
            unnamed=tuple((component, unnamed.get(component, 0.0)) for component in sorted(ledger.nodes))
            if directories or unnamed
            else (),
            retired_devices=ledger.retired_devices,
            gpus=tuple(gpu for reading in readings for gpu in reading.gpus),
            allocations=allocations,
            container_models=ledger.container_models(),
            sources=(*(source.health() for source in self._sources), *directories),
            samples=self._sequence,
            sample_seconds=self._sample_seconds,
            overruns=self._overruns,
            series_dropped=tuple(sorted(ledger.dropped().items())),
            config_reload_ok=self.config_reload_ok,
            start_time=self._start_time,
        )

    def _check_memory(self, now: float) -> None:
        """Show fewer series before the kernel ends us: process series go first (fault 59)."""
        if now - self._memory_at < _MEMORY_CHECK_SECONDS:
            return
        self._memory_at = now
        ratio = self._host.memory_ratio()
        if ratio is None:
            return
        shed = ratio >= (_MEMORY_BACK_RATIO if self._ledger.shed_processes else _MEMORY_SHED_RATIO)
        if shed != self._ledger.shed_processes:
            self._ledger.shed_processes = shed
            _log.warning("process series are %s", "dropped: memory is short" if shed else "back: memory is free again")
