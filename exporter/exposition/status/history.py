"""Power over the last minutes, in bounded memory, for the sparklines of the status page."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from heapq import nlargest
from typing import NamedTuple

from ...records import Component
from ...snapshot import AccountRow, Snapshot

POINTS = 300
WINDOW_SECONDS = 600.0
TOP = 12


class Point(NamedTuple):
    """Watts at one time (``at``: boot-time seconds): by component, and by serial for the top accounts."""

    at: float
    nodes: Mapping[Component, float]
    containers: Mapping[int, float]
    models: Mapping[int, float]


class History:
    """Written by the sampler's thread, read by the server's without a lock, because points are immutable."""

    def __init__(self, points: int = POINTS, window_seconds: float = WINDOW_SECONDS) -> None:
        self._points: deque[Point] = deque(maxlen=points)
        # Slightly less than the nominal spacing, so that a tick that comes a little early is not skipped.
        self._spacing = window_seconds / points * 0.9
        self._next_at = float("-inf")

    def observe(self, snapshot: Snapshot) -> None:
        """Add a point, unless the last one is too recent or the snapshot has no power."""
        if snapshot.monotonic_at < self._next_at or all(node.watts is None for node in snapshot.energy.nodes):
            return
        self._next_at = snapshot.monotonic_at + self._spacing
        self._points.append(
            Point(
                snapshot.monotonic_at,
                {node.component: node.watts for node in snapshot.energy.nodes if node.watts is not None},
                _top(snapshot.energy.containers),
                _top(snapshot.energy.models),
            )
        )

    def points(self) -> list[Point]:
        """Return a copy of the points, oldest first."""
        while True:
            try:
                return list(self._points)
            except RuntimeError:  # the sampler added one meanwhile
                continue


def _top(rows: tuple[AccountRow, ...]) -> dict[int, float]:
    watts = [(total, row.serial) for row in rows if (total := sum(row.watts)) > 0]
    return {serial: total for total, serial in (nlargest(TOP, watts) if len(watts) > TOP else watts)}
