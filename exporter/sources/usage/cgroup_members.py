"""Which processes belong to which cgroup, and the CPU seconds each of them used."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable

from ...host import Host, read_file
from ...records import Problem, ProcessKey, ProcessUse, Unavailable
from .cgroup_tree import QUIET_READS, Group, Hierarchy, Walk, detach
from .identity import Identities
from .process_clock import ProcessTable, Tracked
from .reaped import ReapedChildren
from .rereads import Rereads


class Members:
    """Attaches processes to groups, reads their CPU clocks and detaches them when they leave or exit.

    Members that used no CPU in `QUIET_READS` consecutive reads are idle: they are read only when the group used more
    than its active members explain.
    """

    def __init__(self, host: Host) -> None:
        self._host = host
        self.identities: Identities | None = None
        self._table = ProcessTable(host)
        self._reaped = ReapedChildren(host, self._table)
        self._rereads = Rereads()
        self._hidden_groups: set[Group] = set()
        self._unlisted_groups: set[Group] = set()
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

    def set_tree(self, tree: Hierarchy) -> None:
        """The tree that counts: if it is one of several, each process is looked up for its identity."""
        if tree.one_of_several:
            self.identities = self.identities or Identities(self._host, tree)

    def read_clocks(self, group: Group) -> list[ProcessUse]:
        """CPU seconds of all members since they were last read."""
        read = [ProcessUse(tracked.process, self._table.used(tracked) or 0.0) for tracked in list(group.members())]
        return [use for use in read if use.seconds > 0]

    def forget_recent(self) -> None:
        """Treat all processes attached so far as old; see `Rereads.settle`."""
        self._rereads.settle()

    def remove(self, group: Group) -> None:
        """Detach the members of a group that no longer exists: they moved to another one, or will be reaped."""
        self._hidden_groups.discard(group)
        self._unlisted_groups.discard(group)
        self._reaped.forget(group)
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

        All CPU time of a process that started after boot time ``since`` counts: one that slept since is new here.
        """
        pids = listed(group)
        if pids is None:
            self._unlisted_groups.add(group)
            if group.parent is not None and is_threaded(group):
                tick.shared.append((group, group.parent))
            return []
        self._unlisted_groups.discard(group)
        if not pids and group.parent is not None and group.parent.parent and any(group.parent.members()):
            tick.empty.append(group)
        known = group.active | group.idle
        for pid in known.keys() - pids:
            detach(known[pid])
        if tick.probes > 0:
            self._hidden_groups.discard(group)
        uses: list[ProcessUse] = []
        new: list[Tracked] = []
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
                self._rereads.add(tracked, tick.now)
                new.append(tracked)
            self._attach(tracked, group, tick)
            seconds = self._table.used(tracked)
            if seconds:
                uses.append(ProcessUse(tracked.process, seconds))
        for tracked in new:
            self._reaped.place(tracked)
        return uses

    def read_children(self, uses: Iterable[ProcessUse]) -> None:
        """Read what exited children used of the processes that ran: one that did not run has not waited for any.

        Then the exits of all processes, so that no child that was followed counts twice.
        """
        for use in uses:
            tracked = self._table.find(use.process.key.pid)
            if tracked is not None and not use.process.kernel:
                self._reaped.read(tracked)
        self.reap(thorough=False)

    def take_reaped(self, group: Group, seconds: float) -> tuple[ProcessUse, ...]:
        """What exited children of a group's processes used unseen, at most ``seconds``, by process."""
        return self._reaped.take(group, seconds) if self._reaped.due else ()

    def _attach(self, tracked: Tracked, group: Group, tick: Walk) -> None:
        before = tracked.group
        if isinstance(before, Group) and tracked.process.key.pid in (listed(before) or ()):
            tick.shared.append((group, before))
        group.attach(tracked)
        if before is not None:
            self._reaped.move(tracked)
        if self.identities is not None:
            self.identities.look(tracked.process.key, group.key)

    def exit(self, tracked: Tracked) -> None:
        """Detach a process that exited, and report it with the next `take_exited`."""
        detach(tracked)
        self._reaped.exit(tracked)
        self._table.forget(tracked)
        self._exited.append(tracked.process.key)
        if self.identities is not None:
            self.identities.forget(tracked.process.key)

    def refresh_names(self, now: float) -> None:
        """Read the names and identities of processes again that are due; see `Rereads`."""
        for tracked in self._rereads.due(now, self._table):
            self._table.rename(tracked)
            if self.identities is not None and isinstance(tracked.group, Group):
                self.identities.look(tracked.process.key, tracked.group.key)

    def is_partial(self, group: Group) -> bool:
        """Whether some members of a group cannot be seen, as of its last scan."""
        return group in self._hidden_groups or group in self._unlisted_groups

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


def listed(group: Group) -> set[int] | None:
    """Pids in the member list of a group and of the directories joined to it; None if it cannot be read."""
    try:
        # Not kept open: a kept descriptor of v1's file shows a list that may be seconds old.
        pids = {int(pid) for pid in read_file(f"{group.directory}/cgroup.procs").split()} - {0}
    except (Unavailable, ValueError):
        return None
    for name in group.joined:
        with contextlib.suppress(Unavailable, ValueError):
            pids |= {int(pid) for pid in read_file(f"{group.directory}/{name}/cgroup.procs").split()} - {0}
    return pids


def is_threaded(group: Group) -> bool:
    """Whether it contains only threads of the processes above it (cgroups(7), "Thread mode")."""
    try:
        return read_file(f"{group.directory}/cgroup.type", 32).strip() == b"threaded"
    except Unavailable:
        return False
