"""How late the machine's meter shows what its parts use, and what it does not show between two values.

A BMC has a new value every 1 to 30 s, some seconds old, and often an average. Its parts are read in every tick. So
where the load varies, one lag, and one span of the average, is found at which both move alike (docs/containment.md).
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from typing import NamedTuple

_MOST_LAG_SECONDS = 30
_SPANS = (1, 2, 5, 10, 20, 30, 60)
"""Seconds over which the values of a gauge may be averaged."""

_KEPT_SECONDS = 120.0
"""How far back the most delayed value of the longest average reaches."""

_COMPARED_VALUES = 60
"""How many of the last values weigh in a comparison."""

_COMPARED_SECONDS = 5.0
"""A meter that has values more often is compared once in this time."""

_LEAST_VALUES = 10
_LEAST_ALIKE = 0.5
"""The parts must explain this much of the meter's variance before anything is concluded from them."""

_LEAST_SQUARE_WATTS = 4.0
"""A load of less variance says nothing: gauges have whole watts."""

_STILL_VALUES = 30
_STILL_WATTS = 50.0
"""A gauge that shows the same watts so many times in a row while its parts vary by so much is not updated."""

_BETTER = 0.05
"""Another lag is used once it leaves so much less of the variance unexplained."""

_MOST_SHARE = 1.5


class PartsHistory:
    """Joules that the parts have used, at each tick of the last minutes."""

    def __init__(self) -> None:
        self._at: list[float] = []
        self._joules: list[float] = []

    def add(self, at: float, joules: float) -> None:
        """``joules`` were used since the last call, until the boot time ``at``."""
        if self._at and at <= self._at[-1]:
            self._joules[-1] += joules
            return
        self._at.append(at)
        self._joules.append(joules + (self._joules[-1] if self._joules else 0.0))
        if self._at[0] < at - 2 * _KEPT_SECONDS:
            old = bisect_right(self._at, at - _KEPT_SECONDS)
            del self._at[:old], self._joules[:old]

    def totals(self, at: float, seconds: int) -> list[float] | None:
        """Joules until each of the ``seconds`` back from a boot time, from an unknown beginning; None: too long ago."""
        if not self._at or self._at[0] > at - seconds:
            return None
        return [self._total(at - back) for back in range(seconds + 1)]

    def _total(self, at: float) -> float:
        place = bisect_right(self._at, at)
        if place == len(self._at):
            return self._joules[-1]
        before, after = self._at[place - 1], self._at[place]
        share = (at - before) / (after - before)
        return self._joules[place - 1] + share * (self._joules[place] - self._joules[place - 1])


class _Fit:
    """Weighted moments of the meter's watts, and those of the parts at one lag and span."""

    __slots__ = ("_mean_x", "_mean_y", "_xx", "_xy", "_yy")

    def __init__(self) -> None:
        self._mean_x = self._mean_y = self._xx = self._xy = self._yy = 0.0

    def add(self, parts: float, meter: float, weight: float) -> None:
        """One pair of watts."""
        dx, dy = parts - self._mean_x, meter - self._mean_y
        self._mean_x += weight * dx
        self._mean_y += weight * dy
        self._xx = (1 - weight) * (self._xx + weight * dx * dx)
        self._yy = (1 - weight) * (self._yy + weight * dy * dy)
        self._xy = (1 - weight) * (self._xy + weight * dx * dy)

    @property
    def parts_watts(self) -> float:
        """Mean power of the parts."""
        return self._mean_x

    @property
    def is_steady(self) -> bool:
        """Whether the load varied too little to say anything."""
        return self._xx < _LEAST_SQUARE_WATTS

    @property
    def alike(self) -> float:
        """How much of the meter's variance the parts explain, 0 to 1."""
        if self._xy <= 0 or self.is_steady or self._yy < _LEAST_SQUARE_WATTS:
            return 0.0
        return self._xy * self._xy / (self._xx * self._yy)

    @property
    def share(self) -> float:
        """By how many watts the meter rises with each watt of the parts: what regulators and supplies lose is in it."""
        return 0.0 if self.is_steady else min(max(0.0, self._xy / self._xx), _MOST_SHARE)


class Covered(NamedTuple):
    """Joules of the parts in the time that a meter's value covers, and what the meter did not see in it.

    ``early`` is what the values before, for which another lag was assumed, were short of by that alone.
    """

    parts: float
    missed: float = 0.0
    early: float = 0.0


