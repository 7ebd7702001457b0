"""What a lever is: when it applies, with which evidence, what it would save, its risk, and how to undo it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from ..bootstrap import LEAST_BLOCKS, Interval, of_sum
from ..facts import Facts, Fleet, Kind

Level = Literal["measured", "observed", "bound", "hint", "silent"]
"""What a saving is based on: measured here, an observed curve, a bound from own joules, signals only, nothing."""

WEIGHTS: dict[Level, float] = {"measured": 1.0, "observed": 0.7, "bound": 0.4, "hint": 0.0, "silent": 0.0}
"""Savings are ranked by their lower bound times this."""

CONFIDENCE = 0.95
"""Share of the intervals that cover the saving."""

Pool = Literal["idle", "active", "cpu", "grams"]
"""Joules that a lever saves: idle or active ones of GPUs, those of the CPU; or none, only the grams of all of them."""


@dataclass(frozen=True, slots=True)
class Finding:
    """What a lever says of one subject.

    ``because`` is the evidence, or the reason of silence. ``joules`` and ``grams`` are saved in the time that the
    subject was watched. ``floor`` is what is ranked: the lower bound of the saving, of a bound that of the bound.
    """

    level: Level
    because: str
    joules: Interval | None = None
    floor: float = 0.0
    grams: Interval | None = None


@dataclass(frozen=True, slots=True)
class Lever:
    """One thing to change.

    ``evidence`` and ``counter_evidence`` are PromQL, in which ``$subject`` are matchers of the subject and ``$range``
    is the window. ``pools`` are the joules that it saves: of the levers that save the same ones only the first in rank
    is recommended.
    """

    name: str
    title: str
    applies: str
    evidence: str
    counter_evidence: str
    would_change: str
    risk: str
    undo: str
    published: str
    pools: Sequence[Pool]
    judge: Callable[[Facts, Fleet], Finding]
    about: Sequence[Kind] = ("model",)


def silent(reason: str) -> Finding:
    """The lever does not apply, or it is not known whether it does."""
    return Finding("silent", reason)


def hint(evidence: str) -> Finding:
    """The signals are there, and nothing here was measured: no number."""
    return Finding("hint", evidence)


def too_short(facts: Facts) -> Finding | None:
    """Silence about a subject with too little data for any interval."""
    blocks = len(facts.parts())
    if blocks >= LEAST_BLOCKS:
        return None
    hours = facts.grid.block * facts.grid.step / 3600
    return silent(f"not enough data: {LEAST_BLOCKS - blocks} more blocks of {hours:.3g} h")


def at_most(blocks: Sequence[float], evidence: str, least: Interval | None = None) -> Finding:
    """A bound: the saving is at most the sum of ``blocks`` of joules, and at least ``least`` where that is known."""
    bound = of_sum(blocks, CONFIDENCE)
    low = max(0.0, least.low) if least else 0.0
    middle = least.middle if least else bound.middle
    return Finding("bound", evidence, Interval(low, middle, max(bound.high, low)), max(0.0, bound.low))


def saves(level: Level, joules: Interval, evidence: str) -> Finding:
    """A saving that was seen; silence where its interval does not exclude 0."""
    if joules.low <= 0:
        return silent(f"{evidence}, but the interval of the saving includes 0")
    return Finding(level, evidence, joules, joules.low)


def percent(share: float) -> str:
    """A share for a sentence."""
    return f"{share:.0%}" if share >= 0.01 or share <= 0 else "less than 1%"
