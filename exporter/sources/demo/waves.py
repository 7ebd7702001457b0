"""Loads over time: seconds since the start of the simulation → busy cores, or the busy ratio of a GPU or instance.

A "day" of the demo lasts half an hour, so that a daily wave shows in a short demonstration.
"""

from __future__ import annotations

from collections.abc import Callable
from math import pi, sin

Wave = Callable[[float], float]

DAY = 1800.0
"""Seconds."""


def steady(level: float) -> Wave:
    """Constant."""
    return lambda _: level


def daily(mean: float, swing: float, phase: float = 0.0) -> Wave:
    """Rises and falls once a (demo) day; ``phase`` is a fraction of the day."""
    return lambda t: mean + swing * sin(2 * pi * (t / DAY + phase))


def pulse(rest: float, peak: float, every: float, lasts: float) -> Wave:
    """``peak`` for the first ``lasts`` of every ``every`` seconds, else ``rest``."""
    return lambda t: peak if t % every < lasts else rest


def bursts(peak: float, pace: float = 1.0) -> Wave:
    """Idle times and bursts without a visible period: beating sines, cut off below zero."""
    return lambda t: max(0.0, peak * (sin(t * pace / 7) + sin(t * pace / 17.3) + sin(t * pace / 41.9)) / 3)


def least(*waves: Wave) -> Wave:
    """The lowest of several loads at each time."""
    return lambda t: min(wave(t) for wave in waves)
