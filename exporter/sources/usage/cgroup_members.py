"""Which processes belong to which cgroup, and the CPU seconds each of them used."""

from __future__ import annotations

from collections import deque

from ...host import Host, read_file
from ...records import Problem, ProcessKey, ProcessUse, Unavailable
from .cgroup_tree import QUIET_READS, Group, Walk, detach
from .process_clock import ProcessTable, Tracked

_RECENT_SECONDS = 5.0
"""Age at which the name of a new process is read again: between fork and exec it has its parent's."""


class Members:
    """Attaches processes to groups, reads their CPU clocks and detaches them when they leave or exit.

    Members that used no CPU in `QUIET_READS` consecutive reads are idle: they are read only when the group used more
    than its active members explain.
    """

    def __init__(self, host: Host) -> None:
        self._host = host
        self._table = ProcessTable(host)
        self._recent: deque[tuple[float, Tracked]] = deque()
        self._hidden_groups: set[Group] = set()
        self._exited: list[ProcessKey] = []

    def close(self) -> None:
        """Close all descriptors."""
        self._table.close()

    def take_exited(self) -> tuple[ProcessKey, ...]:
        """Processes that exited since this was last called."""
        exited, self._exited = self._exited, []
        return tuple(exited)

    def reap(self, *, thorough: bool) -> None:
        """Detach the processes that exited; see `ProcessTable.exited`."""
        for tracked in self._table.exited(thorough=thorough):
            self.exit(tracked)

    def forget_recent(self) -> None:
        """Treat all processes attached so far as old: their names are not read again."""
        self._recent.clear()

    def remove(self, group: Group) -> None:
        """Detach the members of a group that no longer exists: they moved to another one, or will be reaped."""
        self._hidden_groups.discard(group)
        for tracked in list(group.members()):
            detach(tracked)

    def active_use(self, group: Group) -> tuple[list[ProcessUse], float]:
        """CPU seconds of the active members, and their sum; members without usage become idle after a few reads."""
        uses: list[ProcessUse] = []
        quiet: list[int] = []
        gone: list[Tracked] = []
        total, used = 0.0, self._table.used
        for pid, tracked in group.active.items():
            seconds = used(tracked)
            if seconds:
                tracked.quiet = 0
                total += seconds
                uses.append(ProcessUse(tracked.process, seconds))
            elif seconds is None:
                gone.append(tracked)
            else:
                tracked.quiet += 1
                if tracked.quiet >= QUIET_READS:
                    quiet.append(pid)
        for pid in quiet:
            group.idle[pid] = group.active.pop(pid)
        for tracked in gone:
            self.exit(tracked)
        return uses, total

    def idle_use(self, group: Group) -> list[ProcessUse]:
        """CPU seconds of the idle members; those that used any become active."""
        uses: list[ProcessUse] = []
        for pid, tracked in list(group.idle.items()):
            seconds = self._table.used(tracked)
            if seconds:
                tracked.quiet = 0
                group.active[pid] = group.idle.pop(pid)
                uses.append(ProcessUse(tracked.process, seconds))
            elif seconds is None:
                self.exit(tracked)
        return uses

    def scan(self, group: Group, tick: Walk, since: float) -> list[ProcessUse]:
        """Read a group's member list, attach new processes and detach those that left; CPU seconds of the new ones.

        All CPU time of a process that started after boot time ``since`` counts.
        """
        try:
            # Not kept open: a kept descriptor of v1's file shows a list that may be seconds old.
            pids = {int(pid) for pid in read_file(f"{group.directory}/cgroup.procs").split()} - {0}
        except (Unavailable, ValueError):
            return []
        known = group.active | group.idle
        for pid in known.keys() - pids:
            detach(known[pid])
        if tick.probes > 0:
            self._hidden_groups.discard(group)
        uses = []
        for pid in pids - known.keys():
            tracked = self._table.find(pid)
            if tracked is None:
                if tick.probes <= 0:
                    continue
                tick.probes -= 1
                tracked = self._table.follow(pid, since)
                if tracked is None:
                    if self._table.is_hidden(pid):
                        self._hidden_groups.add(group)
                    continue
                self._recent.append((tick.now, tracked))
            group.attach(tracked)
            seconds = self._table.used(tracked)
            if seconds:
                uses.append(ProcessUse(tracked.process, seconds))
        return uses

    def exit(self, tracked: Tracked) -> None:
        """Detach a process that exited, and report it with the next `take_exited`."""
        detach(tracked)
        self._table.forget(tracked)
        self._exited.append(tracked.process.key)

    def refresh_names(self, now: float) -> None:
        """Read the names of new processes again: between fork and exec a process has its parent's."""
        while self._recent and self._recent[0][0] <= now - _RECENT_SECONDS:
            tracked = self._recent.popleft()[1]
            if self._table.find(tracked.process.key.pid) is tracked:
                self._table.rename(tracked)

    def problems(self) -> tuple[Problem, ...]:
        """The problem that some processes are hidden from this user, if any are."""
        if not self._hidden_groups:
            return ()
        return (
            Problem(
                "permission",
                "processes of other users are hidden (mount option hidepid of /proc)",
                "run as root, or add this user to the group that mount option gid= of /proc names",
            ),
        )
