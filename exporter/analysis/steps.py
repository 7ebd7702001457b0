"""Reads values of queries at regular steps, a few days at once, so that memory does not grow with the window."""

from __future__ import annotations

import math
from array import array
from collections.abc import Callable, Sequence

from .facts import Grid
from .growth import Labels
from .prometheus import Prometheus, TooMuchDataError

_POINTS = 40_000
"""About as many points are read by one request, where the number of series is known."""

Table = dict[Labels, "array[float]"]
"""Values of some labels → one value for each step."""


class StepReader:
    """Queries of one Prometheus at the ends of the steps of a grid; ``advance`` is called after each query."""

    def __init__(self, prometheus: Prometheus, grid: Grid, advance: Callable[[], None] = lambda: None) -> None:
        self._prometheus = prometheus
        self.grid = grid
        self._advance = advance
        self._largest = max(1, round(2 * 86400 / grid.step))

    def read(self, query: str, labels: Sequence[str], missing: float = 0.0) -> Table:
        """The values of ``query`` by ``labels``, ``missing`` where it has none; rows of the same labels are added.

        Raises `QueryError`.
        """
        table: Table = {}
        first, size = 0, self._largest
        start, step, length = self.grid
        while first < length:
            last = min(first + size, length) - 1
            try:
                points = self._fill(
                    table, query, labels, missing, (start + step * (first + 1), start + step * (last + 1))
                )
            except TooMuchDataError:
                if size == 1:
                    raise
                size = max(1, size // 2)
                continue
            first = last + 1
            if points:
                size = max(1, min(length, size * _POINTS // points))
        self._advance()
        return table

    def _fill(self, table: Table, query: str, labels: Sequence[str], missing: float, ends: tuple[float, float]) -> int:
        """Put one answer into the table. Returns its number of points."""
        points = 0
        start, step, length = self.grid
        for series in self._prometheus.range(query, *ends, step):
            key = tuple([series.labels.get(label, "") for label in labels])
            row = table.get(key)
            if row is None:
                row = table[key] = array("d", [missing]) * length
            points += len(series.times)
            for at, value in zip(series.times, series.values, strict=True):
                index = round((at - start) / step) - 1
                held = row[index]
                row[index] = value if math.isnan(held) or held == missing else held + value
        return points
