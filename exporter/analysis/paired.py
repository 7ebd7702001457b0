"""Whether one arm uses less energy than another for the same work: blocks of minutes, paired by load. Pure.

The estimate is a ratio of sums, bin by bin, weighted by the traffic of both arms: 1 − Σ N_b·B_b ÷ Σ N_b·A_b, where N_b
is the work in a bin of load and mix, and A_b, B_b are joules by work there. Within a bin, joules are moved to its
middle along what both arms show: how they vary with load, mix, length of answers and time. So a drift that both arms
show is no effect, and before and after are never taken for a change if one line through both explains them.

The interval is a block bootstrap of the linearised estimate (each block's contribution to its error), with runs of
blocks as long as the correlation of neighbours asks for, and Student's t for the effective number of blocks.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal, NamedTuple

from .bootstrap import Interval, of_strata

LEVEL = 0.95
LEAST_BLOCKS = 6
"""Effective blocks of each arm below which there is no verdict."""

LEAST_PAIRED_RATIO = 0.5
"""Share of the work in bins that both arms have, below which there is no verdict."""

_RESOLUTIONS = (4.0, 2.0, 1.0)
_ENOUGH_PAIRED = 0.8
_LEAST_IN_CELL = 2
_MOST_CORRELATION = 0.95
_LEAST_CORRELATION = 0.1
_MOST_LEVERAGE = 0.9
_LEAST_RUNS, _MOST_RUNS = 6, 200
_MOST_BLOCKS_FOR_ONE = 4.0  # beyond that the correlation of a few blocks is no estimate

Verdict = Literal["saves", "costs more", "no difference seen", "not enough data"]


class Block(NamedTuple):
    """One block of an arm: from Unix time ``start``, joules, and ``work`` (output tokens, requests or seconds).

    ``load`` is work per second, of a server where servers are known. ``mix`` is computed prompt tokens per output token
    and ``length`` output tokens per request; 0 where unknown.
    """

    start: float
    joules: float
    work: float
    load: float
    mix: float = 0.0
    length: float = 0.0


class Bin(NamedTuple):
    """Blocks of both arms at one load, from ``low_load`` to ``high_load`` in work per second, and mix, 0 if unknown."""

    low_load: float
    high_load: float
    mix: float
    blocks: tuple[int, int]
    work: tuple[float, float]
    joules_per_work: tuple[float, float]


@dataclass(frozen=True, slots=True)
class Comparison:
    """``saving`` is of B against A, as a share of A's joules: 0.1 is 10 % less. None where there is no verdict.

    ``joules_per_work`` are those of A and B at the mix of both. ``paired_ratio`` is the share of each arm's work in
    bins that both have. ``more_blocks`` are the further blocks of an arm that a verdict needs, 0 if it needs none or if
    more of the same would not help.
    """

    verdict: Verdict
    reason: str
    saving: Interval | None
    joules_per_work: tuple[float, float] | None
    bins: Sequence[Bin]
    paired_ratio: tuple[float, float]
    blocks: tuple[int, int]
    effective_blocks: tuple[float, float]
    more_blocks: int
    level: float = LEVEL


Key = tuple[float, float]
Cells = Mapping[Key, tuple[list[Block], list[Block]]]


def compare(a: Sequence[Block], b: Sequence[Block], block_seconds: float, level: float = LEVEL) -> Comparison:
    """Compare two arms, each in the order of time. Blocks without work must be left out."""
    cells: Cells = {}
    resolution, fit = _RESOLUTIONS[-1], None
    ratio, effective = (0.0, 0.0), (0.0, 0.0)
    for resolution in _RESOLUTIONS:
        cells = _paired(a, b, resolution)
        ratio = _paired_ratio(cells, a, b)
        paired = _count(cells)
        if min(paired) < LEAST_BLOCKS:
            effective = (float(paired[0]), float(paired[1]))
            continue
        fit = _Fit(cells, block_seconds)
        effective = fit.effective
        if min(ratio) >= _ENOUGH_PAIRED and fit.least_freedom >= LEAST_BLOCKS:
            break
    bins = [_bin(key, cell, resolution) for key, cell in sorted(cells.items())]
    paired = _count(cells)

    def without(reason: str, more: float) -> Comparison:
        counted = (len(a), len(b))
        return Comparison(
            "not enough data", reason, None, None, bins, ratio, counted, effective, max(0, math.ceil(more)), level
        )

    if min(len(a), len(b)) >= 2 * LEAST_BLOCKS and min(ratio) < LEAST_PAIRED_RATIO:
        return without("the arms ran at different loads or mixes", 0)
    if fit is None or min(paired) < LEAST_BLOCKS:
        share = max(0.25, min(paired) / max(1, min(len(a), len(b))))
        return without("too few blocks", (LEAST_BLOCKS - min(paired)) / share)
    if fit.least_freedom < LEAST_BLOCKS - 1:
        arm = 0 if effective[0] <= effective[1] else 1
        needed = LEAST_BLOCKS - 1 - fit.least_freedom
        each = min(paired[arm] / effective[arm], _MOST_BLOCKS_FOR_ONE)
        return without("too few blocks that do not resemble their neighbours", needed * each)
    change = fit.interval(level)
    saving = Interval(1 - math.exp(change.high), 1 - math.exp(change.middle), 1 - math.exp(change.low))
    verdict: Verdict = "saves" if saving.low > 0 else "costs more" if saving.high < 0 else "no difference seen"
    more = 0
    if verdict == "no difference seen" and change.middle:
        width = max(change.high - change.middle, change.middle - change.low)
        more = math.ceil(min(1e6, ((width / abs(change.middle)) ** 2 - 1) * min(paired)))
    return Comparison(verdict, "", saving, fit.joules_per_work, bins, ratio, (len(a), len(b)), effective, more, level)


def _paired(a: Sequence[Block], b: Sequence[Block], resolution: float) -> Cells:
    """Cells that both arms have, ``resolution`` bins to an octave of load, and one to an octave of the mix."""
    found: defaultdict[Key, tuple[list[Block], list[Block]]] = defaultdict(lambda: ([], []))
    for arm, blocks in enumerate((a, b)):
        for block in blocks:
            mix = round(math.log2(block.mix)) if block.mix > 0 else -math.inf
            found[math.floor(resolution * math.log2(block.load)), mix][arm].append(block)
    return {key: cell for key, cell in found.items() if min(map(len, cell)) >= _LEAST_IN_CELL}


def _count(cells: Cells) -> tuple[int, int]:
    return sum(len(cell[0]) for cell in cells.values()), sum(len(cell[1]) for cell in cells.values())


def _paired_ratio(cells: Cells, a: Sequence[Block], b: Sequence[Block]) -> tuple[float, float]:
    paired = [sum(block.work for cell in cells.values() for block in cell[arm]) for arm in (0, 1)]
    whole = [sum(block.work for block in arm) for arm in (a, b)]
    return (paired[0] / whole[0] if whole[0] else 0.0, paired[1] / whole[1] if whole[1] else 0.0)


def _bin(key: Key, cell: tuple[list[Block], list[Block]], resolution: float) -> Bin:
    work, joules = [_work(blocks) for blocks in cell], [_joules(blocks) for blocks in cell]
    return Bin(
        2 ** (key[0] / resolution),
        2 ** ((key[0] + 1) / resolution),
        2 ** key[1],
        (len(cell[0]), len(cell[1])),
        (work[0], work[1]),
        (joules[0] / work[0], joules[1] / work[1]),
    )


class _Row(NamedTuple):
    """One block of a cell: its joules above the cell's mean, relative to it, and its covariates away from theirs.

    ``share`` is that of the cell in its arm's joules, negative for A, ``part`` that of the block in the cell's work.
    """

    arm: int
    block: Block
    residual: float
    share: float
    part: float
    weight: float
    away: Sequence[float]


class _Part(NamedTuple):
    """One block in the linearised estimate: its time, its relative residual, and what it adds to the error."""

    start: float
    residual: float
    score: float


class _Fit:
    """The estimate of log(B ÷ A) and what each block contributes to its error."""

    def __init__(self, cells: Cells, block_seconds: float) -> None:
        self._cells = len(cells)
        self._block_seconds = block_seconds
        weight = {key: math.fsum(block.work for arm in cell for block in arm) for key, cell in cells.items()}
        rate = {key: [_joules(blocks) / _work(blocks) for blocks in cell] for key, cell in cells.items()}
        whole = [math.fsum(weight[key] * rate[key][arm] for key in cells) for arm in (0, 1)]
        total = math.fsum(weight.values())
        every = [block for cell in cells.values() for arm in cell for block in arm]
        covariates = _covariates(every)
        self._slopes = len(covariates)
        scale = total / len(every)
        gap = [0.0] * len(covariates)
        rows: list[_Row] = []
        for key, cell in cells.items():
            both = [*cell[0], *cell[1]]
            middle = [0.0 if name == "time" else _mean(both, values) for name, values in covariates.items()]
            for arm, blocks in enumerate(cell):
                work, sign = _work(blocks), 1 if arm else -1
                means = [_mean(blocks, values) for values in covariates.values()]
                share = sign * weight[key] * rate[key][arm] / whole[arm]
                for number, mean in enumerate(means):
                    gap[number] += share * (mean - middle[number])
                for block in blocks:
                    away = [values[block] - mean for values, mean in zip(covariates.values(), means, strict=True)]
                    residual = block.joules / (rate[key][arm] * block.work) - 1
                    rows.append(_Row(arm, block, residual, share, block.work / work, block.work / scale, away))
        size = range(len(covariates))
        matrix = [[math.fsum(row.weight * row.away[i] * row.away[j] for row in rows) for j in size] for i in size]
        right = [math.fsum(row.weight * row.away[i] * row.residual for row in rows) for i in size]
        inverse = [solve(matrix, [float(i == j) for j in size]) for i in size]
        slope, pull = solve(matrix, right), solve(matrix, gap)
        self.change = math.log(whole[1] / whole[0]) - _dot(slope, gap)
        self.joules_per_work = (whole[0] / total, whole[0] / total * math.exp(self.change))
        self.parts: tuple[list[_Part], list[_Part]] = ([], [])
        for row in rows:
            leverage = row.part + row.weight * _dot(row.away, [_dot(line, row.away) for line in inverse])
            left = (row.residual - _dot(slope, row.away)) / math.sqrt(1 - min(leverage, _MOST_LEVERAGE))
            score = (row.share * row.part - row.weight * _dot(row.away, pull)) * left
            self.parts[row.arm].append(_Part(row.block.start, left, score))
        for parts in self.parts:
            parts.sort()
        self._correlation = [self._correlation_of(parts) for parts in self.parts]

    def _correlation_of(self, parts: Sequence[_Part]) -> float:
        """Of the residuals of neighbours in time, 0 at least: a standard error above the estimate without its bias.

        The bias is that of courses from which means were subtracted (Kendall 1954, for each bin).
        """
        pairs = [
            (one.residual, other.residual)
            for one, other in pairwise(parts)
            if other.start - one.start < 1.5 * self._block_seconds
        ]
        squares = math.fsum(part.residual**2 for part in parts) / len(parts)
        if len(pairs) < 3 or squares == 0:
            return 0.0
        found = math.fsum(one * other for one, other in pairs) / len(pairs) / squares
        found += (1 + 3 * max(found, 0.0)) * self._cells / len(pairs)
        found += math.sqrt(max(0.0, 1 - found * found) / len(pairs))
        return min(max(found, 0.0), _MOST_CORRELATION)

    @property
    def effective(self) -> tuple[float, float]:
        """How many independent blocks the correlated ones of each arm are worth."""
        found = [
            len(parts) * (1 - correlation) / (1 + correlation)
            for parts, correlation in zip(self.parts, self._correlation, strict=True)
        ]
        return found[0], found[1]

    @property
    def least_freedom(self) -> float:
        """Effective blocks of an arm, less one for each bin."""
        return min(self.effective) - self._cells

    def interval(self, level: float) -> Interval:
        """Of log(B ÷ A)."""
        sums: list[list[float]] = []
        variances, own = [], []
        for parts, correlation, effective in zip(self.parts, self._correlation, self.effective, strict=True):
            count, freedom = len(parts), effective - self._cells
            run = _run(correlation, count)
            # what runs of this length do not show of the correlation, and what the means of the bins took
            rest = (1 + correlation) / (1 - correlation) / _shown(correlation, run)
            rest *= (effective / freedom) / (count / max(1, count - self._cells))
            mean = math.fsum(part.score for part in parts) / count
            scores = [(part.score - mean) * math.sqrt(rest) for part in parts]
            chunks = count // run
            sums.append([math.fsum(scores[at * count // chunks : (at + 1) * count // chunks]) for at in range(chunks)])
            variances.append(math.fsum(score * score for score in scores) / _shown(correlation, run) * rest)
            own.append(freedom)
        below = sum(variance**2 / freedom for variance, freedom in zip(variances, own, strict=True))
        freedom = min(sum(variances) ** 2 / below if below > 0 else sum(own), max(1.0, sum(own) - self._slopes))

        def error(drawn: Sequence[Sequence[float]]) -> float:
            return sum(sum(one) * len(whole) / len(one) for one, whole in zip(drawn, sums, strict=True))

        found = of_strata(sums, error, level, freedom=freedom)
        return Interval(self.change - found.high, self.change, self.change - found.low)


def _run(correlation: float, count: int) -> int:
    """Length of runs for the variance of a mean (Künsch 1989), of which there are `_LEAST_RUNS` to `_MOST_RUNS`."""
    best = 1.0
    if correlation >= _LEAST_CORRELATION:
        best = 1.14 * (2 * correlation / (1 - correlation**2)) ** (2 / 3) * count ** (1 / 3)
    return max(1, min(round(best), count // _LEAST_RUNS), math.ceil(count / _MOST_RUNS))


def _shown(correlation: float, run: int) -> float:
    """What runs of a length show of the variance of a mean, in that of independent blocks."""
    return 1 + 2 * sum((1 - lag / run) * correlation**lag for lag in range(1, run))


def _covariates(blocks: Sequence[Block]) -> dict[str, dict[Block, float]]:
    """What joules by work may vary with inside a bin, of the blocks that have it; only what does vary."""
    middle = math.fsum(block.start for block in blocks) / len(blocks)
    found = {
        "load": {block: math.log(block.load) for block in blocks},
        "mix": {block: math.log(block.mix) if block.mix > 0 else 0.0 for block in blocks},
        "length": {block: math.log(block.length) if block.length > 0 else 0.0 for block in blocks},
        "time": {block: (block.start - middle) / 86_400 for block in blocks},
    }
    return {name: values for name, values in found.items() if max(values.values()) - min(values.values()) > 1e-6}


def _work(blocks: Sequence[Block]) -> float:
    return math.fsum(block.work for block in blocks)


def _joules(blocks: Sequence[Block]) -> float:
    return math.fsum(block.joules for block in blocks)


def _mean(blocks: Sequence[Block], values: Mapping[Block, float]) -> float:
    return math.fsum(block.work * values[block] for block in blocks) / _work(blocks)


def _dot(one: Sequence[float], other: Sequence[float]) -> float:
    return sum(a * b for a, b in zip(one, other, strict=True))


def solve(matrix: Sequence[Sequence[float]], right: Sequence[float]) -> list[float]:
    """Solution of a symmetric positive semidefinite system by Cholesky; 0 for what the data does not determine."""
    size = len(right)
    lower = [[0.0] * size for _ in range(size)]
    free = set()
    for i in range(size):
        for j in range(i):
            value = matrix[i][j] - _dot(lower[i][:j], lower[j][:j])
            lower[i][j] = value / lower[j][j] if j not in free else 0.0
        pivot = matrix[i][i] - _dot(lower[i][:i], lower[i][:i])
        if pivot > 1e-9 * (matrix[i][i] or 1.0):
            lower[i][i] = math.sqrt(pivot)
        else:
            free.add(i)
    forward = [0.0] * size
    for i in range(size):
        forward[i] = 0.0 if i in free else (right[i] - _dot(lower[i][:i], forward[:i])) / lower[i][i]
    found = [0.0] * size
    for i in reversed(range(size)):
        below = sum(lower[j][i] * found[j] for j in range(i + 1, size))
        found[i] = 0.0 if i in free else (forward[i] - below) / lower[i][i]
    return found
