"""Whether busy seconds and joules are of the same machine; only then the one is divided by the other."""

from __future__ import annotations

from dataclasses import replace

from ..records import CpuUse, MachineUse, Problem

_WINDOW_SECONDS = 60.0
_APART_RATIO = 0.25
_APART_CPUS = 0.1
"""Two sums of busy time contradict each other if, over a whole window, they differ by more than both of these:
interrupt time and the tick's resolution account for less."""

_OWED_SECONDS = 1.0

_FIX = "mount the host's /sys/fs/cgroup read-only and name it in --path.cgroupfs"


class ScopeCheck:
    """Compares the busy time of the visible groups with that of the machine."""

    def __init__(self) -> None:
        self._partial = ""
        self._owed = 0.0
        self._grouped = (0.0, 0.0)  # busy seconds of the groups since the last window began, and the time they cover
        self._counted = (0.0, 0.0)  # the same by /proc/stat
        self._contradiction: Problem | None = None
        self._scope: Problem | None = None

    @property
    def problems(self) -> tuple[Problem, ...]:
        """Problems that apply now."""
        return tuple(problem for problem in (self._scope, self._contradiction) if problem is not None)

    def apply(self, cpu: CpuUse | None, machine: MachineUse | None, *, metered: bool) -> tuple[CpuUse | None, bool]:
        """The use with the busy time outside the visible groups, and whether joules may be divided by it.

        An estimate (not ``metered``) models the CPUs that can be seen from here, so it is always divided.
        """
        if machine is not None:
            self._partial = machine.partial
        if not self._partial:
            self._compare(cpu, machine)
        if cpu is None or not (self._partial and metered):
            self._scope = None
            return cpu, True
        if machine is None or machine.busy_seconds is None:
            if machine is not None:
                text = f"{self._partial}: its joules are not divided by the busy time of this part"
                self._scope = Problem("not_found", text, _FIX)
            return cpu, False
        self._scope = Problem("not_found", f"{self._partial}: the joules of the rest have no known owner", _FIX)
        # Groups are counted in microseconds and /proc/stat in ticks of 10 ms: a smaller sum is made up for later.
        self._owed += machine.busy_seconds - cpu.busy_seconds
        outside, self._owed = max(0.0, self._owed), max(min(0.0, self._owed), -_OWED_SECONDS)
        known = cpu.busy_seconds + outside
        return replace(cpu, busy_seconds=known, outside_seconds=cpu.outside_seconds + outside), True

    def _compare(self, cpu: CpuUse | None, machine: MachineUse | None) -> None:
        if cpu is not None:
            busy, seconds = self._grouped
            self._grouped = (busy + cpu.busy_seconds, seconds + cpu.window_seconds)
        if machine is None or machine.busy_seconds is None:
            return
        busy, seconds = self._counted
        self._counted = (busy + machine.busy_seconds, seconds + machine.window_seconds)
        if self._counted[1] < _WINDOW_SECONDS:
            return
        (busy_by_groups, covered), (busy_by_stat, seconds) = self._grouped, self._counted
        self._grouped = self._counted = (0.0, 0.0)
        if covered <= 0:  # the groups could not be read
            return
        by_groups, by_stat = busy_by_groups / covered, busy_by_stat / seconds
        apart = abs(by_groups - by_stat)
        self._contradiction = None
        if apart > _APART_RATIO * max(by_groups, by_stat) and apart > _APART_CPUS:
            text = f"{by_groups:.2f} CPUs were busy by the cgroups, {by_stat:.2f} by /proc/stat"
            self._contradiction = Problem(
                "implausible", text, "check that --path.procfs and --path.cgroupfs belong to the same machine"
            )
