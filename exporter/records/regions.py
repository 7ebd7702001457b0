"""What programs report of their regions: times, runs and units by the names that they chose."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from . import GroupKey, Process

OUTSIDE_REGIONS = ""
"""Name of the time in which no region was open."""


@dataclass(frozen=True, slots=True)
class RegionUse:
    """What one process reported of a region since the last reading.

    ``seconds`` is the time in which the region was the innermost one, added over threads and tasks; ``gpu_seconds`` the
    time in which a device worked for it, None if the program does not measure that. ``count`` are the runs that ended,
    ``units`` what the program counted.
    """

    process: Process
    region: str
    seconds: float
    gpu_seconds: float | None
    count: int
    units: Mapping[str, float]


class RegionPiece(NamedTuple):
    """The next ``seconds`` of a process, and how much of them each region took; `OUTSIDE_REGIONS` is one of them."""

    seconds: float
    times: tuple[tuple[str, float], ...]


class RegionSpan(NamedTuple):
    """Pieces that follow one another from boot time ``start`` on.

    ``cpu_ratio`` is the part of the time of a region in which its threads computed; 1 where it is not known.
    """

    start: float
    pieces: tuple[RegionPiece, ...]
    cpu_ratio: Mapping[str, float] = {}


class ProcessRegions(NamedTuple):
    """What one process reported since the last reading, and when it was in which region.

    ``device`` is when a device worked for a region: name, boot time and seconds. ``ended`` if nothing more will come.
    """

    process: Process
    group: GroupKey | None
    uses: tuple[RegionUse, ...]
    spans: tuple[RegionSpan, ...]
    device: tuple[tuple[str, float, float], ...] = ()
    ended: bool = False


@dataclass(frozen=True, slots=True)
class RegionReport:
    """Everything that was reported since the last reading.

    ``rejected`` are the messages that were ignored, by reason, and ``lost`` the runs that programs could not send: both
    since the start.
    """

    processes: tuple[ProcessRegions, ...] = ()
    rejected: Mapping[str, int] = field(default_factory=dict)
    lost: int = 0
