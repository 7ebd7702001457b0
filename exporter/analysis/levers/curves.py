"""Joules of a step by its load, at loads that a model really had: compared between settings, read at another load."""

from __future__ import annotations

import math
from bisect import bisect_left
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from ..bootstrap import LEAST_BLOCKS, Interval, of_strata
from ..facts import Facts, Steps
from .lever import CONFIDENCE

BIN_RATIO = 1.25
"""Loads of one bin differ by less than this."""
LEAST_BIN_SECONDS = 1800.0
"""A bin with less data than half an hour is no evidence."""
SAME_SETTING = 0.02
"""Values of a setting that differ by less than this are the same one."""
_LEAST_CHANGE = 0.03


class Used(NamedTuple):
    """GPU joules and output tokens of some steps, and how many steps they are."""

    joules: float
    tokens: float
    steps: float

    @property
    def load(self) -> float:
        """Tokens of a step."""
        return self.tokens / self.steps


Curve = Mapping[int, Used]
"""Bin of the load → what was used at it."""


def bin_of(load: float) -> int:
    """The bin of a positive load."""
    return round(math.log(load) / math.log(BIN_RATIO))


def joules_at(load: float, curve: Sequence[tuple[float, float]]) -> float:
    """Joules of a step with this load: on the straight line between the neighbours of a sorted curve."""
    place = min(max(bisect_left(curve, (load,)), 1), len(curve) - 1)
    (left, low), (right, high) = curve[place - 1], curve[place]
    if len(curve) == 1 or right <= left:
        return low * load / left
    return low + (high - low) * (load - left) / (right - left)


def points(bins: Iterable[Used]) -> list[tuple[float, float]]:
    """Load and joules of a step in each bin that has any, by rising load."""
    return sorted([(used.load, used.joules / used.steps) for used in bins if used.steps > 0])


class Settings(NamedTuple):
    """The value that a setting has at the end, and another one that it had before, with the steps of each."""

    current: float
    other: float
    current_steps: frozenset[int]
    other_steps: frozenset[int]


def settings(facts: Facts, values: Steps) -> list[Settings]:
    """The last value of a setting against each other one that it had, by falling number of steps; only at work.

    A setting is held: for half a day at a time, or half a block. What changes more often, as a clock does that boosts
    as far as heat and power allow, is no setting.
    """
    if not facts.output_tokens:
        return []
    groups: dict[float, list[int]] = {}
    runs: defaultdict[float, int] = defaultdict(int)
    before = math.nan
    for index, value in enumerate(values):
        if not math.isfinite(value) or value <= 0 or facts.output_tokens[index] <= 0:
            continue
        known = next((each for each in groups if abs(each - value) <= SAME_SETTING * each), value)
        groups.setdefault(known, []).append(index)
        runs[known] += known != before
        before = known
    held = {value: steps for value, steps in groups.items() if len(steps) >= facts.grid.block / 2 * runs[value]}
    if len(held) < 2 or before not in held:
        return []
    others = sorted((value for value in held if value != before), key=lambda value: -len(held[value]))
    return [
        Settings(before, other, frozenset(held[before]), frozenset(held[other]))
        for other in others
        if abs(other - before) > _LEAST_CHANGE * before
    ]


