"""Accounts of processes, and the choice of those that are published."""

from __future__ import annotations

import heapq
from collections.abc import Collection, Iterable, Iterator, Mapping

from ..records import Component, GroupKey, Model, Process, ProcessKey, ProcessOwner, ProcessUse, Workload
from ..snapshot import AccountRow
from .accounts import Account
from .models import ModelAccounts
from .period import Period

_HALF_LIFE_SECONDS = 300.0

ENDED_PER_TOP = 4
"""Ended processes that stay published, per process of the top N; short-lived ones would otherwise accumulate."""

ENDED_ON_GPU = 200
"""The same for GPU processes, whatever the top N: other processes must not displace a training run's last joules."""

_UNREPORTED_SECONDS = 10.0
"""A GPU process missing from the driver's reports for so long, while others are in them, released its card or ended."""


class ProcessRecord:
    """A process account with what is needed to charge and rank it. ``container`` is None if not seen since a restart.

    ``before`` are the joules of an earlier run or under another model, which a model's account already includes.
    ``unnamed_seconds`` is CPU and GPU time from before its model was recognised.
    """

    __slots__ = (
        "account",
        "before",
        "comm",
        "container",
        "gpu",
        "group",
        "model",
        "ranked_joules",
        "score",
        "seen_at",
        "unnamed_seconds",
    )

    def __init__(self, account: Account, container: Account | None, now: float) -> None:
        self.account = account
        self.comm = account.owner.comm if isinstance(account.owner, ProcessOwner) else ""
        self.container = container
        self.group: GroupKey | None = None
        self.before = dict(account.joules)
        self.model: Account | None = None
        self.gpu = any(component == "gpu" for component, _ in account.joules)
        self.seen_at = now
        self.unnamed_seconds = 0.0
        self.score = 0.0
        self.ranked_joules = 0.0

    def ended(self, reported_since: float) -> bool:
        """Whether it ended, or is on a GPU and was last reported before boot time ``reported_since``."""
        return self.account.ended_at is not None or (self.gpu and self.seen_at < reported_since)

    def publishable(self, reported_since: float) -> bool:
        """Whether it has not `ended` and its container has its name."""
        return not self.ended(reported_since) and (self.container is None or self.container.held_until is None)


_Item = tuple[ProcessKey, ProcessRecord]


