"""Accounts of containers, units and jobs: which cgroup is booked where, and under which name."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping

from ..records import HOST, Component, GroupKey, Namer, Workload
from ..snapshot import AccountRow
from .accounts import Account, Period
from .gpu_claims import Place

OVERFLOW = Workload(container="other", runtime="host")
"""The one row that takes every workload beyond the series budget (fault 66)."""

NAMING_SECONDS = 30.0
"""How long an account is kept from view while its name is on the way: so that it has one series, not two."""


class ContainerAccounts:
    """One account per namespace, pod, container and runtime; several cgroups may be booked in it.

    A workload whose name is still on the way is booked at once but not shown. Once the name is known, or
    `NAMING_SECONDS` have passed, everything that was booked goes to where it belongs. ``dirty`` takes the
    accounts that need a new row.
    """

    def __init__(self, serials: Iterator[int], namer: Namer, dirty: set[Account], most: int) -> None:
        self.most = most
        self.folded = 0
        self.groups: dict[GroupKey, Account] = {}
        self.closed: list[Account] = []
        self._serials = serials
        self._namer = namer
        self._dirty = dirty
        self._accounts: dict[tuple[str, ...], Account] = {}
        self._held: set[Account] = set()
        self._ended_unnamed: set[GroupKey] = set()
        self._given: dict[Place, Account] = {}

    def __iter__(self) -> Iterator[Account]:
        return iter(self._accounts.values())

    def __len__(self) -> int:
        return len(self._accounts)

    # --- coming and going ---------------------------------------------------------------------------

    def start(self, group: GroupKey, period: Period) -> None:
        """A cgroup came."""
        if group in self.groups:
            return
        account = self.groups[group] = self._open(self._namer.workload(group), period.now)
        account.members += 1
        account.ended_at = None
        account.show(period)
        self._dirty.add(account)

    def end(self, group: GroupKey, now: float) -> None:
        """A cgroup went; its account stays until it expires. If it has no name yet, that may still come."""
        account = self.groups.get(group)
        if account is None or group in self._ended_unnamed:
            return
        account.members -= 1
        if account.members == 0:
            account.ended_at = now
        if account.held_until is None:
            self._forget(group)
        else:
            self._ended_unnamed.add(group)

    def find(self, group: GroupKey, now: float) -> Account:
        """Account of a cgroup, announced or not."""
        return self.groups.get(group) or self.stray(self._namer.settled(group), now)

    def stray(self, workload: Workload, now: float) -> Account:
        """Account of a workload no group was announced for: it stays as long as it is charged."""
        account = self._open(workload, now)
        if account.members == 0:
            account.ended_at = now
        return account

    def give(self, places: Collection[Place], now: float) -> Mapping[Place, Account]:
        """Accounts of the containers that have a GPU now: each stays as long as it has, its cgroup known or not."""
        for place in [place for place in self._given if place not in places]:
            account = self._given.pop(place)
            account.members -= 1
            if account.members == 0:
                account.ended_at = now
        for place in places:
            if place not in self._given:
                workload = Workload(*place, "kubernetes")
                # One that is there already knows more of itself than its name.
                account = self._given[place] = self._accounts.get(workload[:4]) or self._open(workload, now)
                account.members += 1
                account.ended_at = None
        return self._given

    def expire(self, deadline: float) -> list[Account]:
        """Drop the accounts whose last cgroup went before ``deadline``."""
        gone = [account for account in self if account.expired(deadline)]
        for account in gone:
            self._drop(account)
        return gone

    def restore(self, account: Account) -> None:
        """Take over an account of an earlier run, and its names: nobody need tell them again."""
        owner = _owner(account)
        self._accounts[owner[:4]] = account
        if owner.provisional:
            # Nobody saw it yet. Should its cgroup be there no more, its joules are retired unseen.
            account.held_until = float("inf")
            self._held.add(account)
        else:
            self._namer.remember(owner)

    # --- names --------------------------------------------------------------------------------------

    def rename(self, groups: Collection[GroupKey], now: float) -> set[GroupKey]:
        """Ask again for the names of ``groups``, and of those that waited long enough; returns all of these."""
        late = {account for account in self._held if account.held_until is not None and account.held_until <= now}
        asked = {group for group in groups if group in self.groups}
        if late:
            asked |= {group for group, account in self.groups.items() if account in late}
        for group in asked:
            if group not in self.groups:  # it ended, and went with another one of its container
                continue
            name = self._namer.settled if self.groups[group] in late else self._namer.workload
            self._rename(group, name(group), now)
        for account in late:
            self._release(account)
        return asked

    def unnamed(self) -> dict[Component, float]:
        """Joules of the accounts that are kept from view."""
        joules: defaultdict[Component, float] = defaultdict(float)
        for account in self._held:
            for (component, _), amount in account.joules.items():
                joules[component] += amount
        return joules

    def rows(self) -> tuple[AccountRow, ...]:
        """Rows of all accounts that have their name."""
        if self._held:
            return tuple([account.row for account in self if account.row and account.held_until is None])
        return tuple([account.row for account in self._accounts.values() if account.row])

    def _rename(self, group: GroupKey, workload: Workload, now: float) -> None:
        old = self.groups[group]
        owner = _owner(old)
        if workload.provisional or owner in (workload, OVERFLOW):
            return
        if workload[:4] == owner[:4]:
            old.owner = workload
            old.serial = next(self._serials)
            self._dirty.add(old)
            new = old
        else:
            new = self._move(group, old, workload, now)
        self._release(new)

    def _move(self, group: GroupKey, old: Account, workload: Workload, now: float) -> Account:
        """Book a group elsewhere; what was booked goes along with the last group to leave."""
        new = self.groups[group] = self._open(workload, now)
        new.on_cpu |= old.on_cpu
        if group not in self._ended_unnamed:
            old.members -= 1
            new.members += 1
            new.ended_at = None
        elif new.members == 0:
            new.ended_at = now
        if old.members == 0 and not any(self.groups[ended] is old for ended in self._ended_unnamed):
            new.absorb(old.joules)
            self._drop(old)
        self._dirty.add(new)
        return new

    def _release(self, account: Account) -> None:
        account.held_until = None
        self._held.discard(account)
        self._dirty.add(account)
        for group in [group for group in self._ended_unnamed if self.groups[group] is account]:
            self._ended_unnamed.discard(group)
            self._forget(group)

    # --- accounts -----------------------------------------------------------------------------------

    def _open(self, workload: Workload, now: float) -> Account:
        account = self._accounts.get(workload[:4])
        if account is None:
            if len(self._accounts) >= self.most and workload not in (HOST, OVERFLOW):
                self.folded += 1
                return self._open(OVERFLOW, now)
            account = self._accounts[workload[:4]] = Account(next(self._serials), workload)
            if workload.provisional:
                account.held_until = now + NAMING_SECONDS
                self._held.add(account)
        elif account.owner != workload:
            # The same labels, another instance (a restarted container): one series that goes on (fault 40).
            account.owner = workload
            account.serial = next(self._serials)
            self._dirty.add(account)
        if account.held_until == float("inf"):
            account.held_until = now + NAMING_SECONDS
        return account

    def _forget(self, group: GroupKey) -> None:
        del self.groups[group]
        self._namer.forget(group)

    def _drop(self, account: Account) -> None:
        owner = _owner(account)
        del self._accounts[owner[:4]]
        self.closed.append(account)
        self._held.discard(account)


def _owner(account: Account) -> Workload:
    assert isinstance(account.owner, Workload)
    return account.owner
