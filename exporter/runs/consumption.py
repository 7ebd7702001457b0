"""What a command and its children used so far, and the readings of a machine reduced to that."""

from __future__ import annotations

from collections.abc import Mapping
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
            self._moved = seconds > counted * 1.01 + 0.05
            seconds = max(seconds, counted)
        self.seconds = max(self.seconds, seconds)
        return self.seconds

    def used(self, cpu: CpuUse) -> float:
        """CPU seconds by the machine's own count: of the run's cgroup, and of its processes in other ones."""
        seconds = 0.0
        for group in cpu.groups:
            if self._contains(group.group):
                seconds += group.seconds
            else:
                seen = self._descendants.seen
                seconds += sum([each.seconds for each in group.processes if each.process.key in seen])
        return seconds

    def owns(self, use: GpuUse) -> bool:
        """Whether a process on a GPU is one of the run's."""
        if use.process is not None and use.process.key in self._descendants.seen:
            return True
        return use.group is not None and self._contains(use.group)

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
        self._known: float | None = None  # CPU seconds of the run by the last reading
        self._charged = 0.0
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
        before = self._known
        self._known = self._consumption.read()
        uses = tuple([self._focus(use) for use in reading.gpu_uses])
        if reading.cpu is None:
            return replace(reading, gpu_uses=uses)
        if before is None:
            self._charged = self._known
            return replace(reading, gpu_uses=uses, cpu=_reduce(reading.cpu, 0.0, first=True))
        return replace(reading, gpu_uses=uses, cpu=_reduce(reading.cpu, self._charge(reading.cpu, before), first=False))

    def close(self) -> None:
        """Close it."""
        self._source.close()

    def _charge(self, cpu: CpuUse, before: float) -> float:
        """CPU seconds to charge: what was read together with the machine's, and what that has missed until ``before``.

        What the machine's count attributes to no process, because that has exited, is known from the parents. Until the
        end, it is charged one reading late: this one covers all that the last one knew.
        """
        used = self._consumption.used(cpu)
        known = self._consumption.seconds if self._consumption.has_ended else before
        used += max(0.0, known - self._charged - used)
        self._charged += used
        return used

    def _focus(self, use: GpuUse) -> GpuUse:
        if not self._consumption.owns(use):
            return use if use.group is None else use._replace(group=OTHERS)
        if use.reported:
            self.gpu_seconds[use.device] = self.gpu_seconds.get(use.device, 0.0) + use.seconds
        else:
            self.unreported.add(use.device)
        return use._replace(group=RUN)


def _reduce(cpu: CpuUse, used: float, *, first: bool) -> CpuUse:
    """One group used ``used`` seconds, and all others together the rest: their clocks may lag behind by a tick."""
    busy = max(cpu.busy_seconds, used + cpu.kernel_seconds)
    groups = (GroupUse(RUN, used, ()),) if used > 0 else ()
    outside = busy - used - cpu.kernel_seconds
    started = (RUN,) if first else ()
    return CpuUse(
        cpu.at, cpu.window_seconds, busy, groups, cpu.kernel_seconds, 0.0, started=started, outside_seconds=outside
    )


def gpu_seconds(sources: Mapping[str, Focused]) -> tuple[float, bool]:
    """GPU seconds of the run over all sources, and whether every driver reports them."""
    total = sum(sum(source.gpu_seconds.values()) for source in sources.values())
    return total, not any(source.unreported for source in sources.values())
