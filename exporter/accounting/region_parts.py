"""One component of one program: intervals that wait for the times of its regions, and what was learned of them."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from itertools import pairwise
from math import sqrt
from typing import NamedTuple

from ..records import Component, CounterStep
from ..records.regions import OUTSIDE_REGIONS
from .region_lags import Moment
from .region_times import RegionTimes, Times
from .regions import EARLIEST_SECONDS, LATEST_SECONDS, SPREAD, TIME_ERROR_SECONDS, RegionEstimator

KEPT_SECONDS = LATEST_SECONDS + 1.1
"""How long before the start of an interval the times of regions are needed."""

_CPU_SPREAD = 0.3
"""Standard deviation, relative to the mean, that joules per CPU second of regions are expected to have."""

_TIME_ERRORS: Mapping[Component, float] = {"gpu": 0.029, "platform": 0.29, "other": 0.29}
"""Standard deviation, in seconds, of the moment up to which a value counts: counters of GPUs step about each 0.1 s, and
meters of a whole machine each second, at a time in between that is not known."""

_LONGEST_STEP_SECONDS = 1.0
"""Between two values of a counter that are further apart, other users of the card are not taken to be steady."""

_SLACK_SECONDS = 0.1
_WINDOW_RATIO = 0.1
_MAX_WAITING = 600
"""Intervals that wait for what a program reports late."""


class CardGrowth(NamedTuple):
    """How the joules of a card grew: all of them in the ``seconds`` between two readings, and values in between.

    The first of ``steps`` may be the last one before that.
    """

    joules: float
    seconds: float
    max_watts: float
    steps: Sequence[CounterStep]


class _Use(NamedTuple):
    """Joules of the program from one moment to another."""

    start: Moment
    end: Moment
    joules: float


class _Interval(NamedTuple):
    """Joules between two readings, and, if the counter was read in between, how they grew."""

    start: float
    end: float
    joules: float
    steps: tuple[_Use, ...]


class RegionPart:
    """Joules of a program between readings, until the program has reported in which regions it was.

    Joules of a GPU follow the time in regions, those of CPU and DRAM the time in which threads computed in them: these
    are divided among processes by it, and what a second of it costs differs little. ``held`` are intervals whose times
    are known; they are divided once watts are known, or at once if the part does not learn them.
    """

    def __init__(self, component: Component, *, learns: bool = True) -> None:
        self.learns = learns
        spread = SPREAD if component == "gpu" else _CPU_SPREAD
        self.estimator = RegionEstimator(spread=spread, time_error=_TIME_ERRORS.get(component, TIME_ERROR_SECONDS))
        self.waiting: deque[_Interval] = deque(maxlen=_MAX_WAITING)
        self.held: list[tuple[float, Times]] = []
        self.held_since: float | None = None
        self._read_at: float | None = None
        self._joules = 0.0

    def read(self, at: float, total: float, card: CardGrowth | None = None) -> None:
        """Note all joules of the program so far, read at boot time ``at``; ``card`` is the only one that it uses."""
        if self._read_at is not None and at > self._read_at:
            joules = max(0.0, total - self._joules)
            steps = () if card is None else _uses(card, at - self._read_at, joules)
            self.waiting.append(_Interval(self._read_at, at, joules, steps))
        self._read_at, self._joules = at, total

    def hold(self, times: RegionTimes, *, ended: bool) -> bool:
        """Learn of the first interval that waits and hold it, if all of it is known or the program has ``ended``."""
        start, end, joules, steps = self.waiting[0]
        since, until = times.since, times.until
        if since is None or until is None or end + EARLIEST_SECONDS > until:
            if not ended:
                return False
            if until is None or start >= until:
                self.waiting.clear()
                return False
        self.waiting.popleft()
        if since is None:
            return True
        if start - LATEST_SECONDS < since or until < end + EARLIEST_SECONDS:
            found = times.between(start, end)  # nothing can be learned of what is known in part
            unknown = max(0.0, since - start) + max(0.0, end - until)
            found[OUTSIDE_REGIONS] = found.get(OUTSIDE_REGIONS, 0.0) + unknown
        else:
            whole = _Use(Moment(start), Moment(end), joules)
            for use in steps if self.learns else ():
                if use.start.at - use.start.width - LATEST_SECONDS >= since:
                    width = max(use.start.width, use.end.width)
                    self.estimator.observe(times, *use, time_error=max(TIME_ERROR_SECONDS, width / sqrt(12.0)))
            if self.learns and not steps:
                self.estimator.observe(times, *whole)
            found = self.estimator.seconds(times, whole.start, whole.end)
        self.held.append((joules, found))
        self.held_since = start if self.held_since is None else self.held_since
        return True


def _uses(card: CardGrowth, seconds: float, joules: float) -> tuple[_Use, ...]:
    """What the program used from one value of the counter to the next.

    All but what the rest of the card used, idle power or other programs, which is taken to be steady between two
    readings: what varies with the regions of a program is its own.
    """
    if abs(card.seconds - seconds) > _WINDOW_RATIO * seconds:
        return ()  # the joules are of another time
    rest_watts = (card.joules - joules) / card.seconds
    found = []
    for before, after in pairwise(card.steps):
        start, end = (Moment(step.at, step.at - step.after) for step in (before, after))
        passed, grown = end.middle - start.middle, after.joules - before.joules
        if passed <= _LONGEST_STEP_SECONDS and 0.0 <= grown <= card.max_watts * (passed + _SLACK_SECONDS):
            found.append(_Use(start, end, grown - rest_watts * passed))
    return tuple(found)
