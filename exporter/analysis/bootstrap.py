"""Intervals of sums, ratios and other statistics of blocks of time, by a bootstrap that covers with few blocks too.

Percentiles of an ordinary bootstrap are too narrow for few blocks, for two reasons: the resampled variance is
(n − 1)/n of the sample's, and the normal tails it has are those of a known variance. Against the first, n − 1 of n
blocks are drawn (Rao and Wu, JASA 1988); against the second, the percentiles are moved outwards from the normal to
Student's t with n − 1 degrees of freedom (Hesterberg, The American Statistician 2015, expanded percentiles).
`tests/analysis/test_bootstrap.py` shows how often the intervals cover what they should, for 6 to 30 blocks.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import lru_cache
from operator import itemgetter
from random import Random
from statistics import NormalDist
from typing import Any, NamedTuple, TypeVar

LEVEL = 0.9
"""Default share of intervals that cover the truth."""

RESAMPLES = 1000
LEAST_BLOCKS = 6
"""Fewer blocks than this are no evidence: callers say "not enough data" (Student's t with 4 degrees of freedom)."""

T = TypeVar("T")
Draw = Callable[[Sequence[T]], tuple[T, ...]]


class Interval(NamedTuple):
    """From ``low`` to ``high``, with the estimate ``middle``, in the unit of the statistic."""

    low: float
    middle: float
    high: float

    def times(self, factor: float) -> Interval:
        """The interval of ``factor`` times the statistic; a negative factor turns it around."""
        ends = sorted((self.low * factor, self.high * factor))
        return Interval(ends[0], self.middle * factor, ends[1])

    def covers(self, value: float) -> bool:
        """Whether ``value`` lies in it."""
        return self.low <= value <= self.high


def of_sum(values: Sequence[float], level: float = LEVEL, run: int = 1) -> Interval:
    """Interval of the sum of as many blocks as there are ``values``. Raises ValueError for fewer than two blocks."""
    count = len(values)

    def total(drawn: Sequence[float]) -> float:
        return math.fsum(drawn) * count / len(drawn)

    return of_statistic(values, total, level, run)


def of_ratio(
    numerators: Sequence[float], denominators: Sequence[float], level: float = LEVEL, run: int = 1
) -> Interval:
    """Interval of Σ ``numerators`` ÷ Σ ``denominators``, such as joules per token; block by block, of equal length.

    Never the mean of the blocks' ratios. Raises ValueError for fewer than two blocks, or if the denominators are not
    positive in sum.
    """

    def ratio(drawn: Sequence[tuple[float, float]]) -> float:
        below = math.fsum([denominator for _, denominator in drawn])
        return math.fsum([numerator for numerator, _ in drawn]) / below if below > 0 else math.nan

    return of_statistic(list(zip(numerators, denominators, strict=True)), ratio, level, run)


def of_statistic(
    blocks: Sequence[T], statistic: Callable[[Sequence[T]], float], level: float = LEVEL, run: int = 1
) -> Interval:
    """Interval of any ``statistic`` of ``blocks``, which are in the order of time. It must not depend on their number.

    ``run`` consecutive blocks are drawn together, for blocks that are not independent of their neighbours. Resamples
    for which the statistic is not finite are left out. Raises ValueError for fewer than two runs of blocks, or if the
    statistic of the blocks themselves is not finite.
    """
    return of_strata([blocks], lambda drawn: statistic(drawn[0]), level, run)


def of_strata(
    strata: Sequence[Sequence[T]],
    statistic: Callable[[Sequence[Sequence[T]]], float],
    level: float = LEVEL,
    run: int = 1,
    freedom: float = 0.0,
) -> Interval:
    """The same for several groups of blocks, each resampled on its own: two arms, or the load bins of two arms.

    ``freedom`` are the degrees of freedom of the whole; by default those of the smallest group, the safe choice.
    """
    runs = [max(1, len(blocks) // run) for blocks in strata]
    if not strata or min(runs) < 2:
        raise ValueError(f"{min(map(len, strata), default=0)} blocks are too few for an interval")
    middle = statistic(strata)
    if not math.isfinite(middle):
        raise ValueError("the statistic of these blocks is not a number")
    draws = [draws_of(len(blocks), run, seed) for seed, blocks in enumerate(strata)]
    found = [
        statistic([draw(blocks) for draw, blocks in zip(each, strata, strict=True)])
        for each in zip(*draws, strict=True)
    ]
    found = sorted(value for value in found if math.isfinite(value))
    tail = tail_share(level, freedom or min(runs) - 1)
    return Interval(min(_quantile(found, tail), middle), middle, max(_quantile(found, 1 - tail), middle))


@lru_cache(maxsize=64)
def draws_of(count: int, run: int = 1, seed: int = 0, resamples: int = RESAMPLES) -> Sequence[Draw[Any]]:
    """``resamples`` draws of ``count`` blocks, with replacement, the same ones each time.

    Each draws one run of ``run`` consecutive blocks fewer than there are; the last block is followed by the first.
    """
    random = Random(f"{count} {run} {seed}")
    drawn = max(1, count // run - 1)
    found: list[Draw[Any]] = []
    for _ in range(resamples):
        starts = random.choices(range(count), k=drawn)
        picked = [(start + offset) % count for start in starts for offset in range(run)]
        found.append(itemgetter(*picked) if len(picked) > 1 else _single(picked[0]))
    return found


def _single(index: int) -> Draw[Any]:
    return lambda blocks: (blocks[index],)


@lru_cache(maxsize=256)
def tail_share(level: float, freedom: float) -> float:
    """Share of resamples beyond each end of an interval of ``level``: the normal tail at Student's quantile."""
    return NormalDist().cdf(-student_quantile((1 + level) / 2, freedom))


@lru_cache(maxsize=256)
def student_quantile(share: float, freedom: float) -> float:
    """Quantile of Student's t for a ``share`` of 0.5 or more, degrees of freedom rounded down, 1 at least."""
    whole = max(1, int(freedom))
    low, high = 0.0, 1.0
    while _student(high, whole) < share:
        high *= 2
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if _student(middle, whole) < share else (low, middle)
    return high


def _student(value: float, freedom: int) -> float:
    """P(t ≤ value) for value ≥ 0 and whole degrees of freedom (Abramowitz and Stegun, 26.7.3 and 26.7.4)."""
    angle = math.atan(value / math.sqrt(freedom))
    cosine, odd = math.cos(angle), freedom % 2
    term = cosine if odd else 1.0
    total = 0.0 if freedom == 1 else term
    for step in range(3 if odd else 2, freedom - 1, 2):
        term *= cosine * cosine * (step - 1) / step
        total += term
    inside = 2 / math.pi * (angle + math.sin(angle) * total) if odd else math.sin(angle) * total
    return 0.5 + inside / 2


def _quantile(ordered: Sequence[float], share: float) -> float:
    """Linear between the neighbours."""
    place = share * (len(ordered) - 1)
    below = min(int(place), len(ordered) - 2)
    return ordered[below] + (ordered[below + 1] - ordered[below]) * (place - below)
