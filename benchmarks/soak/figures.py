"""What is measured in a soak, and whether it is flat."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from statistics import median
from typing import NamedTuple

from tests.support.live import Scrape
from tests.support.program import children_of

_MIB = 2**20
_MOST_POINTS = 300


class Figures(NamedTuple):
    """One measurement, ``at`` seconds after the start: of the exporter, its child, and its last scrape."""

    at: float
    resident_mib: float
    child_mib: float
    descriptors: float
    threads: float
    series: float
    missed_ticks: float


@dataclass(frozen=True, slots=True)
class Trend:
    """How much one figure grew in the second half, and how much of that is allowed."""

    name: str
    typical: float
    growth: float
    allowed: float

    @property
    def flat(self) -> bool:
        """Whether it grew no more than allowed."""
        return self.growth <= self.allowed


def measure(at: float, pid: int, scrape: Scrape) -> Figures:
    """Look at the process. Raises OSError if it is gone."""
    return Figures(
        at,
        _resident_mib(pid),
        sum(map(_resident_of_child, children_of(pid))),
        len(os.listdir(f"/proc/{pid}/fd")),
        len(os.listdir(f"/proc/{pid}/task")),
        len(scrape),
        scrape.get(("energy_sample_overruns_total", ()), 0.0),
    )


def trends(rows: Sequence[Figures], slack: float = 1.0) -> list[Trend]:
    """Growth in the second half of all that must not grow more than ``slack`` allows.

    The slope over the length of that half, but no more than the highest value rose over the highest of the first half:
    what a fault takes away and gives back rises, too, though only to where it was.
    """
    middle = rows[-1].at / 2
    before, half = [row for row in rows if row.at < middle], [row for row in rows if row.at >= middle]
    series = median(row.series for row in half)
    allowed = {
        "resident_mib": 1.0,
        "child_mib": 1.0,
        "descriptors": 1.0,
        "threads": 0.5,
        "series": max(10.0, 0.02 * series),
    }
    found = []
    for name, most in allowed.items():
        values = [(row.at, float(getattr(row, name))) for row in half]
        risen = max(value for _, value in values) - max((float(getattr(row, name)) for row in before), default=0.0)
        growth = min(slope(values) * (half[-1].at - half[0].at), risen)
        found.append(Trend(name, median(value for _, value in values), growth, most * slack))
    return found


def slope(points: Sequence[tuple[float, float]]) -> float:
    """The median of the slopes between all pairs (Theil and Sen): what spikes while a fault lasts does not move it."""
    step = -(-len(points) // _MOST_POINTS)
    pairs = combinations(points[::step], 2)
    return median((y2 - y1) / (x2 - x1) for (x1, y1), (x2, y2) in pairs)


def _resident_mib(pid: int) -> float:
    pages = int(Path(f"/proc/{pid}/statm").read_text(encoding="ascii").split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / _MIB


def _resident_of_child(pid: int) -> float:
    with contextlib.suppress(OSError):  # it ended meanwhile
        return _resident_mib(pid)
    return 0.0
