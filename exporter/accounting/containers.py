"""Accounts of containers, units and jobs: which cgroup belongs to which account, and under which name."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping

from ..impact.values import Impact, Rates
from ..records import HOST, Component, GroupKey, Place, Workload, WorkloadKey
from ..snapshot import AccountRow, CardRow
from ..workloads.protocol import Namer
from .accounts import Account
from .impacts import total
from .period import Period

OVERFLOW = Workload(container="other", runtime="host")
"""The one row for every workload beyond the series limit (fault 66 in docs/faults.md)."""

NAMING_SECONDS = 30.0
"""How long an account stays unpublished while its name is looked up, so that it has one series and not two."""


class ContainerAccounts:
    """One account per namespace, pod, container and runtime; several cgroups may belong to it.

    A workload whose name is still being looked up accrues joules at once but is not published. Once the name is known,
    or after `NAMING_SECONDS`, its joules move to the account of that name.
    """

    def __init__(self, serials: Iterator[int], namer: Namer, limit: int) -> None:
        """``limit`` is the largest number of accounts; further workloads share `OVERFLOW`."""
        self.limit = limit
        self.overflowed = 0
        self.groups: dict[GroupKey, Account] = {}
        self._serials = serials
        self._namer = namer
        self._accounts: dict[WorkloadKey, Account] = {}
        self._held: set[Account] = set()
        self._ended_unnamed: set[GroupKey] = set()
        self._allocated: dict[Place, Account] = {}
        self._changed: set[Account] = set()
        self._closed: list[Account] = []

    def __iter__(self) -> Iterator[Account]:
        return iter(self._accounts.values())

    def __len__(self) -> int:
        return len(self._accounts)

    # --- cgroups and allocations ----------------------------------------------------------------------

    def start(self, group: GroupKey, period: Period) -> None:
        """A cgroup appeared."""
        if group in self.groups:
            return
        account = self.groups[group] = self._open(self._namer.workload(group), period.now)
        account.join()
        account.start_at_zero(period)
        self._changed.add(account)

    def end(self, group: GroupKey, now: float) -> None:
        """A cgroup was removed; its account stays until it expires, its name may still be found."""
        account = self.groups.get(group)
        if account is None or group in self._ended_unnamed:
            return
        account.leave(now)
        if account.held_until is None:
            self._forget(group)
        else:
            self._ended_unnamed.add(group)

    def find(self, group: GroupKey, now: float) -> Account:
        """Account of a cgroup, whether it was started or not."""
        return self.groups.get(group) or self.without_group(self._namer.settled(group), now)

    def without_group(self, workload: Workload, now: float) -> Account:
        """Account of a workload that has no started cgroup: it stays as long as it is charged."""
        account = self._open(workload, now)
        account.end_if_empty(now)
        return account

    def allocate(self, places: Collection[Place], now: float) -> Mapping[Place, Account]:
        """Accounts of the containers that have a GPU now; an allocation keeps an account open as a cgroup does."""
        for place in [place for place in self._allocated if place not in places]:
            self._allocated.pop(place).leave(now)
        for place in places:
            if place not in self._allocated:
                workload = Workload(*place, "kubernetes")
                # An account that exists already has more metadata than its name: keep that.
                account = self._allocated[place] = self._accounts.get(workload.key) or self._open(workload, now)
                account.join()
        return self._allocated

    def owner(self, place: Place) -> Workload | None:
        """The workload of a container of the cluster, None if it has no account."""
        account = self._accounts.get(Workload(*place, "kubernetes").key)
        return None if account is None else _owner(account)

    def expire(self, deadline: float) -> list[Account]:
        """Remove the accounts whose last cgroup was removed before ``deadline``."""
        expired = [account for account in self if account.expired(deadline)]
        for account in expired:
            self._close(account)
        return expired

    def restore(self, account: Account) -> None:
        """Add an account of an earlier run, and keep the names it had resolved."""
        owner = _owner(account)
        self._accounts[owner.key] = account
        if owner.provisional:
            # It was never published. If its cgroup is gone, its joules are retired without a series.
            account.held_until = float("inf")
            self._held.add(account)
        else:
            self._namer.remember(owner)

    # --- names --------------------------------------------------------------------------------------

    def rename(self, groups: Collection[GroupKey], now: float) -> set[GroupKey]:
        """Look up the names of ``groups`` and of groups that waited long enough; returns all of these."""
        overdue = {account for account in self._held if account.held_until is not None and account.held_until <= now}
        pending = {group for group in groups if group in self.groups}
        if overdue:
            pending |= {group for group, account in self.groups.items() if account in overdue}
        for group in pending:
            if group not in self.groups:  # it ended, and was released with another group of its container
                continue
            name = self._namer.settled if self.groups[group] in overdue else self._namer.workload
            self._rename(group, name(group), now)
        for account in overdue:
            self._release(account)
        return pending

    def unnamed(self) -> dict[Component, float]:
        """Joules of the accounts that are not published yet."""
        joules: defaultdict[Component, float] = defaultdict(float)
        for account in self._held:
            for (component, _), amount in account.joules.items():
                joules[component] += amount
        return joules

    def impacts_of_unnamed(self, rates: Rates) -> list[Impact]:
        """Grams and money of the accounts that are not published yet."""
        return [total(account.joules, account.settled, rates) for account in self._held]

    def rows(self) -> tuple[AccountRow, ...]:
        """Rows of all accounts that have their name."""
        if self._held:
            return tuple([account.row for account in self if account.row and account.held_until is None])
        return tuple([account.row for account in self._accounts.values() if account.row])

    def cards(self) -> tuple[CardRow, ...]:
        """GPU joules by card of the accounts in `rows`."""
        return tuple(
            [
                CardRow(_owner(account), device, mode, 0.0 if ("gpu", mode) in account.newborn else joules)
                for account in self
                if account.cards and account.held_until is None
                for (device, mode), joules in account.cards.items()
            ]
        )

    def take_changed(self) -> set[Account]:
        """Accounts that need a new row since the last call."""
        changed, self._changed = self._changed, set()
        return changed

    @property
    def closed(self) -> list[Account]:
        """Accounts removed since the last `take_closed`."""
        return self._closed

    def take_closed(self) -> list[Account]:
        """`closed`, which is empty afterwards."""
        closed, self._closed = self._closed, []
        return closed

    def _rename(self, group: GroupKey, workload: Workload, now: float) -> None:
        account = self.groups[group]
        owner = _owner(account)
        if workload.provisional or owner in (workload, OVERFLOW):
            return
        if workload.key == owner.key:
            account.rename(workload, next(self._serials))
            self._changed.add(account)
        else:
            account = self._move(group, account, workload, now)
        self._release(account)

    def _move(self, group: GroupKey, old: Account, workload: Workload, now: float) -> Account:
        """Assign a group to another account; the joules follow with the last group that leaves."""
        new = self.groups[group] = self._open(workload, now)
        new.on_cpu |= old.on_cpu
        if group in self._ended_unnamed:
            new.end_if_empty(now)
        else:
            old.members -= 1
            new.join()
        if old.members == 0 and not any(self.groups[ended] is old for ended in self._ended_unnamed):
            new.absorb(old)
            self._close(old)
        self._changed.add(new)
        return new

    def _release(self, account: Account) -> None:
        account.held_until = None
        self._held.discard(account)
        self._changed.add(account)
        for group in [group for group in self._ended_unnamed if self.groups[group] is account]:
            self._ended_unnamed.discard(group)
            self._forget(group)

    # --- accounts -----------------------------------------------------------------------------------

    def _open(self, workload: Workload, now: float) -> Account:
        account = self._accounts.get(workload.key)
        if account is None:
            if len(self._accounts) >= self.limit and workload not in (HOST, OVERFLOW):
                self.overflowed += 1
                return self._open(OVERFLOW, now)
            account = self._accounts[workload.key] = Account(next(self._serials), workload)
            if workload.provisional:
                account.held_until = now + NAMING_SECONDS
                self._held.add(account)
        elif account.owner != workload:
            # The same labels, another instance (a restarted container): one series continues.
            account.rename(workload, next(self._serials))
            self._changed.add(account)
        if account.held_until == float("inf"):
            account.held_until = now + NAMING_SECONDS
        return account

    def _forget(self, group: GroupKey) -> None:
        del self.groups[group]
        self._namer.forget(group)

    def _close(self, account: Account) -> None:
        del self._accounts[_owner(account).key]
        self._closed.append(account)
        self._held.discard(account)


def _owner(account: Account) -> Workload:
    assert isinstance(account.owner, Workload)
    return account.owner
