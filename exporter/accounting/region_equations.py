"""Solves the equations of regions: coefficients that are not negative, and which of them can be separated at all."""

from __future__ import annotations

from collections.abc import Sequence
from math import sqrt
from operator import mul
from typing import NamedTuple

from .normal_equations import Triangle, inverse_diagonal, inverse_root, solve

_VARIATION = 1e-5
"""Share of a region's squared seconds that the other regions' seconds do not explain: below it, its time differs from
a fixed proportion of theirs by less than 0.3 %, and their watts cannot be separated."""

_LEAST_SIGNAL = 10.0
"""Variance of a region's seconds that the others do not explain, over the one that the error of the reads' moments
makes: below it, watts would be wrong by more than a tenth, however much data there is."""


def ridge(
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


def merged(gram: Triangle, moments: Sequence[float], groups: Sequence[Sequence[int]]) -> tuple[Triangle, list[float]]:
    """The equations of groups of regressors, each with one coefficient."""

    def entry(row: int, column: int) -> float:
        return gram[max(row, column)][min(row, column)]

    matrix = [
        [sum([entry(row, column) for row in group for column in other]) for other in groups[: at + 1]]
        for at, group in enumerate(groups)
    ]
    return matrix, [sum([moments[number] for number in group]) for group in groups]


class Groups(NamedTuple):
    """Regressors that have one coefficient each, and how far it is drawn to the mean because moments are not known.

    ``attenuation`` is the part of a group's variance, beyond what the others explain, that is error of the moments.
    """

    members: list[list[int]]
    attenuation: list[float]

    @property
    def are_joined(self) -> bool:
        """Whether any of them has several regressors."""
        return any(len(group) > 1 for group in self.members)


def separable(gram: Triangle, count: int, time_square: float, outside: int | None) -> Groups:
    """Groups of regressors that can be separated: each one that the others explain is with its nearest one.

    What is left unexplained must be more than rounding, and more than the error of the moments of reads makes of it.
    ``time_square`` is the sum of the squares of that error, in square seconds. Because of it no region is joined with
    the time ``outside`` all regions, whose power differs most, unless all are.
    """
    groups = [[number] for number in range(count)]
    attenuation = [0.0] * count
    while len(groups) > 1:
        matrix, _ = merged(gram, [0.0] * count, groups)
        scale = [sqrt(row[-1]) or 1.0 for row in matrix]
        scaled = [
            [value / (scale[at] * scale[other]) for other, value in enumerate(row)] for at, row in enumerate(matrix)
        ]
        for row in scaled:
            row[-1] = 1.0 + 0.01 * _VARIATION
        explained = inverse_diagonal(inverse_root(scaled))
        total = sum(scale)
        errors = [time_square * (each / total) * (1.0 - each / total) / each**2 for each in scale]
        attenuation = [part * error for part, error in zip(explained, errors, strict=True)]
        needed = [max(_VARIATION, _LEAST_SIGNAL * error) for error in errors]
        worst = max(range(len(groups)), key=lambda number: explained[number] * needed[number])
        if explained[worst] * needed[worst] <= 1.0:
            break
        others = [number for number in range(len(groups)) if number != worst]
        if explained[worst] * _VARIATION <= 1.0 and len(groups) > 2:
            if outside in groups[worst]:
                return Groups([list(range(count))], [0.0])
            others = [number for number in others if outside not in groups[number]]
        nearest = max(
            others,
            key=lambda number: scaled[max(worst, number)][min(worst, number)],
        )
        low, high = sorted((worst, nearest))
        groups[low] += groups.pop(high)
    return Groups(groups, attenuation if len(groups) > 1 else [0.0] * len(groups))
