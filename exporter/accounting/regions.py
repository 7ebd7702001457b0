"""Watts of the regions of a program, estimated from how its joules vary with the time it spends in each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import inf, sqrt
from operator import mul
from typing import Literal, NamedTuple

from .normal_equations import NormalEquations, Triangle, inverse_diagonal, inverse_root, solve
from .region_times import OUTSIDE, RegionTimes, Times

Method = Literal["window", "regression", "not_identifiable"]

LAGS = tuple([0.005 * step for step in range(25)])
"""Delays of a meter, in seconds, that are tried: it shows what was used so long before it was read."""

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
_VARIATION = 1e-5
"""Share of a region's squared seconds that the other regions' seconds do not explain: below it, its time differs from
a fixed proportion of theirs by less than 0.3 %, and their watts cannot be separated."""

TIME_ERROR_SECONDS = 0.001
"""Standard deviation of the moment up to which a meter's value counts, as of RAPL, which steps each millisecond."""

_LEAST_SIGNAL = 10.0
"""Variance of a region's seconds that the others do not explain, over the one that the error of the reads' moments
makes: below it, watts would be wrong by more than a tenth, however much data there is."""

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


@dataclass(frozen=True, slots=True)
class _Solution:
    """Watts and their standard errors by number of regressor; ``square`` is the sum of squared residuals."""

    watts: list[float]
    errors: list[float]
    square: float


