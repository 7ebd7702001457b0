"""Watts of the regions of a program, estimated from how its joules vary with the time it spends in each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import inf, isfinite, sqrt
from typing import Literal, NamedTuple

from .normal_equations import NormalEquations
from .region_equations import Groups, merged, ridge, separable
from .region_lags import Dependence, LagGrid, Moment, Solution
from .region_times import OUTSIDE, RegionTimes, Times

Method = Literal["window", "regression", "not_identifiable"]

LAGS = tuple([0.005 * step for step in range(25)])
"""Delays of a meter, in seconds, that are tried: it shows what was used so long before it was read."""

_FINE_STEP_SECONDS = 0.0005
_FINE_STEPS = 6
"""Around the best of `LAGS` delays are tried a second time, so many on either side: a delay that is wrong by 2.5 ms
gives a region of 10 ms 40 % too much."""

EARLIEST_SECONDS = _FINE_STEP_SECONDS * _FINE_STEPS
"""How much later than a read the times of regions must be known, to try delays around 0."""

LATEST_SECONDS = LAGS[-1] + EARLIEST_SECONDS
"""How long before a read they must be known."""

_SETTLED = 60.0
"""Observations from which on the best of `LAGS` is near the delay."""

_CHECKED_EVERY = 20
"""Updates after which the best of `LAGS` is looked for again."""

_COARSE_EVERY = 4
"""Once it is known, every so many observations are added to the equations of `LAGS`: they cost as much as all else."""

HALF_LIFE_SECONDS = 3600.0
"""After this time an observation counts half."""

LEAST_INTERVALS = 30.0
WIDEST_INTERVAL_RATIO = 0.3
"""A region's watts are identified from so many intervals on, if half the width of their 90 % interval is at most that
share of them."""

PARTICIPANTS = 16
"""Most regions of a process that have watts of their own; the others share one value."""

HOLD_SECONDS = 60.0
"""How long the joules of regions wait for an estimate before they are divided by time."""

_CONFIDENCE_DEVIATIONS = 1.645
_LONGEST_SECONDS = 10.0
TIME_ERROR_SECONDS = 0.0005
"""Standard deviation of the moment up to which a meter's value counts, as of RAPL, which steps each millisecond."""

SPREAD = 1.0
"""Standard deviation, relative to the mean, that watts of regions are expected to have before anything is known."""

_ANCHOR_SPREAD = 0.1
"""The same of the power outside all regions, relative to what is known of it."""

_NOISE_RATIO = 1e-10
"""Least variance of the noise relative to that of the joules: meters have digits."""

_PURE_RATIO = 0.98
_WINDOW_RATIO = 0.9
"""A region is measured by windows if this share of its time was in intervals that it filled to `_PURE_RATIO`."""

_REST = "\0rest"  # the regions that share one value; no region has that name
_SOLVE_EVERY = 10
_SOLVE_SECONDS = 2.0


class RegionWatts(NamedTuple):
    """Watts of a region with their 90 % interval; ``together`` are the regions that share its watts."""

    watts: float
    low: float
    high: float
    method: Method
    together: tuple[str, ...] = ()

    def known_to(self, ratio: float) -> bool:
        """Whether it is identified, with half the width of its interval at most ``ratio`` of it."""
        return self.method != "not_identifiable" and self.high - self.watts <= ratio * self.watts