class ProcessAccounts:
    """Every process with usage, in ``records``; the top N of them and every one on a GPU are published.

    ``gpu_reported_at`` is the boot time at which any driver last reported processes on a GPU.
    """

    def __init__(self, serials: Iterator[int], models: ModelAccounts) -> None:
        self._serials = serials
        self._models = models
        self.records: dict[ProcessKey, ProcessRecord] = {}
        self._published: dict[ProcessKey, ProcessRecord] = {}
        self._by_owner: dict[ProcessOwner, ProcessKey] = {}
        self._model_names: Mapping[int, Model] | None = None  # None: made again when they are asked for
        self._ranked_at = float("-inf")
        self.gpu_reported_at = float("-inf")
        self.dropped = 0

    def open(
        self, process: Process, group: GroupKey | None, container: Account, model: Model | None, now: float
    ) -> ProcessRecord:
        """Open the account of a process as it is now: a new comm or container is a new series."""
        known = self.records.get(process.key)
        owner = _owner(process.key, process.comm, container)
        if known is not None and known.container is None and known.account.owner == owner:
            record = known
            record.container = container
            record.account.ended_at = None
        else:
            if known is not None:
                self._forget(process.key, known, now)
            account = Account(next(self._serials), owner, process.key.start_ticks, hidden=True)
            record = self.records[process.key] = ProcessRecord(account, container, now)
            record.gpu = known is not None and known.gpu
        record.group = group
        if model is not None:
            self._join_model(record, model, container)
        return record

    def of_groups(self, groups: Collection[GroupKey]) -> list[tuple[Process, ProcessRecord]]:
        """The processes of ``groups``."""
        return [(Process(key, record.comm), record) for key, record in self.records.items() if record.group in groups]

    def left(self, exited: Iterable[ProcessKey]) -> dict[Account, bool]:
        """Containers of the ``exited`` processes; True if one of those had no model."""
        left: dict[Account, bool] = {}
        for record in [record for key in exited if (record := self.records.get(key)) is not None]:
            if record.container is not None:
                left[record.container] = left.get(record.container, False) or record.model is None
        return left

    def divide_reaped(
        self, reaped: Iterable[ProcessUse], container: Account, left: Collection[Account]
    ) -> tuple[list[tuple[Account, float]], float]:
        """What children used by the model of the process that waited for them, and what is certainly no model's.

        Children of a process without a model may include the last use of one with a model, if one of those ``left``.
        """
        models: list[tuple[Account, float]] = []
        others = 0.0
        for process, seconds in reaped:
            record = self.records.get(process.key)
            if record is None or record.container is not container or record.model is None:
                others += seconds
            else:
                models.append((record.model, seconds))
        return models, others if container not in left else 0.0

    def rename(
        self, process: Process, record: ProcessRecord, container: Account, model: Model | None, now: float
    ) -> list[Account]:
        """Its container or its model has a new name; returns the accounts that need a new row.

        Joules of the process from before its model was recognised are added to the model.
        """
        self._model_names = None
        account = record.account
        owner = _owner(process.key, record.comm, container)
        if account.owner != owner:
            published = process.key in self._published
            if published:
                self._hide(process.key, record)
            account.rename(owner, next(self._serials))
            if published:
                self._publish(process.key, record, now)
        before = record.model
        if before is not None:
            record.before = dict(account.joules)
            if account.ended_at is None:
                assert record.container is not None
                self._models.leave(before, record.container, now)
            record.model = None
        record.container = container
        if model is not None and account.ended_at is None:
            account_of_model = self._join_model(record, model, container)
            if before is None:
                self._models.recognise(container, record.unnamed_seconds)
                record.unnamed_seconds = 0.0
                account_of_model.merge(
                    {cell: joules - record.before.get(cell, 0.0) for cell, joules in account.joules.items()}
                )
                account_of_model.take_activities(account)
        return [account] if record.model is None else [account, record.model]

    def exit(self, key: ProcessKey, now: float) -> None:
        """A process ended. If it is published, it stays until it expires."""
        record = self.records.get(key)
        if record is None:
            return
        if key in self._published:
            self._leave_model(record, now)
            record.account.ended_at = now
        else:
            self._forget(key, record, now)

    def expire(self, deadline: float, now: float) -> None:
        """Remove processes that ended before ``deadline``, and GPU processes that no driver has reported since."""
        for key, record in list(self.records.items()):
            unreported = record.gpu and record.seen_at <= deadline
            if unreported or record.account.expired(deadline):
                self._forget(key, record, now)

    def rank(self, period: Period, top: int, *, shed: bool) -> None:
        """Choose the published processes by recent joules, whose weight halves every 5 minutes.

        A process enters among the first ``top`` and leaves beyond 1.5 × ``top``, so that series do not flap. The last
        `ENDED_PER_TOP` × ``top`` ended processes stay, and the last `ENDED_ON_GPU` ended GPU processes. ``shed``
        publishes GPU processes only (memory is short).
        """
        now, price = period.now, sum([price for _, price in period.tariff])
        decay = 0.5 ** (min(now - self._ranked_at, 1e6) / _HALF_LIFE_SECONDS)
        self._ranked_at = now
        for record in self.records.values():
            # This tick's seconds have no joules yet. Without a meter, seconds are ranked.
            account = record.account
            joules = account.total() + (account.cpu_seconds + account.surplus_seconds) * (price or 1.0)
            record.score = record.score * decay + joules - record.ranked_joules
            record.ranked_joules = joules if price else 0.0
        top = 0 if shed else top
        since = self.gpu_reported_at - _UNREPORTED_SECONDS
        running = [item for item in self.records.items() if item[1].publishable(since)]
        best = [key for key, _ in heapq.nlargest(top + top // 2, running, key=_score)]
        entering, staying = set(best[:top]), set(best)
        ended: list[_Item] = []
        ended_on_gpu: list[_Item] = []
        for key, record in list(self._published.items()):
            if record.ended(since):
                (ended_on_gpu if record.gpu else ended).append((key, record))
            elif not record.gpu and key not in staying:
                self._hide(key, record)
                self.dropped += 1
        self._evict_oldest(ended, ENDED_PER_TOP * top, now)
        self._evict_oldest(ended_on_gpu, ENDED_ON_GPU, now)
        for key, record in running:
            if key not in self._published and (key in entering or record.gpu):
                self._publish(key, record, now)

    def _evict_oldest(self, ended: list[_Item], limit: int, now: float) -> None:
        """Keep the last ``limit`` ended processes published."""
        for key, record in heapq.nsmallest(len(ended) - limit, ended, key=_ended_at):
            if record.container is not None:
                self._forget(key, record, now)
            else:  # of an earlier run: it may still be seen
                self._hide(key, record)

    @property
    def any_published(self) -> bool:
        """Whether there are published accounts."""
        return bool(self._published)

    def published(self) -> list[Account]:
        """Published accounts."""
        return [record.account for record in self._published.values()]

    def rows(self) -> tuple[AccountRow, ...]:
        """Rows of the published accounts."""
        return tuple([record.account.row for record in self._published.values() if record.account.row])

    def joules(self, process: ProcessKey) -> Mapping[Component, float] | None:
        """All joules of a process by component, None if it has no account."""
        record = self.records.get(process)
        if record is None:
            return None
        sums: dict[Component, float] = {}
        for (component, _), joules in record.account.joules.items():
            sums[component] = sums.get(component, 0.0) + joules
        return sums

    def models(self) -> Mapping[int, Model]:
        """Serial of each published account whose process works for a model → that model."""
        if self._model_names is None:
            named = [(record.account.serial, record.model) for record in self._published.values() if record.model]
            self._model_names = {serial: model.owner for serial, model in named if isinstance(model.owner, Model)}
        return self._model_names

    def restore(self, account: Account, now: float) -> None:
        """Add an account of an earlier run in the same boot; it is published until it expires or is seen."""
        owner = account.owner
        assert isinstance(owner, ProcessOwner)
        key = ProcessKey(owner.pid, account.start_ticks)
        self.records[key] = ProcessRecord(account, None, now)
        self._publish(key, self.records[key], now)

    def _publish(self, key: ProcessKey, record: ProcessRecord, now: float) -> None:
        owner = record.account.owner
        assert isinstance(owner, ProcessOwner)
        other = self._by_owner.get(owner)
        if other is not None and other != key:
            # The pid was reused and the labels are the same: the series restarts with the new process.
            self._forget(other, self.records[other], now)
        self._by_owner[owner] = key
        self._published[key] = record
        self._model_names = None
        record.account.hidden = False

    def _hide(self, key: ProcessKey, record: ProcessRecord) -> None:
        if self._published.pop(key, None) is not None and isinstance(record.account.owner, ProcessOwner):
            del self._by_owner[record.account.owner]
            self._model_names = None
            record.account.hide()

    def _forget(self, key: ProcessKey, record: ProcessRecord, now: float) -> None:
        self._hide(key, record)
        self._leave_model(record, now)
        del self.records[key]

    def _join_model(self, record: ProcessRecord, model: Model, container: Account) -> Account:
        self._model_names = None
        record.model = account = self._models.join(model, container)
        return account

    def _leave_model(self, record: ProcessRecord, now: float) -> None:
        if record.model is not None and record.container is not None:
            self._models.leave(record.model, record.container, now)
            record.model = None
            self._model_names = None


def _owner(key: ProcessKey, comm: str, container: Account) -> ProcessOwner:
    place = container.owner
    assert isinstance(place, Workload)
    return ProcessOwner(key.pid, comm, place.namespace, place.pod, place.container)


def _ended_at(item: _Item) -> tuple[float, float]:
    ended_at = item[1].account.ended_at
    return item[1].seen_at if ended_at is None else ended_at, item[1].score


def _score(item: _Item) -> float:
    return item[1].score
