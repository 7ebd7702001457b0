"""One account and what surrounds it: the period it is settled for, and the form in which it is saved."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from ..records import AccountRow, Component, Loss, Mode, Model, ProcessOwner, Workload
from .attribution import Rate

Owner = Workload | ProcessOwner | Model
Joules = dict[tuple[Component, Mode], float]

_OF_EVERYBODY: frozenset[Component] = frozenset(("cpu", "dram"))
"""What every container uses, were it only a little; a GPU is used by some."""


@dataclass(frozen=True, slots=True)
class Period:
    """The time one tick covers: ends at boot time ``now``, lasted ``window_seconds`` (> 0).

    ``metered`` are the components somebody measured in it, ``capacity`` the busy seconds per second the
    node could do of each component whose use is known. What is not in them is unknown, not 0.
    """

    now: float
    window_seconds: float
    metered: frozenset[Component]
    capacity: Mapping[Component, float]


class Account:
    """Joules of one owner, which only grow. ``ended_at`` is set while nobody is left who could add to it."""

    __slots__ = (
        "_cells",
        "ended_at",
        "joules",
        "members",
        "owner",
        "row",
        "serial",
        "start_ticks",
        "tick_joules",
        "tick_seconds",
    )

    def __init__(self, serial: int, owner: Owner, start_ticks: int = 0) -> None:
        self.serial = serial
        self.owner = owner
        self.start_ticks = start_ticks
        self.joules: Joules = {}
        self.tick_joules: dict[Component, float] = {}
        self.tick_seconds: dict[Component, float] = {}
        self.members = 0
        self.ended_at: float | None = None
        self.row: AccountRow | None = None
        self._cells: tuple[tuple[Component, Mode], ...] = ()

    def add(self, component: Component, mode: Mode, joules: float) -> None:
        """Add joules; call only between two `settle`."""
        cell = (component, mode)
        self.joules[cell] = self.joules.get(cell, 0.0) + joules
        self.tick_joules[component] = self.tick_joules.get(component, 0.0) + joules

    def total(self) -> float:
        """All joules, whatever component and mode."""
        return sum(self.joules.values())

    def use(self, component: Component, seconds: float) -> None:
        """Add busy seconds; call only between two `settle`."""
        self.tick_seconds[component] = self.tick_seconds.get(component, 0.0) + seconds

    def charge(self, rates: Sequence[Rate], seconds: float) -> None:
        """Bill busy CPU seconds at this tick's rates; without a meter only the seconds are noted."""
        self.tick_seconds["cpu"] = self.tick_seconds.get("cpu", 0.0) + seconds
        for component, active, idle in rates:
            self.add(component, "active", seconds * active)
            if idle:
                self.add(component, "idle", seconds * idle)

    def show(self, period: Period) -> None:
        """Start at 0 for CPU and DRAM, as far as they are measured: Prometheus counts from the first sample on."""
        for component in _OF_EVERYBODY & period.metered:
            self.joules.setdefault((component, "active"), 0.0)
            self.tick_joules.setdefault(component, 0.0)
        if "cpu" in period.capacity:
            self.tick_seconds.setdefault("cpu", 0.0)

    def settle(self, period: Period) -> bool:
        """Make the row of the tick that ends now; True if the next tick must make one even without a charge."""
        if len(self._cells) != len(self.joules):
            self._cells = tuple(self.joules)
        window, metered, capacity = period.window_seconds, period.metered, period.capacity
        watts = {key: joules / window for key, joules in self.tick_joules.items() if key in metered}
        ratios = {key: used / window / capacity[key] for key, used in self.tick_seconds.items() if key in capacity}
        self.row = AccountRow(
            self.serial,
            self.owner,
            self._cells,
            tuple(self.joules.values()),
            tuple(watts),
            tuple(watts.values()),
            tuple(ratios),
            tuple(ratios.values()),
        )
        moved = any(watts.values()) or any(ratios.values())
        self.tick_joules = dict.fromkeys(self.tick_joules, 0.0)
        self.tick_seconds = dict.fromkeys(self.tick_seconds, 0.0)
        return moved

    def saved(self) -> SavedAccount:
        """In the form the checkpoint keeps."""
        return SavedAccount(self.owner, self.start_ticks, dict(self.joules))


class SavedAccount(NamedTuple):
    """An account as the checkpoint keeps it; ``start_ticks`` completes the identity of a process."""

    owner: Owner
    start_ticks: int
    joules: Joules


@dataclass(slots=True)
class Books:
    """What the ledger must remember across a restart: totals in joules, and every account on show."""

    devices: dict[str, float] = field(default_factory=dict)
    nodes: dict[Component, float] = field(default_factory=dict)
    unattributed: dict[tuple[Component, Loss], float] = field(default_factory=dict)
    retired: dict[Component, float] = field(default_factory=dict)
    accounts: list[SavedAccount] = field(default_factory=list)
