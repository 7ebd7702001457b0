"""One account and what surrounds it: the period it is settled for, and the form in which it is saved."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from ..records import Component, Loss, Mode, Model, ProcessOwner, Workload
from ..snapshot import AccountRow
from .attribution import Rate

Owner = Workload | ProcessOwner | Model
Joules = dict[tuple[Component, Mode], float]

_CPU_ONLY: tuple[Component, ...] = ("cpu",)
_CPU_LIKE: tuple[Component, ...] = ("cpu", "dram")
"""What is shared out by CPU seconds, and so concerns every workload."""


@dataclass(frozen=True, slots=True)
class Period:
    """The time one tick covers, and what a busy CPU second costs in it: made once, used by every account.

    It ends at boot time ``now``, and is ``gpu_seconds`` long for GPUs. ``tariff`` is joules per busy CPU second of
    each cell. ``components`` are the CPU-like ones that somebody measured, ``watts`` what a busy CPU second in it
    adds to the mean power of each; ``cpu_ratio`` and ``gpu_ratio`` the same for utilisation. What is unknown is left
    out or None, not 0.
    """

    now: float
    gpu_seconds: float
    tariff: tuple[tuple[tuple[Component, Mode], float], ...]
    components: tuple[Component, ...]
    watts: tuple[float, ...]
    cpu_known: tuple[Component, ...]
    cpu_ratio: float
    gpu_metered: bool
    gpu_ratio: float | None

    @classmethod
    def of(
        cls,
        now: float,
        window_seconds: float,
        metered: frozenset[Component],
        capacity: Mapping[Component, float],
        rates: Sequence[Rate],
        gpu_window_seconds: float | None = None,
    ) -> Period:
        """Of ``window_seconds`` (> 0), or where GPUs were read late ``gpu_window_seconds`` for them.

        ``capacity`` is busy seconds per second by component.
        """
        gpu_window = gpu_window_seconds or window_seconds
        tariff: list[tuple[tuple[Component, Mode], float]] = []
        price: dict[Component, float] = {}
        for component, active, idle in rates:
            tariff.append(((component, "active"), active))
            if idle:
                tariff.append(((component, "idle"), idle))
            price[component] = (active + idle) / window_seconds
        components = tuple([component for component in _CPU_LIKE if component in metered])
        watts = tuple([price.get(component, 0.0) for component in components])
        windows: dict[Component, float] = {"gpu": gpu_window}
        ratios = {key: 1 / windows.get(key, window_seconds) / most for key, most in capacity.items()}
        return cls(
            now,
            gpu_window,
            tuple(tariff),
            components,
            watts,
            _CPU_ONLY if "cpu" in ratios else (),
            ratios.get("cpu", 0.0),
            "gpu" in metered,
            ratios.get("gpu"),
        )

    @property
    def known(self) -> tuple[object, ...]:
        """What is known in this period; rows change shape when it changes."""
        return (self.components, self.cpu_known, self.gpu_metered, self.gpu_ratio is None)


class Account:
    """Joules of one owner, which only grow. ``ended_at`` is set while nobody is left who could add to it.

    ``held_until`` is set while the account is kept from view because its owner's name is on the way, ``hidden``
    while it is that of a process which is not among those on show: then it has no rows.

    During a tick seconds and GPU joules are gathered; `bill` makes joules of them, `settle` also a row, and
    `pass_over` none.
    """

    __slots__ = (
        "_cells",
        "_gpu_joules",
        "_gpu_seconds",
        "cpu_seconds",
        "ended_at",
        "held_until",
        "hidden",
        "joules",
        "members",
        "on_cpu",
        "owner",
        "row",
        "serial",
        "start_ticks",
    )

    def __init__(self, serial: int, owner: Owner, start_ticks: int = 0) -> None:
        self.serial = serial
        self.owner = owner
        self.start_ticks = start_ticks
        self.joules: Joules = {}
        self.cpu_seconds = 0.0
        self.on_cpu = False
        self.members = 0
        self.ended_at: float | None = None
        self.held_until: float | None = None
        self.hidden = False
        self.row: AccountRow | None = None
        self._gpu_joules = 0.0
        self._gpu_seconds: float | None = None
        self._cells: tuple[tuple[Component, Mode], ...] = ()

    def total(self) -> float:
        """All joules, whatever component and mode."""
        return sum(self.joules.values())

    def expired(self, deadline: float) -> bool:
        """Whether nobody was left to add to it since boot time ``deadline`` or before."""
        return self.ended_at is not None and self.ended_at <= deadline

    def use_cpu(self, seconds: float) -> None:
        """Note busy CPU seconds of this tick."""
        self.cpu_seconds += seconds
        self.on_cpu = True

    def use_gpu(self, seconds: float) -> None:
        """Note busy GPU seconds of this tick."""
        self._gpu_seconds = (self._gpu_seconds or 0.0) + seconds

    def add_gpu(self, mode: Mode, joules: float) -> None:
        """Add joules of a GPU in this tick."""
        cell: tuple[Component, Mode] = ("gpu", mode)
        self.joules[cell] = self.joules.get(cell, 0.0) + joules
        self._gpu_joules += joules

    def absorb(self, joules: Mapping[tuple[Component, Mode], float]) -> None:
        """Take over what was booked before its owner's name was known."""
        for cell, amount in joules.items():
            self.joules[cell] = self.joules.get(cell, 0.0) + amount

    def show(self, period: Period) -> None:
        """Start at 0 for CPU and DRAM, as far as they are measured: Prometheus counts from the first sample on."""
        self.on_cpu = True
        for component in period.components:
            self.joules.setdefault((component, "active"), 0.0)

    def bill(self, period: Period) -> float:
        """Make joules of this tick's CPU seconds, and return those seconds."""
        seconds = self.cpu_seconds
        if seconds:
            self.cpu_seconds = 0.0
            joules = self.joules
            for cell, price in period.tariff:
                try:
                    joules[cell] += seconds * price
                except KeyError:
                    joules[cell] = seconds * price
        return seconds

    def pass_over(self, period: Period) -> None:
        """End the tick of an account that is not on show: it has joules, but no row that would show its watts."""
        self.bill(period)
        if self._gpu_seconds is not None:
            self._gpu_joules = self._gpu_seconds = 0.0

    def settle(self, period: Period) -> bool:
        """Bill and make the row of the tick that ends now; True if the next tick must make one even without use."""
        seconds = self.bill(period)
        if len(self._cells) != len(self.joules):
            self._cells = tuple(self.joules)
        if self.on_cpu and self._gpu_seconds is None:
            self.row = AccountRow(
                self.serial,
                self.owner,
                self._cells,
                tuple(self.joules.values()),
                period.components,
                tuple([seconds * price for price in period.watts]),
                period.cpu_known,
                (seconds * period.cpu_ratio,) if period.cpu_known else (),
            )
            return seconds > 0
        return self._settle_gpu(period, seconds)

    def _settle_gpu(self, period: Period, seconds: float) -> bool:
        components: tuple[Component, ...] = ()
        busy: tuple[Component, ...] = ()
        watts: tuple[float, ...] = ()
        ratios: tuple[float, ...] = ()
        if self.on_cpu:
            components, watts = period.components, tuple([seconds * price for price in period.watts])
            if period.cpu_known:
                busy, ratios = period.cpu_known, (seconds * period.cpu_ratio,)
        gpu_seconds, gpu_joules = self._gpu_seconds or 0.0, self._gpu_joules
        if self._gpu_seconds is not None:
            if period.gpu_metered:
                components, watts = (*components, "gpu"), (*watts, gpu_joules / period.gpu_seconds)
            if period.gpu_ratio is not None:
                busy, ratios = (*busy, "gpu"), (*ratios, gpu_seconds * period.gpu_ratio)
            self._gpu_joules = self._gpu_seconds = 0.0
        self.row = AccountRow(
            self.serial, self.owner, self._cells, tuple(self.joules.values()), components, watts, busy, ratios
        )
        return seconds > 0 or gpu_seconds > 0 or gpu_joules > 0

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
    """What the ledger must remember across a restart: totals in joules, and every account on show.

    ``retired_devices`` are the joules of devices that are in ``devices`` no longer.
    """

    devices: dict[str, float] = field(default_factory=dict)
    nodes: dict[Component, float] = field(default_factory=dict)
    unattributed: dict[tuple[Component, Loss], float] = field(default_factory=dict)
    retired: dict[Component, float] = field(default_factory=dict)
    accounts: list[SavedAccount] = field(default_factory=list)
    retired_devices: Mapping[Component, float] = field(default_factory=dict)