def days_of(facts: Facts, steps: frozenset[int]) -> int:
    """In how many blocks some steps are."""
    return len({step // facts.grid.block for step in steps})


class Difference(NamedTuple):
    """GPU joules that one group of steps would have saved with those of another, at equal loads."""

    joules: Interval
    paired: float
    """Share of the first group's tokens at loads that the other had as well."""


def difference(facts: Facts, first: frozenset[int], second: frozenset[int]) -> Difference | None:
    """What the steps ``first`` would have saved with the GPU joules of ``second``; None with too little data.

    Loads are output tokens of a step. Joules of ``second`` are read at the mean load of each bin of ``first``; what
    had no such load is taken to save the same share. Days are the blocks, because they differ by more than steps do.
    """
    if not facts.output_tokens or not facts.gpu:
        return None
    groups = [_blocks(facts, sorted(steps)) for steps in (first, second)]
    if min(len(group) for group in groups) < LEAST_BLOCKS:
        return None
    one, other = (_sum(group) for group in groups)
    shared = [
        load
        for load in sorted(one.keys() & other.keys())
        if min(one[load].steps, other[load].steps) * facts.grid.step >= LEAST_BIN_SECONDS
    ]
    if len(shared) < 2:
        return None

    whole, tokens = (
        math.fsum(column) for column in zip(*((used.joules, used.tokens) for used in one.values()), strict=True)
    )
    rows = [_rows(group, shared) for group in groups]
    unpaired = whole / math.fsum(one[load].joules for load in shared)

    def saved(drawn: Sequence[Sequence[Row]]) -> float:
        mine, theirs = _used(drawn[0]), points(_used(drawn[1]))
        now = math.fsum([used.joules for used in mine])
        if len(theirs) < 2 or now <= 0:
            return math.nan
        then = math.fsum([used.steps * joules_at(used.load, theirs) for used in mine if used.steps > 0])
        return (now - then) * unpaired * len(rows[0]) / len(drawn[0])

    paired = math.fsum(one[load].tokens for load in shared) / tokens
    return Difference(of_strata(rows, saved, CONFIDENCE), paired)


Row = tuple[float, ...]
"""A block: joules, tokens and steps of each bin, one bin after the other."""


def _rows(blocks: Iterable[Curve], bins: Sequence[int]) -> list[Row]:
    """Blocks as rows, which are added up much faster than mappings: it is done a thousand times for an interval."""
    none = Used(0.0, 0.0, 0.0)
    return [tuple([part for load in bins for part in block.get(load, none)]) for block in blocks]


def _used(drawn: Sequence[Row]) -> list[Used]:
    """The sum of blocks, by bin."""
    columns = [*map(sum, zip(*drawn, strict=True))]
    return [Used(*columns[start : start + 3]) for start in range(0, len(columns), 3)]


def _blocks(facts: Facts, steps: Iterable[int]) -> list[Curve]:
    gpu, tokens, size = facts.gpu, facts.output_tokens, facts.grid.block
    blocks: defaultdict[int, list[Curve]] = defaultdict(list)
    for index in steps:
        if tokens[index] > 0:
            blocks[index // size].append({bin_of(tokens[index]): Used(gpu[index], tokens[index], 1)})
    return [_sum(block) for block in blocks.values()]


def _sum(blocks: Sequence[Curve]) -> dict[int, Used]:
    found: dict[int, list[float]] = {}
    for block in blocks:
        for load, used in block.items():
            row = found.get(load)
            if row is None:
                found[load] = list(used)
            else:
                row[0] += used[0]
                row[1] += used[1]
                row[2] += used[2]
    return {load: Used(*row) for load, row in found.items()}


class Fuller(NamedTuple):
    """What fewer replicas would have saved, how many of them, and the share of the time in which fewer sufficed.

    ``largest`` is the largest load of one replica that was seen without requests that wait, in tokens of a step.
    """

    joules: Interval
    replicas: float
    share: float
    largest: float


def fuller(facts: Facts) -> Fuller | None:
    """GPU joules that the fewest replicas that sufficed would have saved; None where no bin of loads shows it.

    Replicas suffice at loads of one replica that were seen in six steps, for half an hour at least, without requests
    that wait. Joules of a replica at another load are read between bins that were seen.
    """
    tokens, gpu = facts.output_tokens, facts.gpu
    if not tokens or not facts.replicas or not gpu:
        return None
    counts = [round(count) if math.isfinite(count) else 0 for count in facts.replicas]
    loads = [count / many if count > 0 and many else 0.0 for count, many in zip(tokens, counts, strict=True)]
    seen = _seen(facts, loads, counts)
    if len(seen) < 2:
        return None
    largest = max(load for load, _ in points(_sum([each for bins in seen.values() for each in bins]).values()))
    targets: dict[int, tuple[int, int]] = {}
    fewest: list[float] = []
    for index, load in enumerate(loads):
        if load <= 0:
            continue
        count = min(max(1, math.ceil(tokens[index] / largest - 1e-9)), counts[index])
        fewest.append(count)
        if count < counts[index]:
            targets[index] = (count, bin_of(tokens[index] / count))
    days = [_wanted(facts, part, targets) for part in facts.parts()]
    if not targets or len(days) < LEAST_BLOCKS:
        return None
    wanted = sorted({load for day in days for load in day})

    def saving(drawn: Sequence[Sequence[Row]]) -> float:
        spared = _used(drawn[0])
        curve = points([used for each in drawn[1:] for used in _used(each)])
        then = math.fsum([used.steps * joules_at(used.load, curve) for used in spared if used.steps > 0])
        return (math.fsum([used.joules for used in spared]) - then) * len(days) / len(drawn[0])

    interval = of_strata(
        [_rows(days, wanted), *(_rows(blocks, [load]) for load, blocks in seen.items())], saving, CONFIDENCE
    )
    return Fuller(interval, math.fsum(fewest) / len(fewest), len(targets) / len(fewest), largest)


def _wanted(facts: Facts, part: slice, targets: Mapping[int, tuple[int, int]]) -> dict[int, Used]:
    """What steps used for which fewer replicas sufficed, by the load of one of these; steps are theirs, one by one."""
    gpu, tokens = facts.gpu, facts.output_tokens
    return _sum(
        [
            {load: Used(gpu[index], tokens[index], count)}
            for index in range(part.start, part.stop)
            if index in targets
            for count, load in (targets[index],)
        ]
    )


def _seen(facts: Facts, loads: Steps, counts: Sequence[int]) -> dict[int, list[Curve]]:
    """What one replica used at each load, in blocks; only loads that were seen for long enough, and at ease."""
    steps: defaultdict[int, list[int]] = defaultdict(list)
    for index, load in enumerate(loads):
        if load > 0 and not _crowded(facts, index):
            steps[bin_of(load)].append(index)
    gpu = facts.gpu
    found: dict[int, list[Curve]] = {}
    for load, indexes in steps.items():
        if len(indexes) < LEAST_BLOCKS or len(indexes) * facts.grid.step < LEAST_BIN_SECONDS:
            continue
        days: defaultdict[int, list[Curve]] = defaultdict(list)
        for index in indexes:
            days[index // facts.grid.block].append({load: Used(gpu[index], facts.output_tokens[index], counts[index])})
        groups = list(days.values())
        if len(groups) < LEAST_BLOCKS:
            groups = [[each] for group in groups for each in group]
        found[load] = [*map(_sum, groups)]
    return found


def _crowded(facts: Facts, index: int) -> bool:
    waiting = facts.waiting[index] if facts.waiting else 0.0
    used = facts.kv_use[index] if facts.kv_use else 0.0
    return waiting > 0.5 or used > 0.9
