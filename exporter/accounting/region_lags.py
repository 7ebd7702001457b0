"""The delay of a meter and the watts of regions at once: a regression for each of several delays."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import inf, sqrt
from typing import NamedTuple

from .normal_equations import NormalEquations, inverse_diagonal, inverse_root, solve
from .region_times import RegionTimes

_LEAST_RESIDUALS = 100.0
"""Residuals from which on their dependence is known."""

_WIDEST_FACTOR = 2.0


class Moment(NamedTuple):
    """A boot time up to which a meter's value counts; it may be up to ``width`` seconds earlier, each as likely."""

    at: float
    width: float = 0.0

    @property
    def middle(self) -> float:
        """When it is on average."""
        return self.at - 0.5 * self.width


class Solution(NamedTuple):
    """Watts and their standard errors by number of regressor; ``square`` is the sum of squared residuals."""

    watts: list[float]
    errors: list[float]
    square: float


class LagSolution(NamedTuple):
    """The solution at the delay with the least residual; its errors include what that delay may be wrong by."""

    lag: float
    number: int
    solution: Solution


class LagGrid:
    """Equations of the same observations for each of ``lags``, which are as far from one another."""

    def __init__(self, lags: Sequence[float], regressors: int = 0) -> None:
        self.lags = lags
        self.equations = [NormalEquations(regressors) for _ in lags]
        self._before: tuple[Moment, list[list[float]]] | None = None  # a read, and the totals at it for each lag

    @property
    def weight(self) -> float:
        """The decayed number of observations."""
        return self.equations[0].weight

    @property
    def step(self) -> float:
        """Seconds between two of the delays."""
        return self.lags[1] - self.lags[0]

    def append(self) -> int:
        """Add a regressor; returns its number."""
        return [equations.append() for equations in self.equations][-1]

    def decay(self, factor: float) -> None:
        """Let every observation so far count ``factor`` of what it did."""
        for equations in self.equations:
            equations.decay(factor)

    def observe(
        self, times: RegionTimes, start: Moment, end: Moment, slots: Sequence[int | None], joules: float
    ) -> list[list[tuple[int, float]]]:
        """Add the joules between two reads; ``slots`` are the regressors of the regions of ``times``.

        Returns, for each delay, the regressors other than 0.
        """
        size = len(self.equations[0])
        before = self._before
        if before is None or before[0] != start or len(before[1][0]) != size:
            before = start, self._totals(times, start, slots, size)
        after = self._totals(times, end, slots, size)
        self._before = end, after
        seconds = end.middle - start.middle
        every = []
        for equations, low, high in zip(self.equations, before[1], after, strict=True):
            pairs = zip(low, high, strict=True)
            values = [(slot, later - earlier) for slot, (earlier, later) in enumerate(pairs) if later > earlier]
            every.append(values)
            equations.add(values, joules, seconds)
        return every

    def _totals(self, times: RegionTimes, moment: Moment, slots: Sequence[int | None], size: int) -> list[list[float]]:
        """For each delay, the seconds up to a moment by regressor."""
        found = []
        for lag in self.lags:
            totals = [0.0] * size
            for slot, value in zip(slots, times.mean_totals(moment.at - lag, moment.width), strict=False):
                if slot is not None:
                    totals[slot] += value
            found.append(totals)
        return found

    def solve(self, solve: Callable[[NormalEquations], Solution]) -> LagSolution:
        """The watts at the delay where the sum of squared residuals is least: between two of `lags`, by a parabola.

        How fast that sum grows around it says how well the delay is known; how much the watts change with it, what
        that means for them.
        """
        solutions = [solve(equations) for equations in self.equations]
        best = min(range(len(solutions)), key=lambda number: solutions[number].square)
        inner = min(max(best, 1), len(solutions) - 2)
        low, middle, high = solutions[inner - 1 : inner + 2]
        bend = low.square - 2.0 * middle.square + high.square
        slope = 0.5 * (high.square - low.square)
        if best != inner or bend <= 0.0:
            at, variance = float(best - inner), inf  # the delay is beyond them, or makes no difference
        else:
            noise = middle.square / max(1.0, self.weight - len(middle.watts))
            at, variance = -slope / bend, 2.0 * noise / bend
        deviation = min(sqrt(variance), 0.5)  # of a step: solutions further away are others
        watts, errors = [], []
        for before, value, after, error in zip(low.watts, middle.watts, high.watts, middle.errors, strict=True):
            rise, curve = 0.5 * (after - before), after - 2.0 * value + before
            watts.append(max(0.0, value + at * rise + 0.5 * at * at * curve))
            errors.append(sqrt(error**2 + (deviation * (rise + at * curve)) ** 2))
        lag = self.lags[inner] + at * self.step
        return LagSolution(lag, best, Solution(watts, errors, middle.square))


class Dependence:
    """How much wider errors are than they would be if residuals were independent and equally large.

    Two intervals share the moment between them: an error of it makes one residual larger and the next one smaller, and
    does the same to their seconds. Newey and West's covariance with one lag, over the usual one.
    """

    def __init__(self) -> None:
        self._gram: list[list[float]] = []
        self._meat: list[list[float]] = []
        self._square = 0.0
        self._weight = 0.0
        self._before: tuple[Moment, list[float]] | None = None

    def observe(
        self, start: Moment, end: Moment, values: Sequence[tuple[int, float]], residual: float, size: int
    ) -> None:
        """Add the ``residual`` joules of an interval whose regressors other than 0 are ``values``, of ``size``."""
        for matrix in (self._gram, self._meat):
            while len(matrix) < size:
                matrix.append([0.0] * (len(matrix) + 1))
        seconds = end.middle - start.middle
        now = [0.0] * size
        for number, value in values:
            now[number] = value * residual / seconds
            row = self._gram[number]
            for other, beside in values:
                if other <= number:
                    row[other] += value * beside / seconds
        before = [0.0] * size
        if self._before is not None and self._before[0] == start:
            before[: len(self._before[1])] = self._before[1]
        for row, one, early in zip(self._meat, now, before, strict=True):
            for other in range(len(row)):
                row[other] += one * now[other] + one * before[other] + early * now[other]
        self._square += residual * residual / seconds
        self._weight += 1.0
        self._before = end, now

    def decay(self, factor: float) -> None:
        """Let every observation so far count ``factor`` of what it did."""
        self._gram = [[factor * value for value in row] for row in self._gram]
        self._meat = [[factor * value for value in row] for row in self._meat]
        self._square *= factor
        self._weight *= factor

    def factors(self, size: int) -> list[float]:
        """By regressor, 1 to 2; 1 while there is too little to say."""
        if self._weight < _LEAST_RESIDUALS or len(self._gram) < size or self._square <= 0.0:
            return [1.0] * size
        root = inverse_root([[*row[:-1], row[-1] * (1.0 + 1e-9) or 1.0] for row in self._gram])
        noise = self._square / max(1.0, self._weight - size)
        found = []
        for number, usual in enumerate(inverse_diagonal(root)):
            inverse = solve(root, [float(other == number) for other in range(size)])  # a row of the inverse
            robust = sum(
                [
                    value * inverse[at] * inverse[other] * (1.0 if at == other else 2.0)
                    for at, row in enumerate(self._meat)
                    for other, value in enumerate(row)
                ]
            )
            found.append(sqrt(min(max(robust / (noise * usual), 1.0), _WIDEST_FACTOR**2)))
        return found
