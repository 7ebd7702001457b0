"""CPU use from /proc: busy seconds per socket, and per process on a host whose cgroups cannot be read."""

from __future__ import annotations

import math
import os
from collections import defaultdict, deque

from ...host import Host, KeptFile, list_dir
from ...records import CpuUse, GroupKey, GroupUse, MachineUse, ProcessKey, ProcessUse, Reading, Unavailable
from ..cpu.cpu_times import CpuTimes, parse_cpu_times
from .identity import group_without_tree
from .process_clock import ProcessTable, Tracked
from .scope import Scope, read_scope
from .sockets import Sockets

_PROBES_PER_TICK = 2048
_REST_SECONDS = 10.0
_SCOPE_SECONDS = 60.0
_RECENT_SECONDS = 5.0


class ProcfsSource:
    """Busy seconds of the machine, and per socket where there are several; with ``processes`` also CPU use by process.

    On a whole machine with one socket it is read every ten seconds, for the comparison with the cgroups; where only a
    part of the machine's groups can be seen, every time.

    ``processes`` is for hosts without readable cgroups: every process is read in every tick, groups come from
    /proc/PID/cgroup (read when a process is found, and once more 5 s later), and busy time that no living process
    explains is ``exited_seconds``. Busy time of a process whose group cannot be read is ``outside_seconds``; it is read
    again every 5 s. ``scope`` is found if it is None.
    """

    name = "procfs"

    def __init__(self, host: Host, *, processes: bool = False, scope: Scope | None = None) -> None:
        self._host = host
        self._hertz = os.sysconf("SC_CLK_TCK")
        self._table = ProcessTable(host) if processes else None
        self._groups: dict[ProcessKey, GroupKey | None] = {}
        self._members: defaultdict[GroupKey, int] = defaultdict(int)
        self._recent: deque[tuple[float, Tracked]] = deque()
        self._stat: KeptFile | None = None
        self._sockets = Sockets(host)
        self._scope = scope
        self._scope_at = 0.0 if scope is None else math.inf
        self._last: CpuTimes | None = None
        self._last_at = 0.0

    def read(self, now: float) -> Reading:
        """Busy seconds since the last call. Raises `Unavailable`."""
        if self._scope is None or now - self._scope_at >= _SCOPE_SECONDS:
            self._scope, self._scope_at = read_scope(self._host), now
        if self._stat is None:
            self._stat = self._host.keep(self._host.proc("stat"))
        times, last = parse_cpu_times(self._stat.read_all(), self._hertz), self._last
        self._sockets.refresh(now, times.by_cpu)
        several = self._sockets.several and not self._scope.foreign_stat
        busy: defaultdict[int, float] = defaultdict(float)
        if several and last is not None:
            for number, seconds in times.by_cpu.items():
                if (socket := self._sockets.of.get(number)) is not None:
                    busy[socket] += max(0.0, seconds - last.by_cpu.get(number, seconds))
        cpu = None if self._table is None else self._cpu_use(self._table, times, last, now - self._last_at, now)
        machine = None
        if last is not None:
            whole = None if self._scope.foreign_stat else max(0.0, times.busy - last.busy)
            machine = MachineUse(whole, now - self._last_at, self._scope.partial)
        self._last, self._last_at = times, now
        rest = 0.0 if several or self._table is not None or self._scope.partial else _REST_SECONDS
        if rest:
            self._host.text(self._host.proc("uptime"))  # a descriptor that is kept would outlive an unmounted /proc
        return Reading(socket_busy_seconds=dict(busy), cpu=cpu, machine=machine, rest_seconds=rest)

    def close(self) -> None:
        """Close all descriptors."""
        if self._stat is not None:
            self._stat.close()
            self._stat = None
        if self._table is not None:
            self._table.close()

    def _cpu_use(
        self, table: ProcessTable, times: CpuTimes, last: CpuTimes | None, window: float, now: float
    ) -> CpuUse:
        # If this fails, raise: otherwise every process would seem to have exited. The next read covers both ticks.
        pids = [int(name) for name in list_dir(self._host.procfs) if name.isdigit()]
        started: list[GroupKey] = []
        ended: list[GroupKey] = []
        exited = [tracked.process.key for tracked in table.exited()]
        uses: defaultdict[GroupKey, list[ProcessUse]] = defaultdict(list)
        kernel = outside = 0.0
        since = now - window if last is not None else now
        self._refresh_names(table, now, started, ended)
        probes = _PROBES_PER_TICK if last is not None else len(pids)
        for pid in pids:
            tracked = table.find(pid)
            seconds = None if tracked is None else table.used(tracked)
            if tracked is not None and seconds is None:
                # It exited; another process may have its pid by now.
                table.forget(tracked)
                exited.append(tracked.process.key)
            if seconds is None and probes > 0:
                probes -= 1
                tracked = table.follow(pid, since)
                seconds = None if tracked is None else table.used(tracked)
            if tracked is None or seconds is None:
                continue
            key = tracked.process.key
            if key not in self._groups:
                self._join_group(key, started)
                self._recent.append((now, tracked))
            if seconds > 0 and tracked.process.kernel:
                kernel += seconds
            elif (group := self._groups[key]) is None:
                outside += seconds
            elif seconds > 0:
                uses[group].append(ProcessUse(tracked.process, seconds))
        alive = set(pids)
        for tracked in table:
            if tracked.process.key.pid not in alive:
                table.forget(tracked)
                exited.append(tracked.process.key)
        for key in exited:
            self._exit(key, ended)
        if last is None:
            return CpuUse(now, 0.0, 0.0, started=tuple(started), ended=tuple(ended), exited=tuple(exited))
        groups = [GroupUse(key, sum(use.seconds for use in members), tuple(members)) for key, members in uses.items()]
        kernel += max(0.0, times.interrupts - last.interrupts)
        explained = sum(each.seconds for each in groups) + kernel + outside
        rest = max(0.0, times.busy - last.busy - explained)
        # /proc/stat counts in ticks: a smaller rest is rounding, not a process that exited.
        rest = rest if rest > 2 / self._hertz else 0.0
        return CpuUse(
            now,
            window,
            explained + rest,
            tuple(groups),
            kernel,
            rest,
            tuple(started),
            tuple(ended),
            tuple(exited),
            outside,
        )

    def _refresh_names(self, table: ProcessTable, now: float, started: list[GroupKey], ended: list[GroupKey]) -> None:
        """Read name and group of new processes again: between fork and exec they are the parent's."""
        while self._recent and self._recent[0][0] <= now - _RECENT_SECONDS:
            tracked = self._recent.popleft()[1]
            key = tracked.process.key
            if table.find(key.pid) is tracked:
                table.rename(tracked)
                before = self._groups[key]
                self._join_group(key, started)
                if before is not None:
                    self._leave_group(before, ended)
                if self._groups[key] is None:
                    self._recent.append((now, tracked))

    def _join_group(self, key: ProcessKey, started: list[GroupKey]) -> None:
        """Read the group of a process; where that fails it stays in its last one, None if there is none."""
        try:
            group = group_without_tree(self._host, key.pid)
        except Unavailable:
            known = self._groups.setdefault(key, None)
            if known is None:
                return
            group = known
        self._groups[key] = group
        self._members[group] += 1
        if self._members[group] == 1:
            started.append(group)

    def _exit(self, key: ProcessKey, ended: list[GroupKey]) -> None:
        group = self._groups.pop(key, None)
        if group is not None:
            self._leave_group(group, ended)

    def _leave_group(self, group: GroupKey, ended: list[GroupKey]) -> None:
        self._members[group] -= 1
        if not self._members[group]:
            del self._members[group]
            ended.append(group)
