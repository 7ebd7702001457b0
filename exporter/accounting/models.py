"""Accounts of AI models, and which containers work for which of them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterator, Sequence

from ..records import GroupKey, Listing, Model, ModelKey, Workload
from ..snapshot import AccountRow
from .accounts import Account

_HALF_LIFE_SECONDS = 300.0

OTHERS_RATIO = 0.005
"""Share of a container's CPU time that processes without a model may use while it counts as its model's alone.

An entry point's shell and an init that reaps zombies stay far below; a shell that starts other programs does not.
"""


_FORGET_SECONDS = 30.0
"""A container whose last model process ended may itself take as long to be removed."""


class Occupancy:
    """The models of one container's live processes, and recent CPU seconds of processes with and without a model.

    ``waiting`` are the only model and an account with what it may get, for each cgroup whose processes are not all
    known at the moment.
    """

    __slots__ = ("at", "last", "left_at", "models", "named_seconds", "other_seconds", "shared", "waiting")

    def __init__(self, *, shared: bool) -> None:
        self.shared = shared
        self.models: Counter[Account] = Counter()
        self.last: Account | None = None
        self.left_at = float("-inf")
        self.named_seconds = 0.0
        self.other_seconds = 0.0
        self.at = float("-inf")
        self.waiting: dict[GroupKey, tuple[Account, Account]] = {}

    def add(self, named_seconds: float, other_seconds: float, now: float) -> None:
        """Add CPU or GPU seconds of this tick by processes with a model, and by those without one."""
        decay = 0.5 ** (min(now - self.at, 1e6) / _HALF_LIFE_SECONDS)
        self.at = now
        self.named_seconds = self.named_seconds * decay + named_seconds
        self.other_seconds = self.other_seconds * decay + other_seconds

    @property
    def sole(self) -> Account | None:
        """The only model, if no process without one worked beside it."""
        if self.shared or len(self.models) != 1:
            return None
        alone = is_alone(self.named_seconds + self.other_seconds, self.other_seconds)
        return next(iter(self.models)) if alone else None

    def charge_rest(
        self,
        group: GroupKey,
        seconds: float,
        surplus: float,
        listing: Listing,
        reaped: Sequence[tuple[Account, float]] = (),
        *,
        strangers: bool,
    ) -> list[Account]:
        """Charge CPU seconds of a cgroup that none of the listed processes used; returns the accounts that changed.

        Processes that have exited used them. Those of ``reaped`` are the models' whose processes waited for them. The
        others are the only model's, if no other process worked beside it. While the ``listing`` is late, that is not
        known: they wait, and the model gets them when a complete listing shows no ``strangers`` that worked or are new.
        Otherwise they stay with the container alone.
        """
        changed = []
        for model_of, used in reaped:
            model_of.use_cpu(used, surplus)
            changed.append(model_of)
            seconds -= used
        seconds = max(0.0, seconds)
        model, waiting = self.sole, self.waiting.pop(group, None)
        if waiting is not None and waiting[0] is not model:
            waiting = None
        if model is None or listing == "partial":
            return changed
        if listing == "late":
            self.waiting[group] = waiting = waiting or (model, Account(0, model.owner, hidden=True))
            waiting[1].use_cpu(seconds, surplus)
            return [*changed, waiting[1]]
        if waiting is not None and not strangers:
            model.merge(waiting[1].joules)
        if seconds > 0:
            model.use_cpu(seconds, surplus)
        return [*changed, model]


def is_alone(seconds: float, other_seconds: float) -> bool:
    """Whether so little of ``seconds`` was used by processes without a model that none of them worked beside it."""
    return other_seconds <= OTHERS_RATIO * seconds


class ModelAccounts:
    """One account per model name, namespace and phase; it outlives the processes and pods that serve it.

    ``occupancy`` has an entry for each container that a model's process runs in.
    """

    def __init__(self, serials: Iterator[int], is_shared: Callable[[Workload], bool]) -> None:
        """``is_shared`` says which rows collect unrelated work, so that none of them belongs to one model."""
        self._serials = serials
        self._is_shared = is_shared
        self._accounts: dict[ModelKey, Account] = {}
        self.occupancy: dict[Account, Occupancy] = {}

    def __iter__(self) -> Iterator[Account]:
        return iter(self._accounts.values())

    def join(self, model: Model, container: Account) -> Account:
        """A process of ``container`` starts to work for ``model``."""
        account = self._accounts.get(model.key)
        if account is None:
            account = self._accounts[model.key] = Account(next(self._serials), model)
        account.join()
        if container not in self.occupancy:
            shared = isinstance(container.owner, Workload) and self._is_shared(container.owner)
            self.occupancy[container] = Occupancy(shared=shared)
        self.occupancy[container].models[account] += 1
        return account

    def leave(self, account: Account, container: Account, now: float) -> None:
        """A process that had joined ended."""
        account.leave(now)
        occupancy = self.occupancy[container]
        occupancy.last = self.sole(container)
        occupancy.left_at = now
        occupancy.models[account] -= 1
        if not occupancy.models[account]:
            del occupancy.models[account]

    def recognise(self, container: Account, seconds: float) -> None:
        """A process that used ``seconds`` without a model has one now: its time does not count as another's."""
        occupancy = self.occupancy.get(container)
        if occupancy is not None:
            occupancy.other_seconds = max(0.0, occupancy.other_seconds - seconds)

    def sole(self, container: Account) -> Account | None:
        """The model that a container as a whole works for.

        None if there are several or none, if processes without a model worked beside it (`OTHERS_RATIO`), or if its row
        collects unrelated work.
        """
        occupancy = self.occupancy.get(container)
        return None if occupancy is None else occupancy.sole

    def by_container(self) -> dict[int, Model]:
        """Serial of each container's account that works for one model → that model; an ended one keeps its last."""
        found = {}
        for container, occupancy in self.occupancy.items():
            account = self.sole(container)
            if account is None and not occupancy.models and container.ended_at is not None:
                account = occupancy.last
            if account is not None:
                found[container.serial] = _owner(account)
        return found

    def forget(self, containers: Collection[Account], now: float) -> None:
        """Forget the last model of containers that run without one for a while, or whose account was closed."""
        for container, occupancy in list(self.occupancy.items()):
            if occupancy.models:
                continue
            runs_on = container.ended_at is None and now - occupancy.left_at > _FORGET_SECONDS
            if runs_on or container not in containers:
                del self.occupancy[container]

    def expire(self, deadline: float) -> list[Account]:
        """Remove the accounts whose last process ended before ``deadline``."""
        expired = [account for account in self if account.expired(deadline)]
        for account in expired:
            del self._accounts[_owner(account).key]
        return expired

    def restore(self, account: Account) -> None:
        """Add an account of an earlier run."""
        self._accounts[_owner(account).key] = account

    def rows(self) -> tuple[AccountRow, ...]:
        """Rows of all accounts."""
        return tuple([account.row for account in self if account.row])


def _owner(account: Account) -> Model:
    assert isinstance(account.owner, Model)
    return account.owner
