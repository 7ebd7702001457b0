"""Joules of each piece of work, from what a meter counted while it ran."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

from .trace import NANOSECONDS, Work


class NoMeterError(Exception):
    """A device has no meter; the text says why and what to do."""


class Point(NamedTuple):
    """What a cumulative meter had counted, in joules, at a moment in ns of Unix time."""

    at: int
    joules: float


@dataclass(frozen=True, slots=True)
class Priced:
    """Joules of every piece of work of one device, in their order, and of the time in which none ran.

    Σ ``joules`` + ``outside_joules`` is what the meter counted from ``start`` to ``end``, in ns of Unix time: the part
    of the trace for which there are points. Work outside of it has no joules, and is in ``unpriced_seconds``.
    ``period_seconds`` is the mean time between two points.
    """

    joules: Sequence[float]
    outside_joules: float
    start: int
    end: int
    period_seconds: float
    unpriced_seconds: float

    @property
    def total_joules(self) -> float:
        """All that the meter counted."""
        return sum(self.joules) + self.outside_joules


def from_watts(samples: Sequence[tuple[int, float]]) -> list[Point]:
    """A meter made of samples of power (ns, W), which each hold until the next."""
    points, joules = [], 0.0
    for (at, watts), (until, _) in pairwise(samples):
        points.append(Point(at, joules))
        joules += watts * (until - at) * NANOSECONDS
    if samples:
        points.append(Point(samples[-1][0], joules))
    return points


def price(work: Sequence[Work], points: Sequence[Point]) -> Priced | None:
    """Divide what the meter counted among the work of one device; None if no two points lie around any of it.

    Between two points power counts as constant, and pieces that run at the same time bear equal parts: a meter has no
    finer answer. What is shorter than the time between two points therefore has the mean power of that time.
    """
    first, last = min(one.start for one in work), max(one.end for one in work)
    used = _around(points, first, last)
    if len(used) < 2 or used[-1].at <= first or used[0].at >= last:
        return None
    start, end = max(first, used[0].at), min(last, used[-1].at)
    if start >= end:
        return None
    times, shares, outside = _shares(work, used, start, end)

    def share(moment: int) -> float:
        number = min(max(bisect_right(times, moment) - 1, 0), len(times) - 2)
        since, until = times[number], times[number + 1]
        part = (min(max(moment, since), until) - since) / (until - since)
        return shares[number] + (shares[number + 1] - shares[number]) * part

    return Priced(
        [share(one.end) - share(one.start) for one in work],
        outside,
        start,
        end,
        (used[-1].at - used[0].at) * NANOSECONDS / (len(used) - 1),
        sum(max(0, start - one.start) + max(0, one.end - end) for one in work) * NANOSECONDS
        if (start, end) != (first, last)
        else 0.0,
    )


def _around(points: Sequence[Point], first: int, last: int) -> list[Point]:
    """The points from the last one before the work to the first one after it."""
    times = [point.at for point in points]
    return list(points[max(bisect_right(times, first) - 1, 0) : bisect_left(times, last) + 1])


def _shares(
    work: Sequence[Work], points: Sequence[Point], start: int, end: int
) -> tuple[list[int], list[float], float]:
    """Moments; what one piece that always runs would have been charged until each; and joules while nothing ran."""
    changes: dict[int, int] = {start: 0, end: 0}
    for one in work:
        since, until = max(one.start, start), min(one.end, end)
        if since < until:
            changes[since] = changes.get(since, 0) + 1
            changes[until] = changes.get(until, 0) - 1
    for point in points:
        if start < point.at < end:
            changes.setdefault(point.at, 0)
    times = sorted(changes)
    shares, outside, running, number = [0.0], 0.0, 0, 0
    for since, until in pairwise(times):
        running += changes[since]
        while points[number + 1].at <= since and number + 2 < len(points):
            number += 1
        before, after = points[number], points[number + 1]
        joules = (after.joules - before.joules) * (until - since) / (after.at - before.at)
        outside += 0.0 if running else joules
        shares.append(shares[-1] + (joules / running if running else 0.0))
    return times, shares, outside
