"""Reads values of queries at regular steps, a few days at once, so that memory does not grow with the window."""

from __future__ import annotations

import math
from array import array
from collections.abc import Callable, Iterator, Sequence

from .facts import Grid
from .growth import Labels
from .prometheus import Prometheus, Series, TooMuchDataError
from .window import DAY_SECONDS

_POINTS = 40_000
"""About as many points are read by one request, where the number of series is known."""

Table = dict[Labels, "array[float]"]
"""Values of some labels → one value for each step."""


class StepReader:
    """Queries of one Prometheus at the ends of the steps of a grid; ``advance`` is called after each query.

    No query has a subquery: in a range query Prometheus evaluates each of them for every step from the start.
    """

    def __init__(self, prometheus: Prometheus, grid: Grid, advance: Callable[[], None] = lambda: None) -> None:
        self._prometheus = prometheus
        self.grid = grid
        self._advance = advance

    def read(self, query: str, labels: Sequence[str], missing: float = 0.0) -> Table:
        """The values of ``query`` by ``labels``, ``missing`` where it has none; rows of the same labels are added.

        Raises `QueryError`.
        """
        table: Table = {}
        start, step, length = self.grid
        for series in self._series(query, step):
            row = _row(table, series, labels, missing, length)
            for at, value in zip(series.times, series.values, strict=True):
                index = round((at - start) / step) - 1
                row[index] = value if math.isnan(row[index]) else row[index] + value
        self._advance()
        return table

    def read_often(self, query: str, labels: Sequence[str], every: float) -> tuple[Table, Table]:
        """Sums of the values of ``query`` that it has ``every`` so many seconds of a step, and how many these are."""
        sums: Table = {}
        counts: Table = {}
        start, step, length = self.grid
        for series in self._series(query, every):
            row, count = (_row(table, series, labels, 0.0, length) for table in (sums, counts))
            for at, value in zip(series.times, series.values, strict=True):
                index = math.ceil((at - start) / step - 1e-6) - 1
                row[index] += value
                count[index] += 1
        self._advance()
        return sums, counts

    def _series(self, query: str, every: float) -> Iterator[Series]:
        """The series of a query, a few days at once."""
        start, _, _ = self.grid
        count = round(self.grid.seconds / every)
        first, size = 0, max(1, round(2 * DAY_SECONDS / every))
        while first < count:
            last = min(first + size, count) - 1
            points = 0
            try:
                for series in self._prometheus.range(
                    query, start + every * (first + 1), start + every * (last + 1), every
                ):
                    points += len(series.times)
                    yield series
            except TooMuchDataError:
                if size == 1:
                    raise
                size = max(1, size // 2)
                continue
            first = last + 1
            size = max(1, min(count, size * _POINTS // max(points, 1)))


def _row(table: Table, series: Series, labels: Sequence[str], missing: float, length: int) -> array[float]:
    key = tuple([series.labels.get(label, "") for label in labels])
    row = table.get(key)
    if row is None:
        row = table[key] = array("d", [missing]) * length
    return row
