"""What counters grew by between two snapshots, which hours it belongs to, and which rows of an hour become one."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from itertools import pairwise
from typing import NamedTuple

from .counters import JOULES, RETIRED, Cell, Counted, Standing
from .schema import HOUR_SECONDS

_MOST_HOURS = 7 * 24
"""Over how many hours the growth of one difference is spread at most."""

_NEW_SECONDS = 60.0
_ROUNDING = 1e-6


class Moment(NamedTuple):
    """When a snapshot was taken, and which counting it belongs to.

    ``at``, ``counted_since`` and ``start_time`` are Unix seconds, ``monotonic_at`` boot-time seconds; the others as in
    `exporter.snapshot.ExporterState`.
    """

    at: float
    monotonic_at: float
    counted_since: float | None
    start_time: float

    def same_run(self, other: Moment) -> bool:
        """Whether one exporter took both."""
        return self.start_time == other.start_time

    @property
    def is_new(self) -> bool:
        """Whether the counters started at 0 with this run, or shortly before it."""
        return self.counted_since is not None and self.start_time - self.counted_since < _NEW_SECONDS


def span(before: Moment | None, now: Moment) -> tuple[float, float]:
    """Start of the time in which the counters grew, in Unix seconds, and how many seconds of it the exporter ran.

    Its length within one run is that of the monotonic clock, so that a wall clock that is set moves the span and
    neither shortens nor lengthens it.
    """
    if before is not None and now.same_run(before):
        seconds = max(0.0, now.monotonic_at - before.monotonic_at)
        return now.at - seconds, seconds
    ran = max(0.0, now.at - now.start_time)
    since = now.counted_since if now.is_new else now.start_time
    if before is not None:
        since = before.at
    return min(now.at, now.start_time if since is None else since), ran


def hours(start: float, end: float) -> list[tuple[int, float]]:
    """Hours of a time, as Unix time divided by 3600, and the share of it in each: their sum is 1."""
    last = int(end // HOUR_SECONDS)
    first = max(int(start // HOUR_SECONDS), last - _MOST_HOURS + 1)
    if first >= last:
        return [(last, 1.0)]
    edges = [start, *(hour * HOUR_SECONDS for hour in range(first + 1, last + 1)), end]
    parts = [later - earlier for earlier, later in pairwise(edges)]
    return [(hour, part / (end - start)) for hour, part in enumerate(parts, first) if part > 0]


def grown(before: Standing, now: Standing, *, restarted: bool) -> Iterator[Counted]:
    """What each counter grew by; owners without growth are left out.

    A counter that fell started again at 0 within one run: its account was retired. After a restart from an older state
    file it continues, and the difference was counted before. The joules of an account that vanished without being
    retired are in the account of another name: they are subtracted from the name that they had.
    """
    for key, (owner, cells) in now.items():
        known = before[key].cells if key in before else {}
        amounts = {cell: _growth(value, known.get(cell, 0.0), restarted=restarted) for cell, value in cells.items()}
        if kept := {cell: amount for cell, amount in amounts.items() if amount}:
            yield Counted(owner, kept)
    ended = [counted for key, counted in before.items() if key not in now and counted.owner.family == "container"]
    if share := _moved(ended, before, now):
        for owner, cells in ended:
            yield Counted(owner, {cell: -share * value for cell, value in cells.items() if value})


def _growth(value: float, before: float, *, restarted: bool) -> float:
    if value >= before:
        return value - before
    return 0.0 if restarted else value


def _moved(ended: Iterable[Counted], before: Standing, now: Standing) -> float:
    """Which share of the joules of accounts that vanished was not retired."""
    held = sum(_joules(counted.cells, JOULES) for counted in ended)
    key = ("retired",)
    retired = _joules(now[key].cells, RETIRED) - (_joules(before[key].cells, RETIRED) if key in before else 0.0)
    share = 1.0 - max(0.0, retired) / held if held > 0 else 0.0
    return share if share > _ROUNDING else 0.0


def _joules(cells: Mapping[Cell, float], metric: str) -> float:
    return sum(value for cell, value in cells.items() if cell.metric == metric)


def smallest(joules: Mapping[int, Mapping[str, float]], most: int, least_ratio: float) -> set[int]:
    """The owners that become one row, by their joules by component: those beyond the ``most`` largest, and those below
    ``least_ratio`` of every component.

    An owner with less than nothing keeps its row: it corrects what the hours before have of it.
    """
    totals: defaultdict[str, float] = defaultdict(float)
    for cells in joules.values():
        for component, amount in cells.items():
            totals[component] += amount
    ranked = sorted(((sum(cells.values()), owner) for owner, cells in joules.items()), reverse=True)
    folded = {
        owner
        for place, (amount, owner) in enumerate(ranked)
        if amount >= 0
        and (place >= most or all(part < least_ratio * totals[name] for name, part in joules[owner].items()))
    }
    return folded if len(folded) > 1 else set()
