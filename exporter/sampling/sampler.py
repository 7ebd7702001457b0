"""One tick: read every source within its deadline, divide the joules, publish one immutable snapshot."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from random import Random

from ..accounting.attribution import CpuIdle, CpuMethod, Shares, share
from ..accounting.card_watch import CardWatch
from ..accounting.cpu_prices import CpuPrices
from ..accounting.devices import Devices, Restart
from ..accounting.gpu_allocations import AllocationCache
from ..accounting.gpu_claims import Reservations
from ..accounting.held_time import HeldSeconds, HeldTime
from ..accounting.ledger import Ledger, Limits
from ..accounting.measurement import Measured, Use
from ..accounting.period import Period
from ..accounting.scope import ScopeCheck
from ..host import Host
from ..impact.protocol import FactorProvider, NoFactors
from ..impact.values import NOTHING_IN_FORCE, Embodied, Factors
from ..records import Allocation, Reading, Workload
from ..snapshot import EmbodiedView, ExporterState, GpuView, ImpactView, NodeEnergy, Snapshot
from ..sources.protocol import Source
from ..workloads.protocol import Namer
from .checkpointer import Accounts, Changes, Checkpointer
from .deadline import WorkerPool
from .memory import MemoryWatch
from .regions import RegionPosting, WatchedCards
from .source_runner import BesideOthers, SourceRunner
from .state_file import StateStore
from .tokens import TokenPosting

_log = logging.getLogger("sampler")

_CPU_COUNT_TICKS = 60
_REVIEW_SECONDS = 600.0
_REGION_JITTER = 0.5
"""While programs report regions, ticks come later by up to this share of the interval: their steps must not be in time
with the reads."""


@dataclass(frozen=True, slots=True)
class SamplerOptions:
    """How to sample, in seconds and watts; see the settings table for meanings and bounds."""

    interval_seconds: float = 1.0
    source_timeout_seconds: float = 0.5
    process_top: int = 50
    container_max: int = 5000
    cpu_idle: CpuIdle = "node"
    cpu_method: CpuMethod = "time"
    linger_seconds: float = 300.0
    idle_watts: Mapping[str, float] = field(default_factory=dict)
    checkpoint_seconds: float = 60.0
    gpu_reservations: Sequence[str] = ()
    embodied: Embodied | None = None

    @property
    def limits(self) -> Limits:
        """The part that concerns the ledger."""
        return Limits(self.process_top, self.container_max, self.linger_seconds)


def no_scrapers(now: float) -> int | None:  # noqa: ARG001 - the signature of `ScrapeLog.received_by_all`
    """Without regular scrapers, nothing waits for them."""
    return None


class Sampler:
    """Owns the ledger and everything else that a tick changes. ``tick`` is called from one thread only.

    ``snapshot`` may be read from any thread: it is replaced by a single assignment. ``pools`` creates the worker
    pools, by name, that read the sources and write the state file. ``received_by_all`` returns the
    newest snapshot that every regular scraper has received at a boot time, None without regular scrapers. ``factors``
    provides carbon intensity and price. ``watched`` is where the source of cards finds which ones to read more often.
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
        received_by_all: Callable[[float], int | None] = no_scrapers,
        factors: FactorProvider | None = None,
        demo: bool = False,
        watched: WatchedCards | None = None,
        pools: Callable[[str], WorkerPool] = WorkerPool,
    ) -> None:
        self.options = options or SamplerOptions()
        self.snapshot: Snapshot | None = None
        self._host = host
        self._demo = demo
        self._observers = observers
        self._received_by_all = received_by_all
        self._pool = pools("sources")
        self._sources = [SourceRunner(source, host.clock, self._pool) for source in sources]
        self._beside = BesideOthers(self._sources)
        self._namer = namer
        self._ledger = Ledger(namer, self.options.limits)
        self._tokens = TokenPosting(self._ledger, namer)
        self._regions = RegionPosting(self._ledger, namer, watched)
        self._checkpointer = None if store is None else Checkpointer(store, host, pools("state"), demo=demo)
        self._booted_at = host.wall() - host.clock()
        self._in_force = NOTHING_IN_FORCE
        self._held = HeldTime() if self.options.embodied is not None else None
        self._devices = self._restore()
        self._allocations = AllocationCache()
        self._cards = CardWatch()
        self._reservations = Reservations(self.options.gpu_reservations)
        self._scope = ScopeCheck()
        self._random = Random()
        self._last_at: float | None = None
        self._sequence = 0
        self._sample_seconds = 0.0
        self._overruns = 0
        self._start_time = host.wall()
        self._memory = MemoryWatch(host, self._ledger)
        self._review_at = host.clock() + _REVIEW_SECONDS
        self._cpus = 0.0
        self._cpu_prices = CpuPrices() if self.options.cpu_method == "learned" else None
        self._provider: FactorProvider = factors or NoFactors()
        self._factors: Factors | None = Factors()  # replaced by the first tick

    def _restore(self) -> Devices:
        """Restore the checkpoint of an earlier run, if there is one."""
        loaded = None if self._checkpointer is None else self._checkpointer.load()
        if loaded is None:
            return Devices(self.options.idle_watts)
        state, same_boot = loaded
        self._in_force = state.in_force
        if self._held is not None:
            self._held = HeldTime(state.held)
        self._ledger.restore(state.ledger, self._host.clock(), same_boot=same_boot)
        if state.tokens is not None:
            self._tokens.accounts.restore(state.tokens)
        if state.regions is not None:
            self._regions.accounts.restore(state.regions, self._host.clock())
        _log.info(
            "checkpoint restored: %d accounts, %s", len(state.ledger.accounts), "same boot" if same_boot else "new boot"
        )
        if not same_boot:
            state.devices.points = {}
        restart = Restart(
            state.devices,
            ended_at=state.at,
            started_at=self._booted_at + self._host.clock(),
            sources=[source.name for source in self._sources],
            lagging=state.lagging,
        )
        return Devices(self.options.idle_watts, restart)

    # --- running ------------------------------------------------------------------------------------

    def run(self, stop: threading.Event) -> None:
        """Tick on a steady schedule until ``stop``; missed ticks are skipped and counted."""
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
            jitter = self._random.uniform(0.0, _REGION_JITTER) if self._regions.accounts.active else 0.0
            jitter *= self.options.interval_seconds
            stop.wait(max(0.0, due + jitter - clock()))

    def reconfigure(self, options: SamplerOptions) -> None:
        """Apply new options from the next tick on; accounts and learned baselines stay. Call between ticks."""
        if options.cpu_method != self.options.cpu_method:
            self._cpu_prices = CpuPrices() if options.cpu_method == "learned" else None
        self.options = options
        self._ledger.limits = options.limits
        self._reservations = Reservations(options.gpu_reservations)
        self._devices.configure(options.idle_watts)

    def retry(self) -> None:
        """Read the sources that are down in the next tick, and retry name providers at once. Call between ticks."""
        for source in self._sources:
            source.retry()
        self._namer.retry()
        self._provider.retry()

    def close(self) -> None:
        """Write a last checkpoint, release the state file, and close the sources."""
        rest = [reading for source in self._sources for reading in source.rest()]
        self._regions.finish(rest, self._host.clock())
        if self._checkpointer is not None:
            self._checkpointer.close(self._host.clock(), self._accounts())
        for source in self._sources:
            source.close()
        self._provider.close()
        self._pool.stop()
        self._namer.close()

    # --- one tick -----------------------------------------------------------------------------------

    def tick(self) -> Snapshot:
        """Read, divide, publish."""
        began = self._host.clock()
        window = 0.0 if self._last_at is None else began - self._last_at
        self._last_at = began
        self._price()
        readings = self._read(began)
        use = self._use(readings, window)
        measured = self._devices.measure((meter for reading in readings for meter in reading.meters), use)
        if began >= self._review_at:
            self._review_at = began + _REVIEW_SECONDS
            self._devices.review(measured, self._booted_at + began)  # the wall clock as of the start: it may be set
        self._beside.judge(measured.deltas.values(), self._devices.problems, self._scope.problems)
        news = next((reading.allocations for reading in readings if reading.allocations is not None), None)
        allocations = self._allocations.update(news, use.gpus, began)
        gpu_uses = self._ledger.located(use.gpu_uses)
        holders = {gpu_use.group for gpu_use in gpu_uses if gpu_use.group is not None} if allocations else ()
        owners = self._ledger.owners(holders)
        cpu = use.cpu if use.divisible else None
        weights = None
        if self._cpu_prices is not None and cpu is not None:
            weights = self._cpu_prices.weights(measured, cpu, self._ledger.by_group)
        reserved = self._reservations.places(allocations, self._ledger.pod_labels)
        shares = share(measured.energies, cpu, gpu_uses, self.options.cpu_idle, allocations, owners, weights, reserved)
        self._cards.update(use.gpus, window)
        scraped = self._received_by_all(began)
        period = Period.of(
            began,
            window or self.options.interval_seconds,
            measured.metered,
            self._devices.capacity(use),
            shares.cpu,
            use.gpu_window_seconds,
            born_at_zero=scraped is not None,
        )
        changed = self._ledger.post(
            period,
            shares,
            cpu=use.cpu,
            gpu_uses=gpu_uses,
            allocations=allocations,
            cards=self._cards,
            sequence=self._sequence + 1,
            scraped=scraped,
        )
        if self._held is not None:
            self._hold(window, measured, shares)
        self._tokens.post(readings, began, self._sequence + 1, scraped)
        self._regions.post(readings, measured, began, self._sequence + 1, scraped)
        closed = self._ledger.take_closed()
        if self._checkpointer is not None:
            changes = Changes(changed, closed)
            self._checkpointer.write(began, self._accounts(), changes, self.options.checkpoint_seconds)
        self._sequence += 1
        snapshot = self.snapshot = self._snapshot(readings, measured, allocations, began)
        for observe in self._observers:
            observe(snapshot)
        self._memory.check(began)
        self._sample_seconds += self._host.clock() - began
        return snapshot

    def _accounts(self) -> Accounts:
        tokens, regions = self._tokens.accounts, self._regions.accounts
        return Accounts(self._ledger, self._devices, tokens, regions, self._in_force, self._held_seconds())

    def _price(self) -> None:
        """Take the factors of now; what was counted until now keeps the grams and money of the factors before."""
        factors = self._provider.at(self._host.wall())
        if factors is self._factors:
            return
        self._factors = factors
        new = self._in_force.followed_by(factors)
        if new != self._in_force:
            rates, currency = self._in_force
            keep = currency in ("", new.currency)  # euros and dollars have no sum
            if not keep:
                _log.warning("the currency changed from %s to %s: money is counted from 0", currency, new.currency)
            self._ledger.settle(rates, keep_money=keep)
            self._devices.settle(rates, keep_money=keep)
            self._in_force = new

    def _hold(self, window: float, measured: Measured, shares: Shares) -> None:
        assert self._held is not None
        owners = [row.owner for row in self._ledger.containers() if isinstance(row.owner, Workload)]
        places = {owner.place: owner for owner in owners} if shares.places else {}
        self._held.add(window, measured.energies, shares, self._ledger.by_group, places)
        self._held.end({owner.key for owner in owners})

    def _held_seconds(self) -> HeldSeconds | None:
        return None if self._held is None else self._held.seconds

    def _read(self, now: float) -> list[Reading]:
        for source in self._sources:
            # The estimate replaces a meter: once there is one, the estimate is not read any more.
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
        cpu, divisible = self._scope.apply(
            next((reading.cpu for reading in readings if reading.cpu is not None), None),
            next((reading.machine for reading in readings if reading.machine is not None), None),
            metered=self._devices.cpu_metered,
        )
        return Use(
            window,
            cpus,
            cpu,
            [use for reading in readings for use in reading.gpu_uses],
            [gpu for reading in readings for gpu in reading.gpus],
            {socket: busy for reading in readings for socket, busy in reading.socket_busy_seconds.items()},
            frozenset(device for reading in readings for device in reading.asleep),
            divisible,
        )

    # --- publishing ---------------------------------------------------------------------------------

    def _snapshot(
        self, readings: Sequence[Reading], measured: Measured, allocations: tuple[Allocation, ...], began: float
    ) -> Snapshot:
        bounds = {bound.device: bound for reading in readings for bound in reading.bounds}
        ledger, devices = self._ledger, self._devices
        components = sorted(devices.node_joules)
        providers = (*self._namer.health(), *self._provider.health())
        unnamed = ledger.unnamed()
        return Snapshot(
            sequence=self._sequence,
            taken_at=self._host.wall(),
            monotonic_at=began,
            interval_seconds=self.options.interval_seconds,
            demo=self._demo,
            energy=NodeEnergy(
                devices=devices.rows(measured, bounds, self._host.wall() - self._host.clock()),
                nodes=devices.node_rows(measured),
                containers=ledger.containers(),
                processes=ledger.processes(),
                models=ledger.models(),
                unattributed=tuple((*key, joules) for key, joules in sorted(ledger.unattributed.items())),
                retired=tuple((component, ledger.retired.get(component, 0.0)) for component in components),
                unnamed=tuple((component, unnamed.get(component, 0.0)) for component in components),
                retired_devices=devices.retired_joules,
                container_models=ledger.container_models(),
                process_models=ledger.process_models(),
                cpu_prices={} if self._cpu_prices is None else self._cpu_prices.by_serial(),
                container_cards=ledger.container_cards() if "gpu" in devices.node_joules else (),
            ),
            impact=self._impact(),
            embodied=self._embodied(),
            tokens=self._tokens.accounts.view(),
            regions=self._regions.accounts.view(),
            gpu=GpuView(tuple(gpu for reading in readings for gpu in reading.gpus), allocations, devices.gpu_indexes),
            exporter=ExporterState(
                sources=(*(source.health() for source in self._sources), *providers),
                samples=self._sequence,
                sample_seconds=self._sample_seconds,
                overruns=self._overruns,
                series_dropped=tuple(sorted(ledger.dropped().items())),
                counted_since=self._start_time if self._checkpointer is None else self._checkpointer.counted_since,
                start_time=self._start_time,
            ),
        )

    def _impact(self) -> ImpactView | None:
        factors, rates, ledger = self._factors, self._in_force.rates, self._ledger
        if factors is None:
            return None
        return ImpactView(
            factors,
            rates,
            self._devices.impact(rates),
            ledger.impact_of_unattributed(rates),
            ledger.impact_of_retired(rates),
            ledger.impact_of_unnamed(rates),
        )

    def _embodied(self) -> EmbodiedView | None:
        per_hour = self.options.embodied
        if self._held is None or per_hour is None:
            return None
        seconds = self._held.seconds
        return EmbodiedView(per_hour, seconds.node, dict(seconds.containers))