class RegionEstimator:
    """Watts of the regions of one process on one component.

    Ridge regression with forgetting of the joules of an interval on the seconds in each region, with watts that are not
    negative and, if it is known, the power outside all regions as a prior. The delay of the meter is the one of `LAGS`
    with the least residual. Regions whose seconds are always in one proportion are estimated as one.
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
        self._equations = [NormalEquations(0) for _ in LAGS]
        self._slots: dict[str, int] = {}
        self._before: tuple[float, list[list[float]]] | None = None  # a read, and the totals at it for each lag
        self._joules = 0.0
        self._seconds = 0.0  # all that was observed, decayed
        self._since_solved = 0
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
        return self._equations[0].weight

    # --- observing ----------------------------------------------------------------------------------

    def observe(self, times: RegionTimes, start: float, end: float, joules: float) -> Times:
        """Add what the process used between two reads of the meter, at ``start`` and ``end``.

        ``times`` must cover ``end`` and `LAGS` before ``start``. Returns the seconds by region of the interval, at the
        lag that was estimated.
        """
        seconds = end - start
        before = self._before
        if before is None or before[0] != start:
            before = start, [times.totals(start - lag) for lag in LAGS]
        after = [times.totals(end - lag) for lag in LAGS]
        self._before = end, after
        best = LAGS.index(self.lag)
        found = times.difference(before[1][best], after[best])
        if not (0.0 < seconds <= _LONGEST_SECONDS and 0.0 <= joules < inf) or not found:
            return found
        names = list(times.regions)
        for name in sorted(found, key=lambda region: -found[region]):
            self._join(name)
        slots = [self._slot(name) for name in names]
        for equations, low, high in zip(self._equations, before[1], after, strict=True):
            values: dict[int, float] = {}
            padded = [*low, *[0.0] * (len(high) - len(low))]
            for slot, earlier, later in zip(slots, padded, high, strict=False):
                if later > earlier and slot is not None:
                    values[slot] = values.get(slot, 0.0) + later - earlier
            equations.add(sorted(values.items()), joules, seconds)
        self._account(found, seconds, joules)
        if self._since_solved >= _SOLVE_EVERY and self._equations[0].weight >= LEAST_INTERVALS:
            self._update()
        return found

    def _join(self, name: str) -> None:
        if name in self._slots or (len(self._slots) > PARTICIPANTS and _REST in self._slots):
            return
        if len(self._slots) >= PARTICIPANTS and name != OUTSIDE:
            name = _REST
        for equations in self._equations:
            self._slots[name] = equations.append()

    def _slot(self, name: str) -> int | None:
        return self._slots.get(name, self._slots.get(_REST))

    def _account(self, found: Times, seconds: float, joules: float) -> None:
        self._joules += joules
        self._seconds += seconds
        self._since_solved += 1
        total = sum(found.values())
        for name, taken in found.items():
            self._times[name] = self._times.get(name, 0.0) + taken
            if taken >= _PURE_RATIO * total:
                self._pure[name] = self._pure.get(name, 0.0) + taken

    # --- solving ------------------------------------------------------------------------------------

    def _update(self) -> None:
        solutions = [self._solve(equations) for equations in self._equations]
        best = min(range(len(LAGS)), key=lambda number: solutions[number].square)
        self.lag = LAGS[best]
        equations = self._equations[best]
        time_square = 2.0 * equations.weight * self._time_error**2
        groups = _inseparable(equations.gram, len(self._slots), time_square, self._slots.get(OUTSIDE))
        solution = solutions[best] if all(len(group) == 1 for group in groups) else self._solve(equations, groups)
        self._watts = self._identified(solution, groups)
        decay = 0.5 ** (self._since_solved * (self._seconds / self._equations[best].weight) / HALF_LIFE_SECONDS)
        self._since_solved = 0
        for each in self._equations:
            each.decay(decay)
        self._joules *= decay
        self._seconds *= decay
        self._times = {name: decay * seconds for name, seconds in self._times.items()}
        self._pure = {name: decay * seconds for name, seconds in self._pure.items()}

    def _solve(self, equations: NormalEquations, groups: Sequence[Sequence[int]] | None = None) -> _Solution:
        """The solution by regressor or, with ``groups`` of regressors that have the same watts, by group."""
        gram, moments = equations.gram, equations.moments
        outside = self._slots.get(OUTSIDE)
        if groups is not None:
            gram, moments = _merged(gram, moments, groups)
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
            watts, errors, square = _ridge(gram, moments, penalties, expected, equations.square)
            freedom = max(1.0, equations.weight - len(moments))
            noise = max(square / freedom, _NOISE_RATIO * equations.square / equations.weight)
        return _Solution(watts, [sqrt(noise) * error for error in errors], square)

    def _identified(self, solution: _Solution, groups: Sequence[Sequence[int]]) -> dict[str, RegionWatts]:
        names = {slot: name for name, slot in self._slots.items()}
        found: dict[str, RegionWatts] = {}
        for number, group in enumerate(groups):
            watts = solution.watts[number]
            half = _CONFIDENCE_DEVIATIONS * solution.errors[number]
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


def _ridge(
    gram: Triangle, moments: Sequence[float], penalties: Sequence[float], expected: Sequence[float], square: float
) -> tuple[list[float], list[float], float]:
    """Coefficients that are not negative, their errors for unit noise, and the sum of squared residuals.

    Each is pulled towards ``expected`` by its penalty. Where one would be negative it is 0 and the others are solved
    again.
    """
    active = list(range(len(moments)))
    solution: list[float] = []
    errors = [0.0] * len(moments)
    while active:
        matrix = [[gram[row][column] for column in active[: at + 1]] for at, row in enumerate(active)]
        for line, number in zip(matrix, active, strict=True):
            line[-1] = line[-1] + penalties[number] or 1.0
        target = [moments[number] + penalties[number] * expected[number] for number in active]
        inverse = inverse_root(matrix)
        solution = solve(inverse, target)
        for number, variance in zip(active, inverse_diagonal(inverse), strict=True):
            errors[number] = sqrt(variance)
        kept = [number for number, value in zip(active, solution, strict=True) if value >= 0.0]
        if len(kept) == len(active):
            break
        active = kept
    watts = [0.0] * len(moments)
    for number, value in zip(active, solution, strict=True):
        watts[number] = value
    fitted = sum(
        [sum(map(mul, row[:-1], watts)) * 2 * watts[at] + row[-1] * watts[at] ** 2 for at, row in enumerate(gram)]
    )
    return watts, errors, max(0.0, square - 2 * sum(map(mul, moments, watts)) + fitted)


def _merged(gram: Triangle, moments: Sequence[float], groups: Sequence[Sequence[int]]) -> tuple[Triangle, list[float]]:
    """The equations of groups of regressors, each with one coefficient."""

    def entry(row: int, column: int) -> float:
        return gram[max(row, column)][min(row, column)]

    matrix = [
        [sum([entry(row, column) for row in group for column in other]) for other in groups[: at + 1]]
        for at, group in enumerate(groups)
    ]
    return matrix, [sum([moments[number] for number in group]) for group in groups]


def _inseparable(gram: Triangle, count: int, time_square: float, outside: int | None) -> list[list[int]]:
    """Groups of regressors that cannot be separated: each that the others explain, with its nearest one.

    What is left unexplained must be more than rounding, and more than the error of the moments of reads makes of it.
    ``time_square`` is the sum of the squares of that error, in square seconds. Because of it no region is joined with
    the time ``outside`` all regions, whose power differs most, unless all are.
    """
    groups = [[number] for number in range(count)]
    while len(groups) > 1:
        matrix, _ = _merged(gram, [0.0] * count, groups)
        scale = [sqrt(row[-1]) or 1.0 for row in matrix]
        scaled = [
            [value / (scale[at] * scale[other]) for other, value in enumerate(row)] for at, row in enumerate(matrix)
        ]
        for row in scaled:
            row[-1] = 1.0 + 0.01 * _VARIATION
        explained = inverse_diagonal(inverse_root(scaled))
        total = sum(scale)
        needed = [
            max(_VARIATION, _LEAST_SIGNAL * time_square * (each / total) * (1.0 - each / total) / each**2)
            for each in scale
        ]
        worst = max(range(len(groups)), key=lambda number: explained[number] * needed[number])
        if explained[worst] * needed[worst] <= 1.0:
            break
        others = [number for number in range(len(groups)) if number != worst]
        if explained[worst] * _VARIATION <= 1.0 and len(groups) > 2:
            if outside in groups[worst]:
                return [list(range(count))]
            others = [number for number in others if outside not in groups[number]]
        nearest = max(
            others,
            key=lambda number: scaled[max(worst, number)][min(worst, number)],
        )
        low, high = sorted((worst, nearest))
        groups[low] += groups.pop(high)
    return groups
