"""One account: its joules, its row after each tick, and the form in which it survives a restart."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import NamedTuple

from ..impact.values import Rates, Settled
from ..records import Component, Mode, Model, ProcessOwner, UnattributedReason, Workload
from ..snapshot import ACTIVITIES, NO_ACTIVITIES, AccountRow, Activity
from .impacts import merge, settle, sum_of
from .period import Period

Owner = Workload | ProcessOwner | Model
Joules = dict[tuple[Component, Mode], float]
SettledCells = Mapping[tuple[Component, Mode], Settled]
CardJoules = dict[tuple[str, Mode], float]
"""GPU joules by device id and mode; device "" are those of an earlier version, which kept no cards."""

Activities = dict[Activity, float]

_ROUNDING = 1e-9
"""Relative difference between two sums of the same joules that is rounding."""

_UNSETTLED: SettledCells = MappingProxyType({})

_KEPT_ACTIVITIES: Mapping[type[Owner], tuple[Activity, ...]] = {
    Workload: ("idle",),
    ProcessOwner: ACTIVITIES,
    Model: ACTIVITIES,
}
"""Of a process until its model is recognised, which then has them."""

_GPU_CELLS: tuple[tuple[Component, Mode], ...] = (("gpu", "active"), ("gpu", "idle"))


class Account:
    """Joules of one owner, which only grow.

    ``members`` counts the cgroups or processes that can still add to it; ``ended_at`` is the boot time at which the
    last of them left. ``held_until`` is set while the account is not published because its owner's name is still being
    looked up. ``hidden`` accounts (processes beyond the top N) have no rows. ``newborn`` cells are published at 0: they
    are new since the last scrapes, and ``increase()`` leaves out what a counter holds at its first sample. ``cards`` is
    a container's GPU joules by card, ``activities`` a model's by what the card did (of a container those of idle cards
    only). ``settled`` is the impact of its joules up to the last change of the rates; it is
    replaced, never changed, because rows hold it.

    During a tick, seconds and GPU joules are collected; ``surplus_seconds`` is what the seconds' weights add to them.
    `accrue` converts seconds to joules, `finish_tick` also makes the row, `skip_row` makes none.
    """

    __slots__ = (
        "_cells",
        "_gpu_joules",
        "_gpu_seconds",
        "_saved",
        "activities",
        "cards",
        "cpu_seconds",
        "ended_at",
        "held_until",
        "hidden",
        "joules",
        "members",
        "newborn",
        "on_cpu",
        "owner",
        "row",
        "serial",
        "settled",
        "start_ticks",
        "surplus_seconds",
    )

    def __init__(self, serial: int, owner: Owner, start_ticks: int = 0, *, hidden: bool = False) -> None:
        self.serial = serial
        self.owner = owner
        self.start_ticks = start_ticks
        self.joules: Joules = {}
        self.cards: CardJoules | None = None
        self.activities: Activities | None = None
        self.cpu_seconds = 0.0
        self.surplus_seconds = 0.0
        self.on_cpu = False
        self.members = 0
        self.ended_at: float | None = None
        self.held_until: float | None = None
        self.hidden = hidden
        self.newborn: frozenset[tuple[Component, Mode]] = frozenset()
        self.row: AccountRow | None = None
        self.settled: SettledCells = _UNSETTLED
        self._saved: SettledCells = _UNSETTLED
        self._gpu_joules = 0.0
        self._gpu_seconds: float | None = None
        self._cells: tuple[tuple[Component, Mode], ...] = ()

    @classmethod
    def restored(cls, serial: int, saved: SavedAccount, now: float) -> Account:
        """The account of an earlier run; without members it expires unless one joins."""
        account = cls(serial, saved.owner, saved.start_ticks)
        account.joules = dict(saved.joules)
        if not isinstance(saved.owner, ProcessOwner):
            account._restore_activities(saved.activities)
        account._cells = tuple(account.joules)
        account.settled = saved.settled or _UNSETTLED
        if isinstance(saved.owner, Workload):
            account.cards = _complete(saved.cards, saved.joules) or None
        account.ended_at = now
        return account

    # --- who can add to it --------------------------------------------------------------------------

    def join(self) -> None:
        """A cgroup or process that adds to it appeared."""
        self.members += 1
        self.ended_at = None

    def leave(self, now: float) -> None:
        """One that had joined is gone."""
        self.members -= 1
        self.end_if_empty(now)

    def end_if_empty(self, now: float) -> None:
        """Start the linger time, unless a member is left."""
        if self.members == 0:
            self.ended_at = now

    def rename(self, owner: Owner, serial: int) -> None:
        """Publish it under another owner's labels; the new ``serial`` invalidates cached ones."""
        self.owner = owner
        self.serial = serial

    def expired(self, deadline: float) -> bool:
        """Whether its last member left at boot time ``deadline`` or before."""
        return self.ended_at is not None and self.ended_at <= deadline

    def hide(self) -> None:
        """Stop publishing it."""
        self.row = None
        self.hidden = True

    # --- one tick -----------------------------------------------------------------------------------

    def total(self) -> float:
        """All joules, whatever component and mode."""
        return sum(self.joules.values())

    def use_cpu(self, seconds: float, surplus: float = 0.0) -> None:
        """Add busy CPU seconds of this tick; they cost ``surplus`` (> -1) times their length more than others."""
        self.cpu_seconds += seconds
        self.on_cpu = True
        if surplus:
            self.surplus_seconds += seconds * surplus

    def use_gpu(self, seconds: float) -> None:
        """Add busy GPU seconds of this tick."""
        self._gpu_seconds = (self._gpu_seconds or 0.0) + seconds

    def add_gpu(self, mode: Mode, joules: float) -> None:
        """Add joules of a GPU in this tick."""
        cell: tuple[Component, Mode] = ("gpu", mode)
        self.joules[cell] = self.joules.get(cell, 0.0) + joules
        self._gpu_joules += joules

    def add_card(self, device: str, mode: Mode, joules: float) -> None:
        """Note on which card joules of `add_gpu` were used."""
        if self.cards is None:
            self.cards = {}
        cell = (device, mode)
        self.cards[cell] = self.cards.get(cell, 0.0) + joules

    def add_activity(self, activity: Activity, joules: float) -> None:
        """Note what the card did while joules of `add_gpu` were used."""
        if self.activities is None:
            self.activities = self._start_activities()
        if activity in self.activities:
            self.activities[activity] += joules

    def take_activities(self, other: Account) -> None:
        """Add those of another account, whose joules are merged; it has none from then on."""
        for activity, joules in (other.activities or {}).items():
            self.add_activity(activity, joules)
        other.activities = None

    def absorb(self, other: Account) -> None:
        """Add all joules of another account, which ends."""
        self.merge(other.joules)
        self.take_activities(other)
        if other.settled or self.settled:
            self.settled = merge(self.settled, other.settled.items())
        for (device, mode), joules in (other.cards or {}).items():
            self.add_card(device, mode, joules)

    def merge(self, joules: Mapping[tuple[Component, Mode], float]) -> None:
        """Add joules that were attributed to another account of the same owner."""
        for cell, amount in joules.items():
            self.joules[cell] = self.joules.get(cell, 0.0) + amount

    def settle(self, rates: Rates, *, keep_money: bool = True) -> None:
        """Keep the impact of its joules so far, at the rates that were in force."""
        self.settled = settle(self.joules, self.settled, rates, keep_money=keep_money)

    def start_at_zero(self, period: Period) -> None:
        """Publish 0 for CPU and DRAM where they are metered, because ``increase()`` starts at the first sample."""
        self.on_cpu = True
        for component in period.components:
            self.joules.setdefault((component, "active"), 0.0)

    def accrue(self, period: Period) -> float:
        """Convert this tick's CPU seconds to joules; returns those seconds times their weight."""
        seconds = self.cpu_seconds
        if seconds:
            self.cpu_seconds = 0.0
            if self.surplus_seconds:
                seconds += self.surplus_seconds
                self.surplus_seconds = 0.0
            joules = self.joules
            for cell, price in period.tariff:
                try:
                    joules[cell] += seconds * price
                except KeyError:
                    joules[cell] = seconds * price
        return seconds

    def skip_row(self, period: Period) -> None:
        """End the tick of a hidden account: it accrues joules, but has no row."""
        self.accrue(period)
        if self._gpu_seconds is not None:
            self._gpu_joules = self._gpu_seconds = 0.0

    def finish_tick(self, period: Period) -> bool:
        """Accrue and make this tick's row; True if the next tick must make one even without usage."""
        busy_seconds = self.cpu_seconds
        seconds = self.accrue(period)
        if len(self._cells) != len(self.joules):
            if period.born_at_zero:
                self.newborn |= self.joules.keys() - set(self._cells)
            self._cells = tuple(self.joules)
        if self.on_cpu and self._gpu_seconds is None:
            self.row = AccountRow(
                self.serial,
                self.owner,
                self._cells,
                tuple(self.joules.values()) if not self.newborn else self._published_joules(),
                period.components,
                tuple([seconds * price for price in period.watts]),
                period.cpu_known,
                (busy_seconds * period.cpu_ratio,) if period.cpu_known else (),
                self.settled,
                NO_ACTIVITIES if self.activities is None else self._published_activities(),
            )
            return seconds > 0
        return self._finish_gpu_tick(period, busy_seconds, seconds)

    def _finish_gpu_tick(self, period: Period, busy_seconds: float, seconds: float) -> bool:
        components: tuple[Component, ...] = ()
        busy: tuple[Component, ...] = ()
        watts: tuple[float, ...] = ()
        ratios: tuple[float, ...] = ()
        if self.on_cpu:
            components, watts = period.components, tuple([seconds * price for price in period.watts])
            if period.cpu_known:
                busy, ratios = period.cpu_known, (busy_seconds * period.cpu_ratio,)
        gpu_seconds, gpu_joules = self._gpu_seconds or 0.0, self._gpu_joules
        if self._gpu_seconds is not None:
            if period.gpu_metered:
                components, watts = (*components, "gpu"), (*watts, gpu_joules / period.gpu_seconds)
            if period.gpu_ratio is not None:
                busy, ratios = (*busy, "gpu"), (*ratios, gpu_seconds * period.gpu_ratio)
            self._gpu_joules = self._gpu_seconds = 0.0
        self.row = AccountRow(
            self.serial,
            self.owner,
            self._cells,
            tuple(self.joules.values()) if not self.newborn else self._published_joules(),
            components,
            watts,
            busy,
            ratios,
            self.settled,
            NO_ACTIVITIES if self.activities is None else self._published_activities(),
        )
        return seconds > 0 or gpu_seconds > 0 or gpu_joules > 0

    def _start_activities(self) -> Activities:
        """All at 0. A model has both modes from then on, so that all its GPU counters are born in one tick."""
        if isinstance(self.owner, Model):
            for cell in _GPU_CELLS:
                self.joules.setdefault(cell, 0.0)
        return dict.fromkeys(_KEPT_ACTIVITIES[type(self.owner)], 0.0)

    def _restore_activities(self, saved: Mapping[Activity, float]) -> None:
        """Their sum is the GPU joules: what is missing was saved by a version that kept none, so it is unknown."""
        total = sum([self.joules.get(cell, 0.0) for cell in _GPU_CELLS])
        if not saved and not total:
            return
        for activity, joules in saved.items():
            self.add_activity(activity, joules)
        missing = total - sum(saved.values())
        if missing > _ROUNDING * total:
            self.add_activity("unknown", missing)  # which containers do not keep

    def _published_activities(self) -> Mapping[Activity, float]:
        assert self.activities is not None
        return dict.fromkeys(self.activities, 0.0) if ("gpu", "idle") in self.newborn else dict(self.activities)

    def _published_joules(self) -> tuple[float, ...]:
        return tuple([0.0 if cell in self.newborn else joules for cell, joules in self.joules.items()])

    def newborn_joules(self) -> Joules:
        """Joules of the cells that are published at 0."""
        return {cell: self.joules[cell] for cell in self.newborn}

    def saved(self, *, whole: bool = True) -> SavedAccount:
        """As the checkpoint keeps it; in a line of the journal, not ``whole``, without what has not changed."""
        settled = self.settled if whole or self.settled is not self._saved else None
        self._saved = self.settled
        activities = self.activities if self.activities and not isinstance(self.owner, ProcessOwner) else {}
        cards = dict(self.cards or {})
        return SavedAccount(self.owner, self.start_ticks, dict(self.joules), cards, settled, dict(activities))


