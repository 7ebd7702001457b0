"""Posts one tick's GPU joules: to containers, processes and models, by card, and by what the card did."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from itertools import chain

from ..records import Allocation, GpuUse, GroupKey, Mode, Process, ProcessKey, Workload
from .accounts import Account
from .activity import classify, is_unused
from .attribution import Shares
from .card_watch import CardWatch
from .containers import ContainerAccounts
from .models import ModelAccounts
from .processes import ProcessAccounts, ProcessRecord

Open = Callable[[Process, GroupKey, Account, float], ProcessRecord]


class _Work:
    """What one account did on one card or MIG instance in a tick: nothing, unless a charge says otherwise."""

    __slots__ = ("certain", "joules", "unused")

    def __init__(self) -> None:
        self.joules = 0.0
        self.unused = True
        self.certain = True


class _Works:
    """The work of a tick by account, card and instance, so that all joules of one are of one activity."""

    def __init__(self, cards: CardWatch, uses: Sequence[GpuUse]) -> None:
        self._cards = cards
        self._anonymous = {use.device for use in uses if not use.known and (use.seconds or not use.reported)}
        self._found: dict[tuple[Account, str, str], _Work] = {}

    def of_process(self, accounts: Sequence[Account], use: GpuUse, mode: Mode, joules: float) -> None:
        """Joules of a process: of its container, and of its model or, while it has none, of itself."""
        device, instance = use.device, use.gpu_instance
        unused = not use.seconds
        if unused:
            active = joules if mode == "active" else 0.0
            unused = is_unused(self._cards.facts(device, instance), use.seconds, active, reported=use.reported)
        for account in (accounts[0], accounts[-1]):
            work = self._found.get((account, device, instance)) or self._start(account, device, instance)
            work.joules += joules
            if not unused:
                work.unused = False

    def of_place(self, accounts: Sequence[Account], device: str, mode: Mode, joules: float) -> None:
        """Joules of a container without a known process on its card; one that is not known may be its own."""
        active = joules if mode == "active" else 0.0
        unused = is_unused(self._cards.facts(device), 0.0, active, reported=True)
        for account in accounts:
            work = self._found.get((account, device, "")) or self._start(account, device, "")
            work.joules += joules
            work.unused &= unused
            work.certain &= device not in self._anonymous

    def post(self, cpu_seconds: float | None) -> None:
        """Add each account's joules to one activity; ``cpu_seconds`` is the time that its CPU seconds cover."""
        parts = Counter([account for account, _, _ in self._found])
        for (account, device, instance), work in self._found.items():
            if work.unused:
                account.add_activity("idle" if work.certain else "unknown", work.joules)
            elif isinstance(account.owner, Workload):
                account.add_activity("idle", 0.0)  # it keeps no other, and is born at 0
            else:
                cores = account.cpu_seconds / cpu_seconds / parts[account] if cpu_seconds else None
                account.add_activity(classify(self._cards.facts(device, instance), cores), work.joules)

    def _start(self, account: Account, device: str, instance: str) -> _Work:
        work = self._found[account, device, instance] = _Work()
        return work


class GpuPosting:
    """Charges the accounts of a ledger for GPUs; ``open_process`` opens the record of a process that has none."""

    def __init__(
        self, containers: ContainerAccounts, processes: ProcessAccounts, models: ModelAccounts, open_process: Open
    ) -> None:
        self._containers = containers
        self._processes = processes
        self._models = models
        self._open = open_process
        self._allocated = False

    def post(
        self,
        now: float,
        shares: Shares,
        uses: Sequence[GpuUse],
        allocations: Sequence[Allocation],
        cards: CardWatch,
        cpu_seconds: float | None,
    ) -> set[Account]:
        """Charge one tick's shares, after its CPU seconds; returns the accounts that changed.

        ``cpu_seconds`` is the time that those cover, None if they are unknown.
        """
        if not (uses or allocations or self._allocated):
            return set()
        self._allocated = bool(allocations)
        works = _Works(cards, uses)
        changed = self._post_uses(now, shares, uses, works)
        changed.update(self._post_allocations(now, shares, allocations, works))
        works.post(cpu_seconds)
        return changed

    def _post_uses(self, now: float, shares: Shares, uses: Sequence[GpuUse], works: _Works) -> set[Account]:
        changed: set[Account] = set()
        if uses:
            self._processes.gpu_reported_at = now
        charged: dict[tuple[ProcessKey, GroupKey | None], list[Account]] = {}
        for use in uses:
            if use.process is None or use.group is None:
                continue
            record, container = self._record(use.process, use.group, now)
            accounts = charged[use.process.key, use.group] = [container, record.account]
            if record.model is not None:
                accounts.append(record.model)
            if (occupancy := self._models.occupancy.get(container)) is not None:
                if record.model is not None:
                    occupancy.add(use.seconds, 0.0, now)
                else:
                    occupancy.add(0.0, use.seconds, now)
                    record.unnamed_seconds += use.seconds
            for account in accounts:
                account.use_gpu(use.seconds)
                changed.add(account)
        for use, mode, joules, _ in shares.gpu:
            assert use.process is not None
            accounts = charged[use.process.key, use.group]
            for account in accounts:
                account.add_gpu(mode, joules)
            accounts[0].add_card(use.device, mode, joules)
            works.of_process(accounts, use, mode, joules)
        return changed

    def _post_allocations(
        self, now: float, shares: Shares, allocations: Sequence[Allocation], works: _Works
    ) -> set[Account]:
        """Charge containers, and the model that they as a whole work for, for the GPUs that are allocated to them."""
        accounts = {
            place: [account] if (model := self._models.sole(account)) is None else [account, model]
            for place, account in self._containers.allocate({one.place for one in allocations}, now).items()
        }
        changed = set(chain.from_iterable(accounts.values()))
        for account in chain.from_iterable(accounts.values()):
            account.use_gpu(0.0)
        for device, place, mode, joules, _ in shares.places:
            for account in accounts[place]:
                account.add_gpu(mode, joules)
            accounts[place][0].add_card(device, mode, joules)
            works.of_place(accounts[place], device, mode, joules)
        return changed

    def _record(self, process: Process, group: GroupKey, now: float) -> tuple[ProcessRecord, Account]:
        """The record of a process on a GPU, and the account of its container."""
        record = self._processes.records.get(process.key)
        container = self._containers.find(group, now)
        if record is None or record.container is not container:
            record = self._open(process, group, container, now)
        record.gpu = True
        record.seen_at = now
        return record, container
