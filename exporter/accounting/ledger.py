"""The ledger: what each workload has been charged, and what no workload has been charged for."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, count

from ..impact.values import Impact, Rates, Settled
from ..records import (
    Allocation,
    Component,
    CpuUse,
    GpuUse,
    GroupKey,
    Model,
    Place,
    Process,
    ProcessKey,
    ProcessOwner,
    UnattributedReason,
    Workload,
)
from ..snapshot import AccountRow, CardRow
from ..workloads.protocol import Namer
from .accounts import Account, LedgerState, Owner, SettledTotals
from .attribution import Shares
from .births import Births
from .card_watch import CardWatch
from .containers import OVERFLOW, ContainerAccounts
from .gpu_posting import GpuPosting
from .impacts import add_up, settle
from .models import ModelAccounts, is_alone
from .period import Period
from .processes import ProcessAccounts, ProcessRecord

_HOUSEKEEPING_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class Limits:
    """How many accounts are published, and how long after the end of their workload."""

    process_top: int = 50
    container_max: int = 5000
    linger_seconds: float = 300.0


class Ledger:
    """Accounts of containers, processes and models.

    Containers conserve: ``Σ devices = Σ containers + unattributed + retired`` for each component.
    Processes and models are views of the same joules. An account starts at 0, only grows, outlives its
    workload by ``Limits.linger_seconds``, and is then added to ``retired``.
    """

    def __init__(self, namer: Namer, limits: Limits | None = None) -> None:
        self._limits = limits or Limits()
        self.shed_processes = False
        self.unattributed: defaultdict[tuple[Component, UnattributedReason], float] = defaultdict(float)
        self.retired: defaultdict[Component, float] = defaultdict(float)
        self._namer = namer
        self._serials = count(1)
        self._models = ModelAccounts(self._serials, namer.is_shared)
        self._processes = ProcessAccounts(self._serials, self._models)
        self._containers = ContainerAccounts(self._serials, namer, self._limits.container_max)
        self._gpus = GpuPosting(self._containers, self._processes, self._models, self._open)
        self._changed: set[Account] = set()
        self._active: set[Account] = set()  # they need a row in the next tick even without usage
        self._known: tuple[object, ...] = ()
        self._kept_at = float("-inf")
        self._closed: list[Account] = []
        self._births = Births()
        self._settled = self._saved = SettledTotals()

    @property
    def limits(self) -> Limits:
        """May be replaced between two ticks."""
        return self._limits

    @limits.setter
    def limits(self, limits: Limits) -> None:
        self._limits = limits
        self._containers.limit = limits.container_max

    # --- posting ------------------------------------------------------------------------------------

    def post(
        self,
        period: Period,
        shares: Shares,
        *,
        cpu: CpuUse | None = None,
        gpu_uses: Sequence[GpuUse] = (),
        allocations: Sequence[Allocation] = (),
        cards: CardWatch | None = None,
        sequence: int = 0,
        scraped: int | None = None,
    ) -> list[Account]:
        """Charge one tick's shares and make its rows; returns the published accounts that may have changed.

        The rows are those of snapshot ``sequence``; ``scraped`` is the newest one that every regular scraper has
        received, None if there are no regular scrapers. ``cards`` have what each GPU did.
        """
        self._changed.update(self._births.release(scraped))
        for key, joules in shares.unattributed.items():
            self.unattributed[key] += joules
        self._rename(period.now)
        if cpu is not None:
            for group in cpu.started:
                self._containers.start(group, period)
            self._post_cpu(period.now, cpu, shares.cpu_weights)
        cpu_seconds = None if cpu is None else cpu.window_seconds
        self._changed |= self._gpus.post(period.now, shares, gpu_uses, allocations, cards or CardWatch(), cpu_seconds)
        if cpu is not None:
            for process in cpu.exited:
                self._processes.exit(process, period.now)
            for group in cpu.ended:
                self._containers.end(group, period.now)
        if period.now - self._kept_at >= _HOUSEKEEPING_SECONDS or not self._processes.any_published:
            self._kept_at = period.now
            self._expire(period.now)
            self._processes.rank(period, self.limits.process_top, shed=self.shed_processes)
            self._changed.update(account for account in self._processes.published() if account.row is None)
        return self._finish_tick(period, sequence)

    def _post_cpu(self, now: float, cpu: CpuUse, weights: Mapping[GroupKey, float]) -> None:
        changed, records, groups = self._changed, self._processes.records, self._containers.groups
        occupied = self._models.occupancy
        left = self._processes.left(cpu.exited) if occupied else {}
        for group, seconds, processes, listing, reaped in cpu.groups:
            container = groups.get(group) or self._containers.find(group, now)
            surplus = weights.get(group, 1.0) - 1.0 if weights else 0.0
            rest, others, newcomers = seconds, 0.0, False
            container.use_cpu(seconds, surplus)
            changed.add(container)
            for process, used in processes:
                record = records.get(process.key)
                if record is None or record.container is not container or record.comm != process.comm:
                    record = self._open(process, group, container, now)
                    newcomers |= record.model is None
                account = record.account
                account.use_cpu(used, surplus)
                changed.add(account)
                record.seen_at = now
                if record.model is not None:
                    record.model.use_cpu(used, surplus)
                    changed.add(record.model)
                elif occupied:
                    others += used
                    record.unnamed_seconds += used
                rest -= used
            if (occupancy := occupied.get(container)) is not None:
                occupancy.add(seconds - rest - others, others, now)
                if rest > 0 or occupancy.waiting:
                    beside = newcomers or not is_alone(seconds, others)
                    known = listing if not left.get(container) else "partial"
                    of, apart = self._processes.divide_reaped(reaped, container, left) if reaped else ((), 0.0)
                    changed.update(occupancy.charge_rest(group, rest - apart, surplus, known, of, strangers=beside))

    def _finish_tick(self, period: Period, sequence: int) -> list[Account]:
        if period.known != self._known:
            # A meter appeared or vanished: every row gains or loses its watts.
            self._known = period.known
            for account in self._containers:
                if account.members:
                    account.start_at_zero(period)
            self._changed.update(self._containers, self._models, self._processes.published())
        # An account that was closed in this tick must not be saved again: its joules have moved.
        changed, self._changed = self._changed, set()
        changed |= self._active
        changed |= self._containers.take_changed()
        changed.difference_update(self._closed, self._containers.closed)
        self._births.forget((*self._closed, *self._containers.closed))
        self._active.clear()
        published = []
        for account in changed:
            if account.hidden:
                account.skip_row(period)
                continue
            published.append(account)
            if account.finish_tick(period):
                self._active.add(account)
            if account.newborn:
                self._births.observe(account, sequence)
        return published

    # --- accounts that open and expire ----------------------------------------------------------------

    def _rename(self, now: float) -> None:
        groups = self._containers.rename(self._namer.renamed(), now)
        if not groups:
            return
        for process, record in self._processes.of_groups(groups):
            assert record.group is not None
            container = self._containers.groups.get(record.group) or record.container
            if container is not None:
                model = self._model(process, record.group, container)
                self._changed.update(self._processes.rename(process, record, container, model, now))

    def _open(self, process: Process, group: GroupKey | None, container: Account, now: float) -> ProcessRecord:
        return self._processes.open(process, group, container, self._model(process, group, container), now)

    def _model(self, process: Process, group: GroupKey | None, container: Account) -> Model | None:
        """Its model; None while its container has no name yet, because that gives the model its namespace."""
        if container.held_until is not None:
            self._namer.learn(group, process)
            return None
        return self._namer.model(group, process)

    def _expire(self, now: float) -> None:
        deadline = now - self.limits.linger_seconds
        for account in self._containers.expire(deadline):
            for (component, _), joules in account.joules.items():
                self.retired[component] += joules
            self._settled = self._settled.with_retired(account.settled)
        self._closed += self._models.expire(deadline)
        self._models.forget(set(self._containers), now)
        self._processes.expire(deadline, now)

    # --- grams and money ----------------------------------------------------------------------------

    def settle(self, rates: Rates, *, keep_money: bool = True) -> None:
        """Keep the impact of all joules so far, at the ``rates`` that were in force; every row is replaced."""
        accounts = [*self._containers, *self._models]
        for account in accounts:
            account.settle(rates, keep_money=keep_money)
        self._changed.update(accounts)
        self._settled = SettledTotals(
            settle(self.unattributed, self._settled.unattributed, rates, keep_money=keep_money),
            settle(self.retired, self._settled.retired, rates, keep_money=keep_money),
        )

    def impact_of_unattributed(self, rates: Rates) -> dict[UnattributedReason, Impact]:
        """Grams and money of `unattributed`, by reason."""
        sums: defaultdict[UnattributedReason, float] = defaultdict(float)
        for (_, reason), joules in self.unattributed.items():
            sums[reason] += joules
        settled, new = self._settled.by_reason, Settled()
        return {reason: settled.get(reason, new).impact(joules, rates) for reason, joules in sums.items()}

    def impact_of_retired(self, rates: Rates) -> Impact:
        """Grams and money of `retired`."""
        return self._settled.all_retired.impact(sum(self.retired.values()), rates)

    def impact_of_unnamed(self, rates: Rates) -> Impact:
        """Grams and money of `unnamed`."""
        return add_up(chain(self._containers.impacts_of_unnamed(rates), self._births.impacts_of_unpublished(rates)))

    # --- reading ------------------------------------------------------------------------------------

    def located(self, uses: Sequence[GpuUse]) -> Sequence[GpuUse]:
        """``uses`` with the cgroup in which a process was last seen, where its own cannot be read now."""
        if all(use.known for use in uses):
            return uses
        records = self._processes.records
        return [
            use._replace(group=record.group)
            if use.group is None and use.process is not None and (record := records.get(use.process.key)) is not None
            else use
            for use in uses
        ]

    def owners(self, groups: Collection[GroupKey]) -> dict[GroupKey, Workload]:
        """The owner of each cgroup, under the name of its account."""
        return {group: self._owner(group) for group in groups}

    def _owner(self, group: GroupKey) -> Workload:
        account = self._containers.groups.get(group)
        owner = None if account is None else account.owner
        return owner if isinstance(owner, Workload) and owner != OVERFLOW else self._namer.settled(group)

    def pod_labels(self, place: Place) -> Mapping[str, str] | None:
        """Labels of the pod of a container, None if they are not known."""
        owner = self._containers.owner(place)
        return None if owner is None else self._namer.pod_labels(owner)

    @property
    def by_group(self) -> Mapping[GroupKey, Account]:
        """The container account of each cgroup that was started."""
        return self._containers.groups

    def containers(self) -> tuple[AccountRow, ...]:
        """Rows of all container accounts."""
        return self._containers.rows()

    def container_cards(self) -> tuple[CardRow, ...]:
        """GPU joules of the published container accounts by card."""
        return self._containers.cards()

    def processes(self) -> tuple[AccountRow, ...]:
        """Rows of the published process accounts."""
        return self._processes.rows()

    def process_joules(self, process: ProcessKey) -> Mapping[Component, float] | None:
        """All joules of a process by component, None if it has no account."""
        return self._processes.joules(process)

    def models(self) -> tuple[AccountRow, ...]:
        """Rows of all model accounts."""
        return self._models.rows()

    def container_models(self) -> dict[int, Model]:
        """Container account serial → the model that the container as a whole works for."""
        return self._models.by_container()

    def process_models(self) -> Mapping[int, Model]:
        """Process account serial → the model that the process works for."""
        return self._processes.models()

    def unnamed(self) -> dict[Component, float]:
        """Joules of containers that are not published yet: their names are being looked up, or they are newborn."""
        joules = self._containers.unnamed()
        for component, amount in self._births.unpublished().items():
            joules[component] = joules.get(component, 0.0) + amount
        return joules

    def dropped(self) -> dict[str, int]:
        """How often a series was dropped because of a limit, by level."""
        return {"container": self._containers.overflowed, "process": self._processes.dropped}

    # --- across restarts ----------------------------------------------------------------------------

    def totals(self) -> LedgerState:
        """Its state without accounts."""
        settled = None if self._settled is self._saved else self._settled
        self._saved = self._settled
        return LedgerState(dict(self.unattributed), dict(self.retired), settled=settled)

    def state(self) -> LedgerState:
        """Its whole state; processes that are not published need not survive a restart."""
        state = self.totals()
        state.settled = self._settled
        state.accounts = [each.saved() for each in (*self._containers, *self._models, *self._processes.published())]
        return state

    def take_closed(self) -> list[Owner]:
        """Owners of the accounts that were closed since the last call."""
        closed, self._closed = self._closed, []
        return [account.owner for account in (*closed, *self._containers.take_closed())]

    def restore(self, state: LedgerState, now: float, *, same_boot: bool) -> None:
        """Restore the state of an earlier run; accounts without a workload expire after the linger time."""
        self.unattributed.update(state.unattributed)
        self.retired.update(state.retired)
        self._settled = state.settled or SettledTotals()
        for saved in state.accounts:
            if isinstance(saved.owner, ProcessOwner) and not same_boot:
                continue
            account = Account.restored(next(self._serials), saved, now)
            if isinstance(saved.owner, Workload):
                self._containers.restore(account)
            elif isinstance(saved.owner, Model):
                self._models.restore(account)
            else:
                self._processes.restore(account, now)
            self._changed.add(account)
