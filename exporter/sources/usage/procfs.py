"""CPU use from /proc: busy seconds per socket, and per process on a host whose cgroups cannot be read."""

from __future__ import annotations

import os
from collections import defaultdict, deque

from ...host import Host, KeptFile, list_dir
from ...records import CpuUse, GroupKey, GroupUse, ProcessKey, ProcessUse, Reading, Unavailable
from ..cpu.cpu_times import CpuTimes, parse_cpu_times
from ..cpu.topology import cpu_packages
from .identity import identity_path, parse_cgroup
from .process_clock import ProcessTable, Tracked

_PROBES_PER_TICK = 2048
_REST_SECONDS = 10.0
_RECENT_SECONDS = 5.0


class ProcfsSource:
    """Busy seconds per socket where there are several; with ``processes`` also CPU use by process.

    ``processes`` is for hosts without readable cgroups: every process is read in every tick, groups come from
    /proc/PID/cgroup (read when a process is found, and once more 5 s later), and busy time that no living process
    explains is ``exited_seconds``.
    """

    name = "procfs"

    def __init__(self, host: Host, *, processes: bool = False) -> None:
        self._host = host
        self._hertz = os.sysconf("SC_CLK_TCK")
        self._table = ProcessTable(host) if processes else None
        self._groups: dict[ProcessKey, GroupKey] = {}
        self._members: defaultdict[GroupKey, int] = defaultdict(int)
        self._recent: deque[tuple[float, Tracked]] = deque()
        self._stat: KeptFile | None = None
        self._sockets: dict[int, int] | None = None
        self._last: CpuTimes | None = None
        self._last_at = 0.0

    def read(self, now: float) -> Reading:
        """Busy seconds since the last call. Raises `Unavailable`."""
        if self._sockets is None:
            self._sockets = _known_sockets(self._host)
        several = len(set(self._sockets.values())) > 1
        if not several and self._table is None:
            # One socket: the cgroups source has its use. Only report whether /proc is readable.
            self._host.text(self._host.proc("uptime"))
            return Reading(rest_seconds=_REST_SECONDS)
        if self._stat is None:
            self._stat = self._host.keep(self._host.proc("stat"))
        times, last = parse_cpu_times(self._stat.read_all(), self._hertz), self._last
        busy: defaultdict[int, float] = defaultdict(float)
        if several and last is not None:
            for number, seconds in times.by_cpu.items():
                if number in self._sockets:
                    busy[self._sockets[number]] += max(0.0, seconds - last.by_cpu.get(number, seconds))
        cpu = None if self._table is None else self._cpu_use(self._table, times, last, now - self._last_at, now)
        self._last, self._last_at = times, now
        return Reading(socket_busy_seconds=dict(busy), cpu=cpu)

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
        kernel = 0.0
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
            elif seconds > 0:
                uses[self._groups[key]].append(ProcessUse(tracked.process, seconds))
        alive = set(pids)
        for tracked in table:
            if tracked.process.key.pid not in alive:
                table.forget(tracked)
                exited.append(tracked.process.key)
        for key in exited:
            self._exit(key, ended)
        if last is None:
            return CpuUse(now, 0.0, 0.0, started=tuple(started), ended=tuple(ended), exited=tuple(exited))
        groups = [
            GroupUse(group, sum(use.seconds for use in members), tuple(members)) for group, members in uses.items()
        ]
        kernel += max(0.0, times.interrupts - last.interrupts)
        explained = sum(group.seconds for group in groups) + kernel
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
                self._leave_group(before, ended)

    def _join_group(self, key: ProcessKey, started: list[GroupKey]) -> None:
        try:
            text = self._host.text(self._host.proc(str(key.pid), "cgroup"))
            group = GroupKey(identity_path(parse_cgroup(text), text), 0)
        except Unavailable:
            group = GroupKey("/", 0)
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


def _known_sockets(host: Host) -> dict[int, int]:
    """CPU number → package number of every online CPU; empty unless the kernel reports all of them."""
    packages = cpu_packages(host)
    known = {cpu: package for cpu, package in packages.items() if package is not None}
    return known if len(known) == len(packages) else {}
