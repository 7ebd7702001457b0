"""Advice that was followed: what changed in the window, what was predicted before it, what it really saved. Pure."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

from .bootstrap import LEAST_BLOCKS, Interval, of_strata
from .facts import Facts, Fleet, Steps, Subject
from .levers.curves import SAME_SETTING, difference
from .levers.lever import CONFIDENCE, Lever
from .levers.registry import LEVERS
from .lines import JOULES_PER_KWH
from .window import DAY_SECONDS, Window

_MONTH_SECONDS = 30 * DAY_SECONDS
_LEAST_FALL = 0.03
_STEADY = 0.9
_HALVED = 0.5


@dataclass(frozen=True, slots=True)
class Followed:
    """A change at Unix time ``at``; kWh of 30 days. ``predicted`` is None where nothing was, before it.

    ``lever`` is its name; "image" is a new image, which no lever advises.
    """

    subject: Subject
    lever: str
    what: str
    at: float
    predicted: Interval | None
    realised: Interval


def followed(facts: Facts, fleet: Fleet) -> list[Followed]:
    """Changes of one subject that a lever would have advised. Only models: others have no tokens to compare by."""
    if facts.subject.kind != "model" or len(facts.parts()) < 2 * LEAST_BLOCKS:
        return []
    found = [
        _setting(facts, fleet, facts.power_limit, "power_cap", "power limit {0:,.0f} to {1:,.0f} W", 1.0),
        _setting(facts, fleet, facts.clock, "clock_lock", "SM clock {0:,.0f} to {1:,.0f} MHz", 1e-6),
        _setting(facts, fleet, facts.replicas, "consolidate", "replicas {0:.0f} to {1:.0f}", 1.0),
        _idle(facts, fleet),
        _image(facts),
    ]
    return [each for each in found if each is not None]


def _setting(facts: Facts, fleet: Fleet, values: Steps, lever: str, what: str, scale: float) -> Followed | None:
    if not facts.output_tokens:
        return None
    values = [value if tokens > 0 else math.nan for value, tokens in zip(values, facts.output_tokens, strict=False)]
    at = fall(values)
    if at is None:
        return None
    before, after = (median(_known(part)) for part in (values[:at], values[at:]))
    realised = _at_equal_load(facts, at)
    if realised is None:
        return None
    said = what.format(before * scale, after * scale)
    return Followed(facts.subject, lever, said, _time(facts, at), _predicted(facts, fleet, lever, at), realised)


def fall(values: Steps) -> int | None:
    """The step at which a setting fell and stayed: nine tenths of the steps on either side have its two values."""
    known = _known(values)
    if len(known) < 2 * LEAST_BLOCKS:
        return None
    last = median(known[-max(1, len(known) // 10) :])
    different = [
        index for index, value in enumerate(values) if math.isfinite(value) and abs(value - last) > SAME_SETTING * last
    ]
    if not different:
        return None
    at = different[-1] + 1
    first, second = _known(values[:at]), _known(values[at:])
    if min(len(first), len(second)) < LEAST_BLOCKS:
        return None
    before, after = median(first), median(second)
    fell = after < (1 - _LEAST_FALL) * before and _is_steady(first, before) and _is_steady(second, after)
    return at if fell else None


def _is_steady(values: Sequence[float], middle: float) -> bool:
    return sum(1 for value in values if abs(value - middle) <= SAME_SETTING * middle) >= _STEADY * len(values)


def _at_equal_load(facts: Facts, at: int) -> Interval | None:
    """What the steps after the change saved against those before, for the same tokens at the same load.

    In 30 days like those of the steps after it that were watched.
    """
    seen = difference(facts, frozenset(range(at, facts.grid.length)), frozenset(range(at)))
    if seen is None:
        return None
    after = facts.cut(Window(_time(facts, at), _time(facts, facts.grid.length)))
    return seen.joules.times(-_MONTH_SECONDS / after.watched_seconds / JOULES_PER_KWH)


def _idle(facts: Facts, fleet: Fleet) -> Followed | None:
    """Gaps in which GPUs were held, half as long or less since some day."""
    parts = facts.parts()
    quiet = facts.blocks(facts.quiet)
    if not quiet:
        return None
    best, gain = 0, 0.0
    for split in range(LEAST_BLOCKS, len(quiet) - LEAST_BLOCKS + 1):
        before, after = _mean(quiet[:split]), _mean(quiet[split:])
        weight = (before - after) * math.sqrt(split * (len(quiet) - split))
        if after <= _HALVED * before and weight > gain:
            best, gain = split, weight
    if not best:
        return None
    at = parts[best].start
    predicted = _predicted(facts, fleet, "stop_idle", at)
    realised = of_strata([quiet[:best], quiet[best:]], lambda arms: _mean(arms[0]) - _mean(arms[1]), CONFIDENCE)
    if predicted is None or realised.low <= 0:
        return None
    block = facts.grid.block * facts.grid.step
    return Followed(
        facts.subject,
        "stop_idle",
        "GPUs are held without being used for less of the time",
        _time(facts, at),
        predicted,
        realised.times(_MONTH_SECONDS / block / JOULES_PER_KWH),
    )


def _image(facts: Facts) -> Followed | None:
    images = facts.images
    changes = [index for index in range(1, len(images)) if images[index] != images[index - 1] and images[index]]
    if len(changes) != 1 or not images[changes[0] - 1]:
        return None
    (at,) = changes
    realised = _at_equal_load(facts, at)
    if realised is None or realised.low <= 0:
        return None
    return Followed(facts.subject, "image", f"image {images[at - 1]} to {images[at]}", _time(facts, at), None, realised)


def _predicted(facts: Facts, fleet: Fleet, lever: str, at: int) -> Interval | None:
    """What the lever would have said at that time, from the window before; None if it had no number."""
    before = facts.cut(Window(facts.grid.start, _time(facts, at)))
    finding = _LEVERS[lever].judge(before, fleet)
    if finding.joules is None or not before.watched_seconds:
        return None
    return finding.joules.times(_MONTH_SECONDS / before.watched_seconds / JOULES_PER_KWH)


def _time(facts: Facts, step: int) -> float:
    return facts.grid.start + step * facts.grid.step


def _known(values: Steps) -> list[float]:
    return [value for value in values if math.isfinite(value)]


def _mean(values: Sequence[float]) -> float:
    return math.fsum(values) / len(values)


_LEVERS: dict[str, Lever] = {lever.name: lever for lever in LEVERS}
