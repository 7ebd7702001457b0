"""Keep the books: what each device gave, what each workload was charged, and that both are equal."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, count

from ..records import HOST, Allocation, Component, CpuUse, GpuUse, GroupKey, Loss, Model, Namer, Process, Workload
from ..snapshot import AccountRow
from .accounts import Account, Books, Owner, Period
from .attribution import Energy, Shares
from .containers import OVERFLOW, ContainerAccounts
from .models import ModelAccounts
from .processes import ProcessAccounts, ProcessRecord

_HOUSEKEEPING_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class Limits:
    """How many accounts are shown, and how long after the end of their workload."""

    process_top: int = 50
    container_max: int = 5000
    linger_seconds: float = 300.0


class Ledger:
    """Accounts of devices, containers, processes and models.

    Containers conserve: ``Σ devices = Σ containers + unattributed + retired`` for each component.
    Processes and models are views of the same joules. An account starts at 0, only grows, outlives its
    workload by ``Limits.linger_seconds``, and is then folded into ``retired``.
    """

    def __init__(self, namer: Namer, limits: Limits | None = None) -> None:
        self._limits = limits or Limits()
        self.shed_processes = False
        self.devices: defaultdict[str, float] = defaultdict(float)
        self.nodes: defaultdict[Component, float] = defaultdict(float)
        self.unattributed: defaultdict[tuple[Component, Loss], float] = defaultdict(float)
        self.retired: defaultdict[Component, float] = defaultdict(float)
        self.retired_devices: Mapping[Component, float] = {}
        self._namer = namer
        self._serials = count(1)
        self._models = ModelAccounts(self._serials)
        self._processes = ProcessAccounts(self._serials, self._models)
        self._dirty: set[Account] = set()
        self._containers = ContainerAccounts(self._serials, namer, self._dirty, self._limits.container_max)
        self._hot: set[Account] = set()
        self._known: tuple[object, ...] = ()
        self._kept_at = float("-inf")
        self._closed: list[Account] = []

    @property
    def limits(self) -> Limits:
        """May be replaced between two ticks."""
        return self._limits

    @limits.setter
    def limits(self, limits: Limits) -> None:
        self._limits = limits
        self._containers.most = limits.container_max

    # --- posting ------------------------------------------------------------------------------------

    def post(
        self,
        period: Period,
        devices: Mapping[str, float],
        energies: Iterable[Energy],
        shares: Shares,
        *,
        cpu: CpuUse | None = None,
        gpu_uses: Sequence[GpuUse] = (),
        allocations: Sequence[Allocation] = (),
    ) -> list[Account]:
        """Book one tick and make its rows; returns the accounts on show that may have changed.

        ``devices`` are the joules of every device, ``energies`` those of the countable ones that
        ``shares`` divides.
        """
        for device, joules in devices.items():
            self.devices[device] += joules
        for energy in energies:
            self.nodes[energy.device.component] += energy.joules
        for key, joules in shares.unattributed.items():
            self.unattributed[key] += joules
        self._rename(period.now)
        if cpu is not None:
            for group in cpu.started:
                self._containers.start(group, period)
            self._post_cpu(period.now, cpu)
        self._post_gpu(period.now, shares, gpu_uses)
        self._post_places(period.now, shares, allocations)
        if cpu is not None:
            for process in cpu.exited:
                self._processes.exit(process, period.now)
            for group in cpu.ended:
                self._containers.end(group, period.now)
        if period.now - self._kept_at >= _HOUSEKEEPING_SECONDS or not self._processes.shown():
            self._kept_at = period.now
            self._expire(period.now)
            self._processes.rank(period, self.limits.process_top, shed=self.shed_processes)
            self._dirty.update(account for account in self._processes.shown() if account.row is None)
        return self._settle(period)

    def retire(self, device: str, component: Component | None) -> None:
        """A device is no longer shown; where its joules were counted as those of a ``component``, they stay so."""
        joules = self.devices.pop(device, 0.0)
        if component is not None:
            # A new one each time: snapshots have the old one.
            before = self.retired_devices.get(component, 0.0)
            self.retired_devices = {**self.retired_devices, component: before + joules}

    def _post_cpu(self, now: float, cpu: CpuUse) -> None:
        dirty, records, groups = self._dirty, self._processes.records, self._containers.groups
        for group, seconds, processes in cpu.groups:
            container = groups.get(group) or self._containers.find(group, now)
            container.use_cpu(seconds)
            dirty.add(container)
            rest = seconds
            for process, used in processes:
                record = records.get(process.key)
                if record is None or record.container is not container or record.comm != process.comm:
                    record = self._open(process, group, container, now)
                account = record.account
                account.use_cpu(used)
                dirty.add(account)
                record.seen_at = now
                if record.model is not None:
                    record.model.use_cpu(used)
                    dirty.add(record.model)
                rest -= used
            if rest > 0 and (model := self._models.only(container)) is not None:
                # What exited processes used goes to the container's model.
                model.use_cpu(rest)
                dirty.add(model)

    def _post_gpu(self, now: float, shares: Shares, uses: Sequence[GpuUse]) -> None:
        if uses:
            self._processes.named_at = now
        for use in uses:
            if use.process.key.pid == 0:
                continue
            for account in self._gpu_accounts(use, now):
                account.use_gpu(use.seconds)
                self._dirty.add(account)
        for use, mode, joules in shares.gpu:
            for account in self._gpu_accounts(use, now):
                account.add_gpu(mode, joules)

    def _post_places(self, now: float, shares: Shares, allocations: Sequence[Allocation]) -> None:
        """What a container owes for a GPU that was given to it, and its model if there is no doubt which."""
        places = {(given.namespace, given.pod, given.container) for given in allocations}
        accounts = {
            place: [account] if (model := self._models.only(account)) is None else [account, model]
            for place, account in self._containers.give(places, now).items()
        }
        for account in chain.from_iterable(accounts.values()):
            account.use_gpu(0.0)
            self._dirty.add(account)
        for place, mode, joules in shares.places:
            for account in accounts[place]:
                account.add_gpu(mode, joules)

    def _gpu_accounts(self, use: GpuUse, now: float) -> list[Account]:
        record = self._processes.records.get(use.process.key)
        if use.group is not None:
            container = self._containers.find(use.group, now)
        elif record is not None and record.container is not None:
            container = record.container
        else:
            container = self._containers.stray(HOST, now)
        if record is None or record.container is not container:
            record = self._open(use.process, use.group, container, now)
        record.gpu = True
        record.seen_at = now
        accounts = [container, record.account]
        return accounts if record.model is None else [*accounts, record.model]

    def _settle(self, period: Period) -> list[Account]:
        if period.known != self._known:
            # A meter came or went: every row gains or loses its watts.
            self._known = period.known
            for account in self._containers:
                if account.members:
                    account.show(period)
            self._dirty.update(self._containers, self._models, self._processes.shown())
        # What was closed in this tick must not be saved once more: its joules are elsewhere now.
        changed = (self._dirty | self._hot).difference(self._closed, self._containers.closed)
        self._dirty.clear()
        self._hot.clear()
        settled = []
        for account in changed:
            if account.hidden:
                account.pass_over(period)
                continue
            settled.append(account)
            if account.settle(period):
                self._hot.add(account)
        return settled

    # --- coming and going ---------------------------------------------------------------------------

    def _rename(self, now: float) -> None:
        groups = self._containers.rename(self._namer.renamed(), now)
        if not groups:
            return
        for process, record in self._processes.of_groups(groups):
            assert record.group is not None
            container = self._containers.groups.get(record.group) or record.container
            if container is not None:
                model = self._model(process, record.group, container)
                self._dirty.update(self._processes.rename(process, record, container, model, now))

    def _open(self, process: Process, group: GroupKey | None, container: Account, now: float) -> ProcessRecord:
        return self._processes.open(process, group, container, self._model(process, group, container), now)

    def _model(self, process: Process, group: GroupKey | None, container: Account) -> Model | None:
        """Its model; not while its container waits for its name, because that has the model's namespace."""
        return None if container.held_until is not None else self._namer.model(group, process)

    def _expire(self, now: float) -> None:
        deadline = now - self.limits.linger_seconds
        gone = self._containers.expire(deadline)
        for account in gone:
            for (component, _), joules in account.joules.items():
                self.retired[component] += joules
        models = self._models.expire(deadline)
        self._closed += models
        self._processes.expire(deadline, now)

    # --- reading ------------------------------------------------------------------------------------

    def owner(self, group: GroupKey) -> Workload:
        """Whose a cgroup is, by the name it is booked under."""
        account = self._containers.groups.get(group)
        owner = None if account is None else account.owner
        return owner if isinstance(owner, Workload) and owner != OVERFLOW else self._namer.settled(group)

    def containers(self) -> tuple[AccountRow, ...]:
        """Rows of all container accounts."""
        return self._containers.rows()

    def processes(self) -> tuple[AccountRow, ...]:
        """Rows of the process accounts on show."""
        return self._processes.rows()

    def models(self) -> tuple[AccountRow, ...]:
        """Rows of all model accounts."""
        return self._models.rows()

    def container_models(self) -> dict[int, Model]:
        """Container account serial → its model, where it has exactly one."""
        return self._models.by_container()

    def unnamed(self) -> dict[Component, float]:
        """Joules of containers that are not shown yet, because their names are on the way."""
        return self._containers.unnamed()

    def dropped(self) -> dict[str, int]:
        """How often something was not shown for want of room, by level."""
        return {"container": self._containers.folded, "process": self._processes.dropped}

    # --- across restarts ----------------------------------------------------------------------------

    def totals(self) -> Books:
        """Totals without accounts."""
        return Books(dict(self.devices), dict(self.nodes), dict(self.unattributed), dict(self.retired))

    def books(self) -> Books:
        """Everything that must outlive a restart. A process that nobody was shown need not."""
        books = self.totals()
        accounts = [*self._containers, *self._models, *self._processes.shown()]
        books.accounts = [account.saved() for account in accounts]
        books.retired_devices = self.retired_devices
        return books

    def take_closed(self) -> list[Owner]:
        """Owners of the accounts that were closed since the last call."""
        closed = [account.owner for account in (*self._closed, *self._containers.closed)]
        self._closed, self._containers.closed = [], []
        return closed

    def restore(self, books: Books, now: float, *, same_boot: bool) -> None:
        """Take over the books of an earlier run; accounts nobody claims again expire after the linger time."""
        self.devices.update(books.devices)
        self.nodes.update(books.nodes)
        self.unattributed.update(books.unattributed)
        self.retired.update(books.retired)
        self.retired_devices = books.retired_devices
        for owner, start_ticks, joules in books.accounts:
            account = Account(next(self._serials), owner, start_ticks)
            account.joules = dict(joules)
            account.ended_at = now
            if isinstance(owner, Workload):
                self._containers.restore(account)
            elif isinstance(owner, Model):
                self._models.restore(account)
            elif same_boot:
                self._processes.restore(account, now)
            else:
                continue
            self._dirty.add(account)
