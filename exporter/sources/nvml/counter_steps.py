"""When an energy counter took each of its values: between two reads, or closer where it is updated periodically."""

from __future__ import annotations

from collections import deque

from ...records import CounterStep

_MAX_STEPS = 1000
"""Steps that are kept until they are taken; later ones are lost."""

_PERIODS = 100
_LEAST_PERIODS = 20
"""Updates from whose mean distance the period is known, and how many are enough."""

_RARE_RATIO = 0.75
"""A counter that has changed in at most this part of the reads is updated more rarely than it is read: each change is
one update."""

_FREQUENT_RATIO = 0.95
"""One that has changed in so many is updated more often than the two reads that were closest to each other."""

_FITTING_RATIO = 0.9
"""A counter of which fewer updates come when they are expected is not periodic."""

_SLACK_SECONDS = 0.0005
"""How far an update may be from one period after the last one."""


class CounterSteps:
    """Values of one counter that was read every now and then: each value once, with the time in which it came.

    Drivers update it each 20 to 100 ms, and two reads 50 ms apart say to 15 ms when (one standard deviation). Their
    updates are periodic, so that many reads together say it better, to 3 ms for 0.1 s. Steps of which less is known
    than of most are left out, and so are all until the period is known.
    """

    def __init__(self) -> None:
        self._read_at: float | None = None
        self._joules = 0.0
        self._steps: list[CounterStep] = []
        self._reads: deque[tuple[float, bool]] = deque(maxlen=2 * _PERIODS)  # time since the last one, and change
        self._changes = 0  # in them
        self._fits: deque[bool] = deque(maxlen=_PERIODS)
        self._updates: deque[tuple[float, float]] = deque(maxlen=_PERIODS)  # each one after the first, by the second

    def note(self, joules: float, at: float) -> None:
        """Keep a value that differs from the last one; of the first one it is not known since when it is there."""
        after, self._read_at = self._read_at, at
        before, self._joules = self._joules, joules
        if after is None:
            return
        if len(self._reads) == self._reads.maxlen:
            self._changes -= self._reads[0][1]
        self._reads.append((at - after, joules != before))
        if joules != before:
            self._changes += 1
            low, high = self._when(after, at)
            self._updates.append((low, high))
            count = len(self._updates)
            usual = sum([later - earlier for earlier, later in self._updates]) / count
            if count >= 2 * _LEAST_PERIODS and high - low <= 2.0 * usual and len(self._steps) < _MAX_STEPS:
                self._steps.append(CounterStep(low, high, joules))

    def interrupt(self) -> None:
        """The counter could not be read."""
        self._read_at = None

    def take(self) -> tuple[CounterStep, ...]:
        """The steps since the last call."""
        steps, self._steps = self._steps, []
        return tuple(steps)

    def _when(self, after: float, at: float) -> tuple[float, float]:
        """The time in which the counter was updated, which was after ``after`` and by ``at``."""
        count = len(self._updates)
        if count < _LEAST_PERIODS:
            return after, at
        if self._changes >= _FREQUENT_RATIO * len(self._reads):
            return max(after, at - min(self._reads)[0]), at
        if self._changes > _RARE_RATIO * len(self._reads):
            return after, at
        (first_low, first_high), (last_low, last_high) = self._updates[0], self._updates[-1]
        period = (last_low + last_high - first_low - first_high) / 2.0 / (count - 1)
        slack = _SLACK_SECONDS + (last_high - last_low + first_high - first_low) / 2.0 / (count - 1)
        low, high = max(after, last_low + period - slack), min(at, last_high + period + slack)
        fits = low < high
        self._fits.append(fits)
        return (low, high) if fits and sum(self._fits) >= _FITTING_RATIO * len(self._fits) else (after, at)
