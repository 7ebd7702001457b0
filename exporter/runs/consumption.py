"""What a command and its children used so far, and the readings of a machine reduced to that."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Literal

from ..records import (
    HOST,
    CpuUse,
    GpuUse,
    GroupKey,
    GroupUse,
    Model,
    Process,
    Reading,
    Unavailable,
    Workload,
)
from ..sources.protocol import Source
from ..workloads.protocol import Namer
from .descendants import Descendants
from .own_cgroup import OwnCgroup

RUN = GroupKey("/run", 0)
OTHERS = GroupKey("/others", 0)
WORKLOAD = Workload(container="run", runtime="run")

Method = Literal["cgroup", "subreaper", "children"]


class RunNamer(Namer):
    """Names the run, and nothing else."""

    def workload(self, group: GroupKey) -> Workload:
        """The run, or the host."""
        return WORKLOAD if group == RUN else HOST

    def model(self, group: GroupKey | None, process: Process) -> Model | None:  # noqa: ARG002 - of `Namer`
        """None: a run is one thing, whatever models it loads."""
        return None


class Consumption:
    """CPU seconds of a run so far, and which processes are its.

    Each of two counts misses something, and none has anything twice, so the larger one is true: the counter of the
    run's own cgroup misses processes that move to another one; what parents waited for, with what the living used,
    misses children of processes that ignore SIGCHLD, for which nothing waits.
    """

    def __init__(self, descendants: Descendants, group: OwnCgroup | None, *, subreaper: bool) -> None:
        self._descendants = descendants
        self._group = group
        self._subreaper = subreaper
        self._reaped: float | None = None
        self._moved = False
        self.seconds = 0.0

    @property
    def method(self) -> Method:
        """How CPU seconds are counted: without a subreaper, orphans are missing."""
        if self._group is not None and not self._moved:
            return "cgroup"
        return "subreaper" if self._subreaper else "children"

    @property
    def living(self) -> int:
        """Processes of the run that still ran when it was last read."""
        return len(self._descendants.living)

    @property
    def has_ended(self) -> bool:
        """Whether the command has ended."""
        return self._reaped is not None

    def ended(self, reaped_seconds: float) -> None:
        """The command ended, and this is the exact CPU time of all that has exited."""
        self._reaped = reaped_seconds

    def read(self) -> float:
        """CPU seconds so far, as ``seconds`` from then on; they never decrease."""
        living, reaped = self._descendants.read()
        seconds = living + (reaped if self._reaped is None else self._reaped)
        if self._group is not None:
            try:
                counted = self._group.seconds()
            except Unavailable:
                self._group = None
                counted = 0.0
            self._moved = self._moved or seconds > counted * 1.01 + 0.05 or self._any_elsewhere()
            seconds = max(seconds, counted)
        self.seconds = max(self.seconds, seconds)
        return self.seconds

    def used(self, cpu: CpuUse) -> float | None:
        """CPU seconds of the run's cgroup by the machine's own count; None if some of its processes are elsewhere."""
        if self._group is None or self._moved:
            return None
        return sum([group.seconds for group in cpu.groups if self._contains(group.group)])

    def owns(self, use: GpuUse) -> bool:
        """Whether a process on a GPU is one of the run's."""
        if use.process is not None and use.process.key in self._descendants.seen:
            return True
        return use.group is not None and self._contains(use.group)

    def _any_elsewhere(self) -> bool:
        return self._group is not None and not all(map(self._group.holds, self._descendants.living))

    def _contains(self, key: GroupKey) -> bool:
        return self._group is not None and any(self._group.contains(path) for path in key.paths)


class Focused:
    """A source whose reading knows two owners: the run and all others. ``gpu_seconds`` of the run are added up.

    ``undivided`` is why joules of the machine's CPU meter cannot be divided by the use that is visible here, "" if they
    can.
    """

    def __init__(self, source: Source, consumption: Consumption) -> None:
        self._source = source
        self._consumption = consumption
        self._base = 0.0
        self._charged: float | None = None
        self.gpu_seconds: dict[str, float] = {}
        self.unreported: set[str] = set()
        self.undivided = ""

    @property
    def name(self) -> str:
        """That of the source."""
        return self._source.name

    def read(self, now: float) -> Reading:
        """Read it once. Raises `Unavailable`."""
        reading = self._source.read(now)
        reading = replace(reading, allocations=None, tokens=None)
        if reading.machine is not None:
            self.undivided = reading.machine.partial if reading.machine.busy_seconds is None else ""
        if reading.cpu is None and not reading.gpu_uses:
            return reading
        seconds = self._consumption.read()
        uses = tuple([self._focus(use) for use in reading.gpu_uses])
        if reading.cpu is None:
            return replace(reading, gpu_uses=uses)
        if self._charged is None:
            self._base = self._charged = seconds
            return replace(reading, gpu_uses=uses, cpu=_reduce(reading.cpu, 0.0, first=True))
        used = min(
            self._charge(reading.cpu, seconds - self._charged),
            max(0.0, reading.cpu.busy_seconds - reading.cpu.kernel_seconds),
        )
        self._charged += used
        return replace(reading, gpu_uses=uses, cpu=_reduce(reading.cpu, used, first=False))

    def close(self) -> None:
        """Close it."""
        self._source.close()

    @property
    def charged_seconds(self) -> float:
        """CPU seconds that joules were charged for: no more in a reading than the machine was busy for.

        The clocks of processes and of the machine differ, by scheduler ticks, so a little may be left at the end.
        """
        return 0.0 if self._charged is None else self._charged - self._base

    def _charge(self, cpu: CpuUse, left: float) -> float:
        """CPU seconds since the last reading, of which ``left`` is all that is known and was not charged.

        Where the machine's own count has all of them, that is taken, because it was read together with the rest.
        """
        used = self._consumption.used(cpu)
        return max(0.0, left) if used is None else max(used, left) if self._consumption.has_ended else used

    def _focus(self, use: GpuUse) -> GpuUse:
        if not self._consumption.owns(use):
            return use if use.group is None else use._replace(group=OTHERS)
        if use.reported:
            self.gpu_seconds[use.device] = self.gpu_seconds.get(use.device, 0.0) + use.seconds
        else:
            self.unreported.add(use.device)
        return use._replace(group=RUN)


def _reduce(cpu: CpuUse, used: float, *, first: bool) -> CpuUse:
    """One group used ``used`` seconds, and all others together the rest."""
    return replace(
        cpu,
        groups=(GroupUse(RUN, used, ()),) if used > 0 else (),
        exited_seconds=0.0,
        started=(RUN,) if first else (),
        ended=(),
        exited=(),
        outside_seconds=cpu.busy_seconds - used - cpu.kernel_seconds,
    )


def gpu_seconds(sources: Sequence[Focused]) -> float | None:
    """GPU seconds of the run over all sources, None if a driver does not report them."""
    if any(source.unreported for source in sources):
        return None
    return sum(sum(source.gpu_seconds.values()) for source in sources)
