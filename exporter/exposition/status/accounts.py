"""The tables of models, workloads and processes: power and energy, how much is idle now, and how much was unused."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from heapq import nlargest
from typing import NamedTuple

from ...records import Model, ProcessOwner, Workload
from ...snapshot import AccountRow, Snapshot
from .history import TOP, Point, Use
from .markup import (
    UNKNOWN,
    Head,
    Layer,
    bar,
    card,
    column,
    details,
    name,
    note,
    number,
    percent,
    spark,
    table,
    tag,
    term,
)
from .overview import energy_unit, node_watts, span

_SMALL_RATIO = 0.001
"""Of the node's power and energy; accounts below both are summed up in one row."""

_IDLE_RATIO = 0.95
"""From this share of its power on, an account is marked as idle."""

_UNKNOWN_USE = Use(0.0, None)


def accounts(snapshot: Snapshot, points: Sequence[Point]) -> str:
    """Return the tables; one without rows is left out."""
    energy, show = snapshot.energy, _Table(snapshot, points)
    return (
        show.card("Models", "Model", energy.models, _model_name)
        + show.card(
            "Workloads", "Workload", energy.containers, lambda row: _workload_name(row, energy.container_models)
        )
        + show.card("Processes", "Process", energy.processes, lambda row: _process_name(row, energy.process_models))
    )


def no_model(snapshot: Snapshot) -> str:
    """Return what to do where no model was recognised; "" if one was."""
    if snapshot.energy.models or not snapshot.energy.containers:
        return ""
    return details(
        "no-model",
        "No AI model recognised",
        "<p>If one runs here, <code>ai-energy-exporter explain PID</code> prints what was tried to name it.</p>",
    )


class _Name(NamedTuple):
    title: str
    below: str


def _model_name(row: AccountRow) -> _Name:
    model = row.owner
    assert isinstance(model, Model)
    return _Name(name(model.model_name), note(*map(name, filter(None, (model.namespace, model.phase, model.variant)))))


def _workload_name(row: AccountRow, models: Mapping[int, Model]) -> _Name:
    owner, model = row.owner, models.get(row.serial)
    assert isinstance(owner, Workload)
    title = workload_title(owner)
    runtime = owner.runtime if owner.runtime != title else ""
    parts = [owner.namespace, owner.container if owner.pod else "", runtime, model.model_name if model else ""]
    return _Name(name(title), note(*map(name, filter(None, parts))))


def _process_name(row: AccountRow, models: Mapping[int, Model]) -> _Name:
    owner, model = row.owner, models.get(row.serial)
    assert isinstance(owner, ProcessOwner)
    parts = [owner.namespace, owner.pod, owner.container, model.model_name if model else ""]
    return _Name(f'{name(owner.comm)} <span class="pid">{owner.pid}</span>', note(*map(name, filter(None, parts))))


def workload_title(owner: Workload) -> str:
    """The name of a workload: its pod, else its container, unit or job."""
    return owner.pod or owner.container


class _Table:
    """Makes the tables of one page."""

    def __init__(self, snapshot: Snapshot, points: Sequence[Point]) -> None:
        self._points = points
        self._now = points[-1].accounts if points else {}
        self._watts = node_watts(snapshot) or 0.0
        self._joules = sum(node.joules for node in snapshot.energy.nodes)
        self._unit = energy_unit(snapshot)
        self._any_idle = any(mode == "idle" for row in snapshot.energy.containers for _, mode in row.cells)

    def card(
        self, title: str, singular: str, rows: Sequence[AccountRow], name_of: Callable[[AccountRow], _Name]
    ) -> str:
        """Return one level's table: the top accounts by power, and the sum of the others."""
        if not rows:
            return ""
        top = nlargest(TOP, rows, key=lambda row: (sum(row.watts), sum(row.joules)))
        shown = [row for row in top if not self._is_small(row)] or top[:1]
        serials = {row.serial for row in shown}
        others = [row for row in rows if row.serial not in serials]
        watts = [sum(row.watts) if row.watts else None for row in shown]
        joules: list[float | None] = [sum(row.joules) for row in shown]
        idle = [self._idle_watts(row) for row in shown]
        foot: list[str] = []
        if others:
            watts.append(sum(sum(row.watts) for row in others))
            joules.append(sum(sum(row.joules) for row in others))
            idle.append(None)
        power, energy, idle_power = column(watts), self._unit.column(joules), column(idle)
        histories = [[point.accounts.get(row.serial, _UNKNOWN_USE) for point in self._points] for row in shown]
        most = max([use.watts for uses in histories for use in uses], default=0.0)
        cells = [
            (
                name_of(row).title
                + (" " + tag("idle", "warn") if (self._idle_ratio(row) or 0.0) >= _IDLE_RATIO else "")
                + name_of(row).below,
                power[i],
                idle_power[i],
                self._share(row),
                energy[i],
                percent(_unused_share(row)) if self._any_idle else UNKNOWN,
                _spark(histories[i], most),
            )
            for i, row in enumerate(shown)
        ]
        if others:
            foot = [f"{len(others):,} more", power[-1], "", "", energy[-1], percent(_unused_share(*others)), ""]
        scale = f"Last {span(self._points)}<small>0 to {number(most)} W</small>"
        heads = (
            Head(singular),
            Head("Power<small>W</small>", "power"),
            Head(f"{term('idle', 'Idle now')}<small>W</small>", "idle-now"),
            Head(f"{term('share', 'Share')}<small>of the node</small>", "share"),
            Head(f"Energy<small>{self._unit.symbol}</small>", f"energy-{self._unit.symbol}"),
            Head(f"{term('unused', 'Unused')}<small>of the energy</small>", "idle-part"),
            Head(scale, "t chart"),
        )
        return card(title, table(heads, cells, "stack", foot), f"{len(shown)} of {len(rows):,}, by power now")

    def _is_small(self, row: AccountRow) -> bool:
        return sum(row.watts) < _SMALL_RATIO * self._watts and sum(row.joules) < _SMALL_RATIO * self._joules

    def _idle_ratio(self, row: AccountRow) -> float | None:
        """The idle part of its power, as of the last point."""
        now = self._now.get(row.serial, _UNKNOWN_USE)
        return now.idle_watts / now.watts if now.idle_watts is not None and now.watts else None

    def _idle_watts(self, row: AccountRow) -> float | None:
        watts, ratio = sum(row.watts), self._idle_ratio(row)
        if not self._any_idle or not row.watts:
            return None
        return 0.0 if watts == 0 else None if ratio is None else watts * ratio

    def _share(self, row: AccountRow) -> str:
        if not self._watts or not row.watts:
            return UNKNOWN
        share, idle = sum(row.watts) / self._watts, self._idle_ratio(row) or 0.0
        return bar([("active", share * (1 - idle)), ("idle", share * idle)], "meter") + percent(share)


def _spark(uses: Sequence[Use], most: float) -> str:
    watts = [use.watts for use in uses]
    layers = [Layer("active", watts), Layer("idle", [use.idle_watts or 0.0 for use in uses])]
    return spark(layers, most, f"at most {number(max(watts, default=0.0))} W")


def _unused_share(*rows: AccountRow) -> float | None:
    """Share of joules of GPUs on which nothing was done; None without joules, and of processes that are a model's."""
    if any(isinstance(row.owner, ProcessOwner) and ("gpu", "idle") in row.cells and not row.activities for row in rows):
        return None
    total = sum([sum(row.joules) for row in rows])
    return sum([row.activities.get("idle", 0.0) for row in rows]) / total if total > 0 else None
