"""The last minutes of power, in bounded memory, for the sparklines of the status page."""

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
    """Watts at one moment (``at``: boot-time seconds), of each component and, by serial, of the top accounts."""

    at: float
    nodes: Mapping[Component, float]
    containers: Mapping[int, float]
    models: Mapping[int, float]


class History:
    """Fed by the sampler's thread, read by the server's without a lock: points are immutable."""

    def __init__(self, points: int = POINTS, window_seconds: float = WINDOW_SECONDS) -> None:
        self._points: deque[Point] = deque(maxlen=points)
        # A little less than due, so that a tick which comes early by a hair is not skipped.
        self._spacing = window_seconds / points * 0.9
        self._due = float("-inf")

    def observe(self, snapshot: Snapshot) -> None:
        """Remember a snapshot, unless the last point is too recent for this one to be another, or no power is known."""
        if snapshot.monotonic_at < self._due or all(node.watts is None for node in snapshot.nodes):
            return
        self._due = snapshot.monotonic_at + self._spacing
        self._points.append(
            Point(
                snapshot.monotonic_at,
                {node.component: node.watts for node in snapshot.nodes if node.watts is not None},
                _top(snapshot.containers),
                _top(snapshot.models),
            )
        )

    def points(self) -> list[Point]:
        """Copy the points, oldest first."""
        while True:
            try:
                return list(self._points)
            except RuntimeError:  # the sampler added one meanwhile
                continue


def _top(rows: tuple[AccountRow, ...]) -> dict[int, float]:
    watts = [(total, row.serial) for row in rows if (total := sum(row.watts)) > 0]
    return {serial: total for total, serial in (nlargest(TOP, watts) if len(watts) > TOP else watts)}
