"""When a process was in which of its regions: cumulative seconds, from which those of any interval follow."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from itertools import pairwise

OUTSIDE = ""
"""Name of the time in which no region was open."""

Times = dict[str, float]
"""Seconds by region; those of `OUTSIDE` are part of it."""


class RegionTimes:
    """Seconds by region up to each moment, in order of time. Old moments are forgotten.

    Between two moments every region is taken to have grown evenly. A gap is time of which nothing is known.
    """

    def __init__(self) -> None:
        self.regions: dict[str, int] = {}
        self._at: list[float] = []
        self._totals: list[list[float]] = []

    @property
    def since(self) -> float | None:
        """The first moment that is known, None if there is none."""
        return self._at[0] if self._at else None

    @property
    def until(self) -> float | None:
        """The last moment that is known, None if there is none."""
        return self._at[-1] if self._at else None

    def start(self, at: float) -> None:
        """Nothing before ``at`` is known, or nothing between the last moment and ``at``: forget what was before."""
        self._at = [at]
        self._totals = [[0.0] * len(self.regions)]

    def add(self, seconds: float, times: Sequence[tuple[str, float]]) -> None:
        """Add the next ``seconds``, and how much of them each region took."""
        totals = self._totals[-1].copy()
        for region, taken in times:
            number = self.regions.get(region)
            if number is None:
                number = self.regions[region] = len(self.regions)
            if number >= len(totals):
                totals += [0.0] * (len(self.regions) - len(totals))
            totals[number] += taken
        self._at.append(self._at[-1] + seconds)
        self._totals.append(totals)

    def totals(self, at: float) -> list[float]:
        """Seconds up to ``at`` by number of region; those of regions that are entered later are missing."""
        index = bisect_left(self._at, at)
        if index == 0:
            return self._totals[0]
        if index == len(self._at):
            return self._totals[-1]
        before, after = self._totals[index - 1], self._totals[index]
        began = self._at[index - 1]
        ratio = (at - began) / (self._at[index] - began)
        totals = [low + ratio * (high - low) for low, high in zip(before, after, strict=False)]
        return totals + [ratio * high for high in after[len(before) :]]

    def mean_totals(self, at: float, width: float) -> list[float]:
        """The mean of `totals` over the ``width`` seconds up to ``at``: what is expected where that moment is unknown.

        Before the first moment that is known and after the last one nothing grows.
        """
        if width <= 0.0:
            return self.totals(at)
        began = at - width
        edges = [began, *self._at[bisect_right(self._at, began) : bisect_left(self._at, at)], at]
        earlier = self.totals(began)
        sums = [0.0] * len(self.regions)
        for low, high in pairwise(edges):
            later = self.totals(high)
            half = 0.5 * (high - low)
            for number, value in enumerate(earlier):
                sums[number] += half * value
            for number, value in enumerate(later):
                sums[number] += half * value
            earlier = later
        return [value / width for value in sums]

    def between(self, start: float, end: float) -> Times:
        """Seconds by region from ``start`` to ``end``; only regions that were entered are in it."""
        return self.difference(self.totals(start), self.totals(end))

    def difference(self, before: Sequence[float], after: Sequence[float]) -> Times:
        """Seconds by region between two `totals`."""
        padded = [*before, *[0.0] * (len(after) - len(before))]
        pairs = zip(self.regions, padded, after, strict=False)
        return {region: high - low for region, low, high in pairs if high > low}

    def forget(self, before: float) -> None:
        """Forget what is not needed for moments from ``before`` on."""
        index = bisect_left(self._at, before) - 1
        if index > 0:
            del self._at[:index]
            del self._totals[:index]
