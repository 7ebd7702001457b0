"""Joules per token at loads that a model really had: compared between settings, and read at another load. Pure."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
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
_BLOCK_SECONDS = 4 * 3600.0


class Used(NamedTuple):
    """Joules of some steps, and the output tokens that they bought."""

    joules: float
    tokens: float


def bin_of(load: float) -> int:
    """The bin of a positive load."""
    return round(math.log(load) / math.log(BIN_RATIO))


class Settings(NamedTuple):
    """The value that a setting has at the end, and another one that it had before, with the steps of each."""

    current: float
    other: float
    current_steps: frozenset[int]
    other_steps: frozenset[int]


def settings(values: Steps) -> list[Settings]:
    """The last value of a setting against each other one that it had, by falling number of steps."""
    groups: dict[float, set[int]] = {}
    for index, value in enumerate(values):
        if not math.isfinite(value) or value <= 0:
            continue
        known = next((each for each in groups if abs(each - value) <= SAME_SETTING * each), value)
        groups.setdefault(known, set()).add(index)
    if len(groups) < 2:
        return []
    last = max(groups, key=lambda value: max(groups[value]))
    others = sorted((value for value in groups if value != last), key=lambda value: -len(groups[value]))
    return [
        Settings(last, other, frozenset(groups[last]), frozenset(groups[other]))
        for other in others
        if abs(other - last) > _LEAST_CHANGE * last
    ]


class Difference(NamedTuple):
    """What one group of steps would have saved at the joules per token of another, at equal loads."""

    joules: Interval
    paired: float
    """Share of the first group's tokens at loads that the other had as well."""


def difference(facts: Facts, first: frozenset[int], second: frozenset[int]) -> Difference | None:
    """GPU joules that the steps ``first`` would have saved with those of ``second``; None with too little data.

    Loads are output tokens of a step; within a bin of loads both are compared, weighted by the tokens of ``first``.
    """
    if not facts.output_tokens or not facts.gpu:
        return None
    groups = [_blocks(facts, steps) for steps in (first, second)]
    if min(len(group) for group in groups) < LEAST_BLOCKS:
        return None
    wholes = [_sum(group) for group in groups]
    shared = {
        load
        for load in wholes[0].keys() & wholes[1].keys()
        if _seconds(facts, first, load) >= LEAST_BIN_SECONDS and _seconds(facts, second, load) >= LEAST_BIN_SECONDS
    }
    tokens = math.fsum(used.tokens for used in wholes[0].values())
    if not shared:
        return None

    def saving(drawn: Sequence[Sequence[Mapping[int, Used]]]) -> float:
        one, other = _sum(drawn[0]), _sum(drawn[1])
        both = [load for load in shared if load in one and load in other]
        scale = len(groups[0]) / len(drawn[0])
        return scale * math.fsum(
            one[load].joules - one[load].tokens * other[load].joules / other[load].tokens for load in both
        )

    found = of_strata(groups, saving, CONFIDENCE)
    return Difference(found, math.fsum(wholes[0][load].tokens for load in shared) / tokens)


def _blocks(facts: Facts, steps: frozenset[int]) -> list[dict[int, Used]]:
    size = max(1, round(_BLOCK_SECONDS / facts.grid.step))
    gpu, tokens = facts.gpu, facts.output_tokens
    blocks: defaultdict[int, list[int]] = defaultdict(list)
    for index in sorted(steps):
        if tokens[index] > 0:
            blocks[index // size].append(index)
    return [
        _sum([{bin_of(tokens[index]): Used(gpu[index], tokens[index])} for index in block]) for block in blocks.values()
    ]


def _sum(blocks: Sequence[Mapping[int, Used]]) -> dict[int, Used]:
    found: dict[int, Used] = {}
    for block in blocks:
        for load, used in block.items():
            old = found.get(load)
            found[load] = Used(old.joules + used.joules, old.tokens + used.tokens) if old else used
    return found


def _seconds(facts: Facts, steps: frozenset[int], load: int) -> float:
    tokens = facts.output_tokens
    return facts.grid.step * sum(1 for index in steps if tokens[index] > 0 and bin_of(tokens[index]) == load)


class Fuller(NamedTuple):
    """What fewer replicas would have saved, how many of them, and the share of the time in which fewer sufficed."""

    joules: Interval
    replicas: float
    share: float


def fuller(facts: Facts) -> Fuller | None:
    """GPU joules that the fewest replicas that sufficed would have saved; None where no bin of loads shows it.

    Replicas suffice at loads of one replica that were seen for half an hour without requests that wait. Joules per
    token are those of all steps with that load of a replica.
    """
    tokens, gpu = facts.output_tokens, facts.gpu
    if not tokens or not facts.replicas or not gpu:
        return None
    loads = [
        count / replicas if count > 0 and replicas >= 1 else 0.0
        for count, replicas in zip(tokens, facts.replicas, strict=True)
    ]
    seen: defaultdict[int, float] = defaultdict(float)
    for index, load in enumerate(loads):
        if load > 0 and not _crowded(facts, index):
            seen[bin_of(load)] += facts.grid.step
    known = {load for load, seconds in seen.items() if seconds >= LEAST_BIN_SECONDS}
    if not known:
        return None
    most = BIN_RATIO ** max(known)
    targets: dict[int, int] = {}
    fewest: list[float] = []
    for index, load in enumerate(loads):
        if load <= 0:
            continue
        count = min(math.ceil(tokens[index] / most - 1e-9) or 1, round(facts.replicas[index]))
        fewest.append(count)
        target = bin_of(tokens[index] / count)
        if count < round(facts.replicas[index]) and target in known:
            targets[index] = target
    if not targets:
        return None
    blocks = [_Block.of(range(part.start, part.stop), loads, targets, facts) for part in facts.parts()]
    if len(blocks) < LEAST_BLOCKS:
        return None

    def saving(drawn: Sequence[Sequence[_Block]]) -> float:
        curve = _sum([block.curve for block in drawn[0]])
        wanted = _sum([block.wanted for block in drawn[0]])
        return (
            len(blocks)
            / len(drawn[0])
            * math.fsum(
                used.joules - used.tokens * curve[load].joules / curve[load].tokens
                for load, used in wanted.items()
                if load in curve
            )
        )

    interval = of_strata([blocks], saving, CONFIDENCE)
    return Fuller(interval, math.fsum(fewest) / len(fewest), len(targets) / len(fewest))


def _crowded(facts: Facts, index: int) -> bool:
    waiting = facts.waiting[index] if facts.waiting else 0.0
    used = facts.kv_use[index] if facts.kv_use else 0.0
    return waiting > 0.5 or used > 0.9


class _Block(NamedTuple):
    curve: dict[int, Used]
    """By the load of one replica."""
    wanted: dict[int, Used]
    """By the load that one of fewer replicas would have had: what was used instead, and the tokens."""

    @classmethod
    def of(cls, steps: range, loads: Steps, targets: Mapping[int, int], facts: Facts) -> _Block:
        gpu, tokens = facts.gpu, facts.output_tokens
        return cls(
            _sum([{bin_of(loads[step]): Used(gpu[step], tokens[step])} for step in steps if loads[step] > 0]),
            _sum([{targets[step]: Used(gpu[step], tokens[step])} for step in steps if step in targets]),
        )