class Alignment:
    """Compares one meter with its parts; ``gauge``: it is integrated, else a counter.

    A gauge does not see what lies between two values. The parts do: the joules that a gauge of their power would have
    missed, times the share by which the meter follows them, are missing in the meter's joules.
    """

    def __init__(self, *, gauge: bool) -> None:
        self.gauge = gauge
        spans = _SPANS if gauge else (0,)
        self._reach_seconds = _MOST_LAG_SECONDS + spans[-1]
        self._fits = {(lag, span): _Fit() for span in spans for lag in range(_MOST_LAG_SECONDS + 1)}
        self._compared = 0
        self._compared_at = 0.0
        self._before: tuple[float, Sequence[float]] | None = None
        self._chosen: tuple[int, int] | None = None
        self._watts = self._least = self._most = 0.0
        self._same = 0

    @property
    def found(self) -> bool:
        """Whether the load has varied enough to find the lag."""
        return self._chosen is not None

    @property
    def stands_still(self) -> bool:
        """Whether a gauge has shown one value many times, although its parts use now more, now less."""
        return self.gauge and self._same >= _STILL_VALUES and self._most - self._least > _STILL_WATTS

    @property
    def age_seconds(self) -> float:
        """How long before it is read a value, or the middle of what it averages, was true; 0 where unknown."""
        return 0.0 if self._chosen is None else self._chosen[0] + self._chosen[1] / 2

    def compare(self, history: PartsHistory, at: float, watts: float, seconds: float) -> Covered | None:
        """Compare a value read at a boot time ``at``: a counter's mean ``watts`` since the value ``seconds`` before it,
        or a gauge's. None: nothing is known of the time that it covers.
        """
        totals = history.totals(at, self._reach_seconds)
        before = self._before
        self._before = None if totals is None else (at, totals)
        if totals is None or before is None or abs(at - before[0] - seconds) > 1e-3:
            return None
        earlier = before[1]
        self._watch(watts, (totals[0] - earlier[0]) / seconds)
        early = 0.0
        if at - self._compared_at >= _COMPARED_SECONDS:
            self._compared_at = at
            self._compared += 1
            weight = 1.0 / min(self._compared, _COMPARED_VALUES)
            for (lag, span), fit in self._fits.items():
                used = (totals[lag] - totals[lag + span]) / span if span else (totals[lag] - earlier[lag]) / seconds
                fit.add(used, watts, weight)
            before_shift = self._shift(totals)
            self._choose()
            early = self._shift(totals) - before_shift
        if self._chosen is None:
            return None if self.gauge else Covered(totals[0] - earlier[0], 0.0, early)
        lag, span = self._chosen
        middle = lag + span // 2
        used = totals[middle] - earlier[middle]
        if not self.gauge:
            return Covered(used, 0.0, early)
        seen = (totals[lag] - totals[lag + span] + earlier[lag] - earlier[lag + span]) / 2 / span * seconds
        return Covered(used, self._fits[self._chosen].share * (used - seen), early)

    def _watch(self, watts: float, parts: float) -> None:
        """Count how often a value was the same, and between what power of the parts."""
        if watts != self._watts:
            self._watts, self._same, self._least, self._most = watts, 0, parts, parts
        self._same += 1
        self._least, self._most = min(self._least, parts), max(self._most, parts)

    def _shift(self, totals: Sequence[float]) -> float:
        """What the parts have used within the lag beyond their mean."""
        if self._chosen is None:
            return 0.0
        middle = self._chosen[0] + self._chosen[1] // 2
        return totals[0] - totals[middle] - middle * self._fits[self._chosen].parts_watts

    def _choose(self) -> None:
        """The lag and span at which both are most alike; another one than before only if it is clearly better.

        While the load does not vary, those that were found are kept.
        """
        if self._compared < _LEAST_VALUES:
            return
        best = max(self._fits, key=lambda place: self._fits[place].alike)
        alike = self._fits[best].alike
        if alike < _LEAST_ALIKE:
            if self._chosen is not None and not self._fits[self._chosen].is_steady:
                self._chosen = None
        elif self._chosen is None or alike > (known := self._fits[self._chosen].alike) + _BETTER * (1 - known):
            self._chosen = best