class RegionEstimator:
    """Watts of the regions of one process on one component.

    Ridge regression with forgetting of the joules of an interval on the seconds in each region, with watts that are not
    negative and, if it is known, the power outside all regions as a prior. The delay of the meter is the one with the
    least residual, first of `LAGS`, then around that one; what it may be wrong by is part of the errors. Regions whose
    seconds are always in one proportion are estimated as one.
    """

    def __init__(
        self, outside_watts: float | None = None, spread: float = SPREAD, time_error: float = TIME_ERROR_SECONDS
    ) -> None:
        """``outside_watts`` is the power of the process when no region is open, None if it is unknown.

        ``spread`` is the standard deviation, relative to the mean, that watts of regions are expected to have,
        ``time_error`` that of the moments of the meter, in seconds.
        """
        self._time_error = time_error
        self.outside_watts = outside_watts
        self._spread = spread
        self.lag = 0.0
        self._coarse = LagGrid(LAGS)
        self._fine: LagGrid | None = None
        self._fine_around = self._shifts = 0  # number of the one of `LAGS`; how often it was one beside
        self._dependence = Dependence()
        self._best, self._solved = 0, list[float]()  # of the fine ones, and watts by regressor at it
        self._slots: dict[str, int] = {}
        self._weight = 0.0  # this and the following: of all that was observed, decayed
        self._time_square = 0.0  # error of the moments of reads, in seconds² per second of their interval
        self._joules = 0.0
        self._seconds = 0.0
        self._observed = self._updates = 0
        self._since_solved = 0
        self._seconds_since_solved = 0.0
        self._times: Times = {}  # decayed
        self._pure: Times = {}
        self._watts: dict[str, RegionWatts] = {}

    @property
    def watts(self) -> Mapping[str, RegionWatts]:
        """Watts by region, that of `OUTSIDE` included; empty while too little is known."""
        return self._watts

    @property
    def weight(self) -> float:
        """The decayed number of observations."""
        return self._weight

    # --- observing ----------------------------------------------------------------------------------

    def observe(
        self, times: RegionTimes, start: Moment, end: Moment, joules: float, time_error: float | None = None
    ) -> None:
        """Learn from what the process used between two reads of the meter.

        ``time_error`` is that of these moments, beyond their width, if it is not that of the meter. ``times`` must
        cover `LATEST_SECONDS` before ``start`` and `EARLIEST_SECONDS` after ``end``.
        """
        seconds = end.middle - start.middle
        found = self.seconds(times, start, end)
        if not (0.0 < seconds <= _LONGEST_SECONDS and isfinite(joules)) or not found:
            return
        for name in sorted(found, key=lambda region: -found[region]):
            self._join(name)
        slots = [self._slot(name) for name in times.regions]
        self._observed += 1
        if self._fine is not None:
            every = self._fine.observe(times, start, end, slots, joules)
            if len(self._solved) == len(self._slots):
                values = every[self._best]
                residual = joules - sum([self._solved[slot] * value for slot, value in values])
                self._dependence.observe(start, end, values, residual, len(self._slots))
        if self._fine is None or self._observed % _COARSE_EVERY == 0:
            self._coarse.observe(times, start, end, slots, joules)
        error = self._time_error if time_error is None else time_error
        self._time_square += 2.0 * error * error / seconds
        self._account(found, seconds, joules)
        grid = self._fine or self._coarse
        due = self._since_solved >= _SOLVE_EVERY and self._seconds_since_solved >= _SOLVE_SECONDS
        if due and grid.weight >= LEAST_INTERVALS:
            self._update(grid)

    def seconds(self, times: RegionTimes, start: Moment, end: Moment) -> Times:
        """Seconds by region of an interval, at the lag that was estimated."""
        return times.between(start.middle - self.lag, end.middle - self.lag)

    def _join(self, name: str) -> None:
        if name in self._slots or (len(self._slots) > PARTICIPANTS and _REST in self._slots):
            return
        if len(self._slots) >= PARTICIPANTS and name != OUTSIDE:
            name = _REST
        self._slots[name] = self._coarse.append()
        if self._fine is not None:
            self._fine.append()

    def _slot(self, name: str) -> int | None:
        return self._slots.get(name, self._slots.get(_REST))

    def _account(self, found: Times, seconds: float, joules: float) -> None:
        self._weight += 1.0
        self._joules += joules
        self._seconds += seconds
        self._since_solved += 1
        self._seconds_since_solved += seconds
        total = sum(found.values())
        for name, taken in found.items():
            self._times[name] = self._times.get(name, 0.0) + taken
            if taken >= _PURE_RATIO * total:
                self._pure[name] = self._pure.get(name, 0.0) + taken

    # --- solving ------------------------------------------------------------------------------------

    def _update(self, grid: LagGrid) -> None:
        found = grid.solve(self._solve)
        self.lag = found.lag
        equations = grid.equations[found.number]
        time_square = self._time_square * equations.weight / self._weight
        groups = separable(equations.gram, len(self._slots), time_square, self._slots.get(OUTSIDE))
        solution = found.solution
        if groups.are_joined:
            solution = grid.solve(lambda each: self._solve(each, groups.members)).solution
        elif grid is self._fine:
            factors = self._dependence.factors(len(self._slots))
            errors = [factor * error for factor, error in zip(factors, solution.errors, strict=True)]
            solution = solution._replace(errors=errors)
            self._best, self._solved = found.number, solution.watts
        self._watts = self._identified(solution, groups)
        self._decay(0.5 ** (self._since_solved * (self._seconds / self._weight) / HALF_LIFE_SECONDS))
        self._since_solved, self._seconds_since_solved = 0, 0.0
        self._refine(found.number)

    def _refine(self, best: int) -> None:
        """Try delays around the ``best`` of `LAGS`, once it is known, and around another one if it is that later.

        It is also another one if the best of the delays around it is the first or the last of them. Each time that
        takes twice as many observations, because where the delay makes little difference any may be the best.
        """
        if self._fine is None:
            if self._coarse.weight >= _SETTLED:
                self._try_around(best)
            return
        last = len(self._fine.lags) - 1
        if best in (0, last) and self._fine.weight >= _SETTLED * 2**self._shifts:
            beside = self._fine_around + (1 if best == last else -1)
            if 0 <= beside < len(LAGS):
                self._shifts += 1
                self._try_around(beside)
            return
        self._updates += 1
        if self._updates % _CHECKED_EVERY:
            return
        best = self._coarse.solve(self._solve).number
        if abs(best - self._fine_around) > 1:
            self._try_around(best)

    def _try_around(self, number: int) -> None:
        around = [LAGS[number] + _FINE_STEP_SECONDS * step for step in range(-_FINE_STEPS, _FINE_STEPS + 1)]
        self._fine, self._fine_around = LagGrid(around, len(self._slots)), number
        self._dependence, self._solved = Dependence(), []

    def _decay(self, factor: float) -> None:
        for sums in (self._coarse, self._fine, self._dependence):
            if sums is not None:
                sums.decay(factor)
        self._weight *= factor
        self._joules *= factor
        self._seconds *= factor
        self._time_square *= factor
        self._times = {name: factor * seconds for name, seconds in self._times.items()}
        self._pure = {name: factor * seconds for name, seconds in self._pure.items()}

    def _solve(self, equations: NormalEquations, groups: Sequence[Sequence[int]] | None = None) -> Solution:
        """The solution by regressor or, with ``groups`` of regressors that have the same watts, by group."""
        gram, moments = equations.gram, equations.moments
        outside = self._slots.get(OUTSIDE)
        if groups is not None:
            gram, moments = merged(gram, moments, groups)
            outside = next((number for number, group in enumerate(groups) if outside in group), None)
        mean = self._joules / (sum(self._times.values()) or 1.0)
        expected, spreads = [mean] * len(moments), [self._spread * mean] * len(moments)
        if outside is not None and self.outside_watts is not None:
            expected[outside] = self.outside_watts
            spreads[outside] = max(_ANCHOR_SPREAD * self.outside_watts, 0.01 * mean)
        noise = _NOISE_RATIO * equations.square / equations.weight
        watts, errors, square = expected, spreads, inf
        for _ in range(2):  # the second time with the noise that the first one found
            penalties = [noise / max(spread * spread, 1e-12) for spread in spreads]
            watts, errors, square = ridge(gram, moments, penalties, expected, equations.square)
            freedom = max(1.0, equations.weight - len(moments))
            noise = max(square / freedom, _NOISE_RATIO * equations.square / equations.weight)
        return Solution(watts, [sqrt(noise) * error for error in errors], square)

    def _identified(self, solution: Solution, groups: Groups) -> dict[str, RegionWatts]:
        mean = self._joules / (sum(self._times.values()) or 1.0)
        names = {slot: name for name, slot in self._slots.items()}
        found: dict[str, RegionWatts] = {}
        for number, (group, attenuation) in enumerate(zip(*groups, strict=True)):
            watts = solution.watts[number]
            half = _CONFIDENCE_DEVIATIONS * solution.errors[number] + attenuation * abs(watts - mean)
            members = [name for slot in group for name in self._members(names[slot])]
            for name in members:
                method: Method = "regression"
                if self._pure.get(name, 0.0) >= _WINDOW_RATIO * self._times.get(name, inf):
                    method = "window"
                if len(members) > 1 or half > WIDEST_INTERVAL_RATIO * watts:
                    method = "not_identifiable"
                others = tuple(other for other in members if other != name)
                found[name] = RegionWatts(watts, max(0.0, watts - half), watts + half, method, others)
        return found

    def _members(self, name: str) -> list[str]:
        return [other for other in self._times if other not in self._slots] if name == _REST else [name]


def divide(joules: float, times: Times, watts: Mapping[str, RegionWatts]) -> dict[str, float]:
    """Divide the joules of an interval among regions by seconds times watts; the sum is ``joules``, to the last bit.

    By seconds alone where the watts of a region are not known.
    """
    known = all(region in watts for region in times)
    weights = {region: seconds * (watts[region].watts if known else 1.0) for region, seconds in times.items()}
    total = sum(weights.values())
    if total <= 0.0:
        weights, total = times, sum(times.values())
    if total <= 0.0:
        return {OUTSIDE: joules}
    shares = {region: joules * weight / total for region, weight in weights.items() if region != OUTSIDE}
    # What is left, so that nothing is lost to rounding; without time outside, the largest share takes it.
    rest = joules - sum(shares.values())
    if OUTSIDE in weights or not shares:
        shares[OUTSIDE] = max(0.0, rest)
    else:
        shares[max(shares, key=lambda region: shares[region])] += rest
    return shares
