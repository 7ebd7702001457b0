"""Power over the last minutes, in bounded memory: for sparklines, and for what is idle now and on which card."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from heapq import nlargest
from typing import NamedTuple

from ...records import Component, Mode, Workload
from ...snapshot import AccountRow, CardRow, Snapshot

POINTS = 300
WINDOW_SECONDS = 600.0
TOP = 10
_TRACKED = 2 * TOP
"""More than are shown, so that the idle part of an account that rises into the top is known at once."""


class Use(NamedTuple):
    """Watts of an account, and the idle part of them; None while that is unknown."""

    watts: float
    idle_watts: float | None


class Point(NamedTuple):
    """Watts at one time (``at``: boot-time seconds): by component, and by serial for the top accounts of each level."""

    at: float
    nodes: Mapping[Component, float]
    accounts: Mapping[int, Use]


class Holder(NamedTuple):
    """A container that joules of a card were attributed to since the last point; a part is None while unknown."""

    owner: Workload
    active_watts: float | None
    idle_watts: float | None


_CardKey = tuple[Workload, str, Mode]


class History:
    """Written by the sampler's thread, read by the server's without a lock, because what it returns is immutable."""

    def __init__(self, points: int = POINTS, window_seconds: float = WINDOW_SECONDS) -> None:
        self._points: deque[Point] = deque(maxlen=points)
        # Slightly less than the nominal spacing, so that a tick that comes a little early is not skipped.
        self._spacing = window_seconds / points * 0.9
        self._next_at = float("-inf")
        self._at = float("-inf")
        self._rows: Mapping[int, AccountRow] = {}
        self._cards: Mapping[_CardKey, float] = {}
        self._holders: Mapping[str, Sequence[Holder]] = {}

    def observe(self, snapshot: Snapshot) -> None:
        """Add a point, unless the last one is too recent or the snapshot has no power."""
        at, energy = snapshot.monotonic_at, snapshot.energy
        if at < self._next_at or all(node.watts is None for node in energy.nodes):
            return
        self._next_at = at + self._spacing
        rows = {
            row.serial: row for level in (energy.containers, energy.processes, energy.models) for row in _top(level)
        }
        uses = {serial: _use(row, self._rows.get(serial)) for serial, row in rows.items()}
        cards: dict[_CardKey, float] = {(row.owner, row.device, row.mode): row.joules for row in energy.container_cards}
        self._holders = _holders(energy.container_cards, self._cards, at - self._at)
        self._rows, self._cards, self._at = rows, cards, at
        watts = {node.component: node.watts for node in energy.nodes if node.watts is not None}
        self._points.append(Point(at, watts, uses))

    def points(self) -> list[Point]:
        """Return a copy of the points, oldest first."""
        while True:
            try:
                return list(self._points)
            except RuntimeError:  # the sampler added one meanwhile
                continue

    def holders(self) -> Mapping[str, Sequence[Holder]]:
        """Device id of each card → the containers that it worked for, or was held by, between the last two points."""
        return self._holders


def _top(rows: tuple[AccountRow, ...]) -> list[AccountRow]:
    known = [row for row in rows if any(row.watts)]
    return nlargest(_TRACKED, known, key=lambda row: sum(row.watts)) if len(known) > _TRACKED else known


def _use(row: AccountRow, before: AccountRow | None) -> Use:
    """Its watts, divided as its joules grew since the last point."""
    watts = sum(row.watts)
    if before is None or before.cells != row.cells:
        return Use(watts, None)
    grown: dict[Mode, float] = {"active": 0.0, "idle": 0.0}
    for (_, mode), now, then in zip(row.cells, row.joules, before.joules, strict=True):
        if now > 0 and then == 0:  # a new counter, which may have been published at 0 until it was scraped
            return Use(watts, None)
        grown[mode] += now - then
    total = grown["active"] + grown["idle"]
    return Use(watts, watts * grown["idle"] / total if total > 0 else None)


def _holders(
    rows: Sequence[CardRow], before: Mapping[_CardKey, float], seconds: float
) -> dict[str, tuple[Holder, ...]]:
    grown: dict[tuple[str, Workload], dict[Mode, float | None]] = {}
    for owner, device, mode, joules in rows:
        then = before.get((owner, device, mode), 0.0)
        if joules > then:
            # What a new counter holds may be of a longer time.
            grown.setdefault((device, owner), {})[mode] = (joules - then) / seconds if then else None
    found: dict[str, tuple[Holder, ...]] = {}
    for (device, owner), watts in grown.items():
        holder = Holder(owner, watts.get("active", 0.0), watts.get("idle", 0.0))
        found[device] = (*found.get(device, ()), holder)
    return found