def _complete(cards: Mapping[tuple[str, Mode], float], joules: Joules) -> CardJoules:
    """Cards whose sum is the GPU joules of an account: what is missing was saved by a version that kept no cards."""
    complete = dict(cards)
    for (component, mode), total in joules.items():
        missing = total - sum(part for (_, of), part in cards.items() if of == mode)
        if component == "gpu" and missing > _ROUNDING * total:
            complete["", mode] = complete.get(("", mode), 0.0) + missing
    return complete


class SavedAccount(NamedTuple):
    """An account as the checkpoint keeps it; ``start_ticks`` completes the identity of a process."""

    owner: Owner
    start_ticks: int
    joules: Joules
    cards: Mapping[tuple[str, Mode], float] = MappingProxyType({})
    settled: SettledCells | None = _UNSETTLED
    """None is unchanged since the last checkpoint or line."""
    activities: Mapping[Activity, float] = NO_ACTIVITIES


@dataclass(frozen=True, slots=True)
class SettledTotals:
    """The impact, up to the last change of the rates, of joules that belong to no account."""

    unattributed: dict[tuple[Component, UnattributedReason], Settled] = field(default_factory=dict)
    retired: dict[Component, Settled] = field(default_factory=dict)
    by_reason: Mapping[UnattributedReason, Settled] = field(init=False, repr=False, compare=False)
    all_retired: Settled = field(init=False, repr=False, compare=False)
    """Sums of both, which each tick needs and only a change of the rates changes."""

    def __post_init__(self) -> None:
        reasons = ((reason, settled) for (_, reason), settled in self.unattributed.items())
        object.__setattr__(self, "by_reason", merge({}, reasons))
        object.__setattr__(self, "all_retired", sum_of(self.retired.values()))

    def with_retired(self, cells: SettledCells) -> SettledTotals:
        """With those of an account that was retired; the same object if it has none."""
        if not cells:
            return self
        by_component = ((component, settled) for (component, _), settled in cells.items())
        return SettledTotals(self.unattributed, merge(self.retired, by_component))


@dataclass(slots=True)
class LedgerState:
    """What the ledger keeps across a restart: every published account, and joules that belong to none."""

    unattributed: dict[tuple[Component, UnattributedReason], float] = field(default_factory=dict)
    retired: dict[Component, float] = field(default_factory=dict)
    accounts: list[SavedAccount] = field(default_factory=list)
    settled: SettledTotals | None = field(default_factory=SettledTotals)
    """None is unchanged since the last checkpoint or line."""
