"""Accounts of processes, and the choice of those that are shown."""

from __future__ import annotations

import heapq
from collections.abc import Collection, Iterator

from ..records import GroupKey, Model, Process, ProcessKey, ProcessOwner, Workload
from ..snapshot import AccountRow
from .accounts import Account, Period
from .models import ModelAccounts

_HALF_LIFE_SECONDS = 300.0

ENDED_PER_TOP = 4
"""Processes that ended and are still on show, per process of the top; without a bound it were all those of minutes."""

ENDED_ON_GPU = 200
"""The same of GPU processes, whatever the top: a storm of others must not push a trainer's last joules off show."""

_SILENT_SECONDS = 10.0
"""A GPU process that was not named for so long, while others were, has let go of its card or ended unseen."""


class ProcessRecord:
    """A process account with what it needs to be billed and ranked. ``container`` None: not seen since a restart.

    ``before`` are the joules an earlier run booked: its model's account has had its share of those.
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
        self.score = 0.0
        self.ranked_joules = 0.0

    def ended(self, silent: float) -> bool:
        """Whether it ended; of one on a GPU that is also so if it was not seen since boot time ``silent``."""
        return self.account.ended_at is not None or (self.gpu and self.seen_at < silent)

    def showable(self, silent: float) -> bool:
        """Whether it has not `ended`, in a container that has its name."""
        return not self.ended(silent) and (self.container is None or self.container.held_until is None)


_Item = tuple[ProcessKey, ProcessRecord]


class ProcessAccounts:
    """Every process that used something, in ``records``; the top N of them, and every one on a GPU, are shown.

    ``named_at`` is when processes on a GPU were last named, whichever.
    """

    def __init__(self, serials: Iterator[int], models: ModelAccounts) -> None:
        self._serials = serials
        self._models = models
        self.records: dict[ProcessKey, ProcessRecord] = {}
        self._shown: dict[ProcessKey, ProcessRecord] = {}
        self._by_owner: dict[ProcessOwner, ProcessKey] = {}
        self._ranked_at = float("-inf")
        self.named_at = float("-inf")
        self.dropped = 0

    def open(
        self, process: Process, group: GroupKey | None, container: Account, model: Model | None, now: float
    ) -> ProcessRecord:
        """Make the account of a process as it is now: another comm or container makes another series."""
        known = self.records.get(process.key)
        owner = _owner(process.key, process.comm, container)
        if known is not None and known.container is None and known.account.owner == owner:
            record = known
            record.container = container
            record.account.ended_at = None
        else:
            if known is not None:
                self._forget(process.key, known, now)
            account = Account(next(self._serials), owner, process.key.start_ticks)
            account.hidden = True
            record = self.records[process.key] = ProcessRecord(account, container, now)
            record.gpu = known is not None and known.gpu
        record.group = group
        if model is not None:
            record.model = self._models.join(model, container)
        return record

    def of_groups(self, groups: Collection[GroupKey]) -> list[tuple[Process, ProcessRecord]]:
        """The processes of some cgroups."""
        return [(Process(key, record.comm), record) for key, record in self.records.items() if record.group in groups]

    def rename(
        self, process: Process, record: ProcessRecord, container: Account, model: Model | None, now: float
    ) -> list[Account]:
        """Its container or its model has another name now; returns the accounts that need a new row.

        What the process used before its model was known is the model's too.
        """
        account = record.account
        owner = _owner(process.key, record.comm, container)
        if account.owner != owner:
            shown = process.key in self._shown
            if shown:
                self._hide(process.key, record)
            account.owner, account.serial = owner, next(self._serials)
            if shown:
                self._show(process.key, record, now)
        before = record.model
        if before is not None:
            if account.ended_at is None:
                assert record.container is not None
                self._models.leave(before, record.container, now)
            record.model = None
        record.container = container
        if model is not None and account.ended_at is None:
            record.model = self._models.join(model, container)
            if before is None:
                record.model.absorb(
                    {cell: joules - record.before.get(cell, 0.0) for cell, joules in account.joules.items()}
                )
        return [account] if record.model is None else [account, record.model]

    def exit(self, key: ProcessKey, now: float) -> None:
        """A process ended. If it is on show it stays until it expires."""
        record = self.records.get(key)
        if record is None:
            return
        if key in self._shown:
            self._leave_model(record, now)
            record.account.ended_at = now
        else:
            self._forget(key, record, now)

    def expire(self, deadline: float, now: float) -> None:
        """Forget processes that ended before ``deadline``, and GPU processes that no driver named since then."""
        for key, record in list(self.records.items()):
            silent = record.gpu and record.seen_at <= deadline
            if silent or record.account.expired(deadline):
                self._forget(key, record, now)

    def rank(self, period: Period, top: int, *, shed: bool) -> None:
        """Choose who is shown: the joules of late count, halved every 5 minutes.

        A process enters among the first ``top`` and leaves beyond 1.5 × ``top``, so that series do not
        flap. Of those that ended the last `ENDED_PER_TOP` × ``top`` stay, and the last `ENDED_ON_GPU` on a GPU
        (fault 36). ``shed`` shows GPU processes only (fault 59).
        """
        now, price = period.now, sum([price for _, price in period.tariff])
        decay = 0.5 ** (min(now - self._ranked_at, 1e6) / _HALF_LIFE_SECONDS)
        self._ranked_at = now
        for record in self.records.values():
            # This tick is not billed yet. Where nothing is metered, seconds must do.
            joules = record.account.total() + record.account.cpu_seconds * (price or 1.0)
            record.score = record.score * decay + joules - record.ranked_joules
            record.ranked_joules = joules if price else 0.0
        top = 0 if shed else top
        silent = self.named_at - _SILENT_SECONDS
        running = [item for item in self.records.items() if item[1].showable(silent)]
        best = [key for key, _ in heapq.nlargest(top + top // 2, running, key=_score)]
        entering, staying = set(best[:top]), set(best)
        ended: tuple[list[_Item], list[_Item]] = ([], [])
        for key, record in list(self._shown.items()):
            if record.ended(silent):
                ended[record.gpu].append((key, record))
            elif not record.gpu and key not in staying:
                self._hide(key, record)
                self.dropped += 1
        self._bound(ended[False], ENDED_PER_TOP * top, now)
        self._bound(ended[True], ENDED_ON_GPU, now)
        for key, record in running:
            if key not in self._shown and (key in entering or record.gpu):
                self._show(key, record, now)

    def _bound(self, ended: list[_Item], most: int, now: float) -> None:
        """Keep the last ``most`` of those that ended on show."""
        for key, record in heapq.nsmallest(len(ended) - most, ended, key=_ended_at):
            if record.container is not None:
                self._forget(key, record, now)
            else:  # of an earlier run: it may be seen yet
                self._hide(key, record)

    def shown(self) -> list[Account]:
        """Accounts on show."""
        return [record.account for record in self._shown.values()]

    def rows(self) -> tuple[AccountRow, ...]:
        """Rows of the accounts on show."""
        return tuple([record.account.row for record in self._shown.values() if record.account.row])

    def restore(self, account: Account, now: float) -> None:
        """Take over an account of an earlier run in the same boot; it is on show until it expires or is seen."""
        owner = account.owner
        assert isinstance(owner, ProcessOwner)
        key = ProcessKey(owner.pid, account.start_ticks)
        self.records[key] = ProcessRecord(account, None, now)
        self._show(key, self.records[key], now)

    def _show(self, key: ProcessKey, record: ProcessRecord, now: float) -> None:
        owner = record.account.owner
        assert isinstance(owner, ProcessOwner)
        other = self._by_owner.get(owner)
        if other is not None and other != key:
            # Its pid was reused, the labels are the same: the series starts again at the new one (fault 34).
            self._forget(other, self.records[other], now)
        self._by_owner[owner] = key
        self._shown[key] = record
        record.account.hidden = False

    def _hide(self, key: ProcessKey, record: ProcessRecord) -> None:
        if self._shown.pop(key, None) is not None and isinstance(record.account.owner, ProcessOwner):
            del self._by_owner[record.account.owner]
            record.account.row = None
            record.account.hidden = True

    def _forget(self, key: ProcessKey, record: ProcessRecord, now: float) -> None:
        self._hide(key, record)
        self._leave_model(record, now)
        del self.records[key]

    def _leave_model(self, record: ProcessRecord, now: float) -> None:
        if record.model is not None and record.container is not None:
            self._models.leave(record.model, record.container, now)
            record.model = None


def _owner(key: ProcessKey, comm: str, container: Account) -> ProcessOwner:
    place = container.owner
    assert isinstance(place, Workload)
    return ProcessOwner(key.pid, comm, place.namespace, place.pod, place.container)


def _ended_at(item: _Item) -> tuple[float, float]:
    ended_at = item[1].account.ended_at
    return item[1].seen_at if ended_at is None else ended_at, item[1].score


def _score(item: _Item) -> float:
    return item[1].score
