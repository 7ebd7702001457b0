"""Sums of a linear regression that is updated one observation at a time, and the solution of its equations."""

from __future__ import annotations

from collections.abc import Sequence
from math import sqrt
from operator import mul

Triangle = list[list[float]]
"""Lower triangle of a square matrix: row ``i`` has ``i + 1`` values."""

_PIVOT_RATIO = 1e-12
"""Least pivot over its diagonal element: a smaller one is rounding."""

_ELIMINATION_RIDGE = 1e-3
"""Ridge, relative to its diagonal element, of a regressor that is eliminated: rounding must not be amplified."""


class NormalEquations:
    """Weighted sums of products of regressors (``gram``), of regressor and response (``moments``), and of responses
    (``square``). ``weight`` is the decayed number of observations.

    An observation is a sum over ``seconds``, so the variance of its noise grows with them: it weighs ``1 / seconds``.
    """

    def __init__(self, regressors: int) -> None:
        self.gram: Triangle = [[0.0] * (number + 1) for number in range(regressors)]
        self.moments = [0.0] * regressors
        self.square = 0.0
        self.weight = 0.0

    def __len__(self) -> int:
        return len(self.gram)

    def append(self) -> int:
        """Add a regressor that was 0 so far; returns its number."""
        self.gram.append([0.0] * (len(self.gram) + 1))
        self.moments.append(0.0)
        return len(self.gram) - 1

    def add(self, values: Sequence[tuple[int, float]], response: float, seconds: float) -> None:
        """Add an observation: its regressors other than 0 as (number, value), by ascending number."""
        gram, moments = self.gram, self.moments
        for end, (number, value) in enumerate(values, 1):
            row, scaled = gram[number], value / seconds
            moments[number] += scaled * response
            for other, beside in values[:end]:
                row[other] += scaled * beside
        self.square += response * response / seconds
        self.weight += 1.0

    def decay(self, factor: float) -> None:
        """Let every observation so far count ``factor`` (0 to 1) of what it did."""
        self.gram = [[factor * value for value in row] for row in self.gram]
        self.moments = [factor * value for value in self.moments]
        self.square *= factor
        self.weight *= factor

    def eliminate(self, number: int) -> None:
        """Remove a regressor; what its coefficient can explain is not blamed on the others (Schur complement).

        Later regressors move down by one.
        """
        own = self.gram.pop(number)
        diagonal = own.pop() * (1.0 + _ELIMINATION_RIDGE)
        column = own + [row.pop(number) for row in self.gram[number:]]
        moment = self.moments.pop(number)
        if diagonal <= 0.0:
            return
        for index, (row, value) in enumerate(zip(self.gram, column, strict=True)):
            if value:
                factor = value / diagonal
                self.gram[index] = [entry - factor * other for entry, other in zip(row, column, strict=False)]
                self.moments[index] -= factor * moment
        self.square -= moment * moment / diagonal


def inverse_root(matrix: Triangle) -> Triangle:
    """``L⁻¹`` of a positive definite matrix ``L Lᵀ`` (Cholesky)."""
    root: Triangle = []
    for row in matrix:
        line: list[float] = []
        for value, other in zip(row, root, strict=False):
            line.append((value - sum(map(mul, line, other))) / other[-1])
        pivot = row[-1] - sum(map(mul, line, line))
        line.append(sqrt(max(pivot, _PIVOT_RATIO * row[-1])))
        root.append(line)
    columns: list[list[float]] = []
    inverse: Triangle = []
    for number, row in enumerate(root):
        line = [-sum(map(mul, row[start:number], column)) / row[-1] for start, column in enumerate(columns)]
        line.append(1.0 / row[-1])
        columns.append([])
        for column, value in zip(columns, line, strict=True):
            column.append(value)
        inverse.append(line)
    return inverse


def solve(inverse: Triangle, target: Sequence[float]) -> list[float]:
    """``M⁻¹ target``, where ``inverse`` is `inverse_root` of M."""
    solution = [0.0] * len(target)
    for row in inverse:
        value = sum(map(mul, row, target))
        for number, entry in enumerate(row):
            solution[number] += entry * value
    return solution


def inverse_diagonal(inverse: Triangle) -> list[float]:
    """The diagonal of ``M⁻¹``, where ``inverse`` is `inverse_root` of M."""
    diagonal = [0.0] * len(inverse)
    for row in inverse:
        for number, entry in enumerate(row):
            diagonal[number] += entry * entry
    return diagonal
