"""Busy seconds per cgroup, and per process inside it: cgroup v2, v1 (cpuacct) and hybrid hosts.

Usage counters of cgroups are hierarchical and keep what exited processes and deleted children used. So a
group that did not move is skipped with everything below it, and its processes are looked at only when it
moved: work follows what is active, not what exists.
"""

from __future__ import annotations

import contextlib
import os
from collections import deque
from collections.abc import Iterable, Sequence

from ...host import Host, read_file
from ...records import CpuUse, GroupKey, GroupUse, Problem, ProcessKey, ProcessUse, Reading, Unavailable
from .cgroup_tree import Group, Hierarchy, Walk, dismiss, find_hierarchy, list_dirs
from .process_clock import ProcessTable, Tracked

_FULL_WALK_SECONDS = 10.0
_HYBRID_CHECK_SECONDS = 60.0
_PROBES_AT_FIRST = 100_000
_FIRST_SCAN_SECONDS = 0.2
_QUIET_READS = 3
_ROUNDING_SECONDS = 1e-6
_SKEW_SECONDS = 0.005
"""A group's counter lags behind its processes' clocks by up to one scheduler tick per running CPU."""

_RESCAN_SHARE = 0.01
"""Share of the time that may be spent on looking for new members of one group (fault 36)."""

_ROOT_RESCAN_SHARE = 0.001
"""The same for the root group, where interrupts leave something unexplained on every tick."""

_YOUNG_SECONDS = 5.0


class CgroupSource:
    """CPU use by cgroup and process. The first read only sets baselines and tells which groups exist."""

    name = "cgroups"

    def __init__(self, host: Host) -> None:
        self._host = host
        self._processes = ProcessTable(host)
        self._hierarchy: Hierarchy | None = None
        self._root: Group | None = None
        self._links_count = False
        self._last_at = 0.0
        self._full_at = float("-inf")
        self._hybrid_at = 0.0
        self._young: deque[tuple[float, Tracked]] = deque()
        self._blind: set[Group] = set()
        # What came and went stays here until a read succeeds and tells it.
        self._started: list[GroupKey] = []
        self._ended: list[GroupKey] = []
        self._exited: list[ProcessKey] = []

    def read(self, now: float) -> Reading:
        """Walk what moved since the last call. Raises `Unavailable`."""
        tick = Walk(now, self._last_at, full=now - self._full_at >= _FULL_WALK_SECONDS)
        if self._root is not None and self._has_moved(now):
            self._unmount()
        if self._root is None:
            self._mount(tick)
            return Reading(cpu=self._told(tick, 0.0))
        for tracked in self._processes.exited(thorough=tick.full):
            self._leave(tracked)
        try:
            if self._root.moved() or tick.full:
                # The v2 root is counted in scheduler ticks, the groups below in nanoseconds: these may show more
                # in the long run. That is forgotten, lest it swallows the root's own use for hours.
                self._root.booked = min(self._root.booked, self._root.own_seconds())
                self._visit(self._root, tick)
        except Unavailable as error:
            if error.reason == "not_found":
                self._unmount()
            raise
        self._look_again(now)
        window, self._last_at = now - self._last_at, now
        if tick.full:
            self._full_at = now
        return Reading(cpu=self._told(tick, window), problems=self._problems())

    def close(self) -> None:
        """Give back all descriptors."""
        if self._root is not None:
            for group in self._root.tree():
                group.close()
            self._root = None
        self._processes.close()

    def _told(self, tick: Walk, window_seconds: float) -> CpuUse:
        started, ended, exited = self._started, self._ended, self._exited
        self._started, self._ended, self._exited = [], [], []
        if started and ended:
            # Found again after its tree was gone for a moment: it never ended.
            again = set(started) & set(ended)
            started = [key for key in started if key not in again]
            ended = [key for key in ended if key not in again]
        return CpuUse(
            tick.now,
            window_seconds,
            sum([group.seconds for group in tick.groups]) + tick.kernel_seconds,
            tuple(tick.groups),
            tick.kernel_seconds,
            0.0,
            tuple(started),
            tuple(ended),
            tuple(exited),
        )

    # --- the tree -----------------------------------------------------------------------------------

    def _mount(self, tick: Walk) -> None:
        self._hierarchy = find_hierarchy(self._host)
        self._links_count = False
        root = self._root = Group(self._host, self._hierarchy, "/", None)
        self._started.append(root.key)
        root.booked = root.usage
        self._last_at = self._full_at = self._hybrid_at = tick.now
        self._adopt(root, tick)
        # Opening them took longer than reading them will: read all again, so that the time between a group's
        # reading and its children's is from now on about the same.
        groups = list(root.tree())
        for group in groups:
            with contextlib.suppress(Unavailable):
                group.moved()
        for group in groups:
            group.booked = group.own_seconds()
        # Who is there already is known from now on; what is not reached in time is found when it moves.
        tick.groups, tick.kernel_seconds, tick.probes = [], 0.0, _PROBES_AT_FIRST
        until = self._host.clock() + _FIRST_SCAN_SECONDS
        for group in groups:
            if self._host.clock() > until:
                break
            self._scan(group, tick)
        self._young.clear()

    def _unmount(self) -> None:
        assert self._root is not None
        self._bury(self._root)
        self._root = None

    def _has_moved(self, now: float) -> bool:
        """On a hybrid host, whether the other tree is now the one that engines fill."""
        assert self._hierarchy is not None
        if not self._hierarchy.hybrid or now - self._hybrid_at < _HYBRID_CHECK_SECONDS:
            return False
        self._hybrid_at = now
        try:
            return find_hierarchy(self._host).root != self._hierarchy.root
        except Unavailable:
            return False

    def _adopt(self, parent: Group, tick: Walk) -> None:
        """Find child groups that are not known yet, and theirs.

        What a new one used so far is booked now, less what its parent has booked as its own before: of one that
        was born since the last walk that is nothing, of one that is older it is all.
        """
        assert self._hierarchy is not None
        try:
            status = os.stat(parent.directory)
            # A directory's link count is 2 + its subdirectories, on cgroupfs too: one stat says if any is new.
            if self._links_count and status.st_nlink == len(parent.children) + 2:
                return
            names = list_dirs(parent.directory)
        except OSError:
            return
        if parent.parent is None:
            # Not so on overlayfs or btrfs, nor on emulations of cgroupfs.
            self._links_count = bool(names) and status.st_nlink == len(names) + 2
        prefix = parent.key.path.rstrip("/")
        for name in names:
            if name in parent.children:
                continue
            try:
                child = Group(self._host, self._hierarchy, f"{prefix}/{name}", parent)
            except Unavailable:
                continue
            unbooked = max(0.0, parent.own_seconds() - parent.booked)
            child.booked = max(0.0, child.usage - unbooked)
            parent.booked -= child.booked
            parent.children[name] = child
            self._started.append(child.key)
            self._adopt(child, tick)
            self._book(child, tick)

    def _visit(self, group: Group, tick: Walk) -> None:
        """Book what a group that moved and those below it used. Raises `Unavailable` if it is gone."""
        if tick.full and not group.in_place():
            raise Unavailable("not_found", f"{group.directory}: another group has its place")
        buried: list[Group] = []
        if group.children:
            gone, unread = self._visit_children(group, tick)
            if unread:
                # What is the group's own, or was of those that are gone, shows once that child is read again.
                return
            for name in gone:
                child = group.children.pop(name)
                self._bury(child)
                group.buried += sum([lost.booked + lost.buried for lost in child.tree()])
                buried += child.leaves()
        if buried or tick.full:
            self._adopt(group, tick)
        self._book(group, tick, buried)

    def _visit_children(self, group: Group, tick: Walk) -> tuple[list[str], bool]:
        """Visit those that moved; returns the names of those that are gone, and whether one is unread that may have.

        Those that stood still lately are read only if the group's own counter shows more than the others explain:
        it includes theirs, to the microsecond by which each is rounded. Less waits for the next full walk, and is
        nobody else's meanwhile. The kernel's own root says nothing of them: its counter has another clock.
        """
        awake: list[tuple[str, Group]] = []
        asleep: list[tuple[str, Group]] = []
        for item in group.children.items():
            (asleep if item[1].quiet >= _QUIET_READS else awake).append(item)
        gone, unread = self._visit_some(awake, tick)
        rounding = _ROUNDING_SECONDS * len(group.children)
        if asleep and (tick.full or gone or group.top or group.own_seconds() - group.booked > rounding):
            more, also = self._visit_some(asleep, tick)
            return gone + more, unread or also
        return gone, unread or bool(asleep)

    def _visit_some(self, children: Iterable[tuple[str, Group]], tick: Walk) -> tuple[list[str], bool]:
        gone, unread = [], False
        for name, child in children:
            try:
                moved = child.moved()
                if tick.full or (moved and child.children):
                    self._visit(child, tick)
                elif moved:
                    self._book(child, tick)
            except Unavailable as error:
                if error.reason == "not_found":
                    gone.append(name)
                else:
                    unread = True
        return gone, unread

    def _bury(self, group: Group) -> None:
        for lost in group.tree():
            self._ended.append(lost.key)
            self._blind.discard(lost)
            lost.close()
            for tracked in list(lost.members()):
                # It moved and will be found in another group, or its exit will be told.
                dismiss(tracked)

    # --- what a group used --------------------------------------------------------------------------

    def _book(self, group: Group, tick: Walk, buried: Sequence[Group] = ()) -> None:
        own = group.own_seconds() - group.booked
        if own <= 0:
            return
        uses, explained = self._awake_use(group)
        skew = _SKEW_SECONDS if own <= tick.window else _SKEW_SECONDS * own / tick.window
        group.unexplained = max(-skew, group.unexplained + own - explained)
        if group.unexplained > skew and tick.now >= group.rescan_after:
            began = self._host.clock()
            uses += self._asleep_use(group)
            self._adopt(group, tick)
            uses += self._scan(group, tick)
            explained = sum([use.seconds for use in uses])
            own = group.own_seconds() - group.booked
            if tick.probes > 0:
                group.unexplained = 0.0
            share = _RESCAN_SHARE if group.parent else _ROOT_RESCAN_SHARE
            group.rescan_after = tick.now + (self._host.clock() - began) / share
            if own <= 0:
                return
        group.booked += own
        if explained > own:
            scale = own / explained
            uses = [ProcessUse(process, seconds * scale) for process, seconds in uses]
        if group.parent is None:
            self._settle_root(group, own, uses, buried, tick)
        elif buried and not uses and not group.has_user_process():
            self._settle_buried(own, buried, tick)
        else:
            tick.groups.append(GroupUse(group.key, own, tuple(uses)))

    def _settle_buried(self, own: float, buried: Sequence[Group], tick: Walk) -> None:
        """Nobody runs in a group but who ran in the children that just went: theirs is the rest (fault 38)."""
        if own > 0:
            lately = [lost for lost in buried if lost.quiet < _QUIET_READS] or buried
            tick.groups += [GroupUse(lost.key, own / len(lately), ()) for lost in lately]

    def _settle_root(
        self, root: Group, own: float, uses: list[ProcessUse], buried: Sequence[Group], tick: Walk
    ) -> None:
        """Part the root group's own use between kernel threads and the rest."""
        kernel = sum([use.seconds for use in uses if use.process.kernel])
        uses = [use for use in uses if not use.process.kernel]
        tick.kernel_seconds += kernel
        own -= kernel
        if uses or root.has_user_process():
            if own > 0:
                tick.groups.append(GroupUse(root.key, own, tuple(uses)))
        elif buried:
            self._settle_buried(own, buried, tick)
        else:
            # Nobody but the kernel lives in the root group: the rest is interrupts (fault 35).
            tick.kernel_seconds += own

    def _awake_use(self, group: Group) -> tuple[list[ProcessUse], float]:
        """CPU seconds of those members that were at work lately, and their sum; who was not for long falls asleep."""
        uses: list[ProcessUse] = []
        idle: list[int] = []
        gone: list[Tracked] = []
        total, used = 0.0, self._processes.used
        for pid, tracked in group.awake.items():
            seconds = used(tracked)
            if seconds:
                tracked.quiet = 0
                total += seconds
                uses.append(ProcessUse(tracked.process, seconds))
            elif seconds is None:
                gone.append(tracked)
            else:
                tracked.quiet += 1
                if tracked.quiet >= _QUIET_READS:
                    idle.append(pid)
        for pid in idle:
            group.asleep[pid] = group.awake.pop(pid)
        for tracked in gone:
            self._leave(tracked)
        return uses, total

    def _asleep_use(self, group: Group) -> list[ProcessUse]:
        """CPU seconds of the other members; who was at work is awake."""
        uses: list[ProcessUse] = []
        for pid, tracked in list(group.asleep.items()):
            seconds = self._processes.used(tracked)
            if seconds:
                tracked.quiet = 0
                group.awake[pid] = group.asleep.pop(pid)
                uses.append(ProcessUse(tracked.process, seconds))
            elif seconds is None:
                self._leave(tracked)
        return uses

    def _scan(self, group: Group, tick: Walk) -> list[ProcessUse]:
        """Read a group's member list: follow who is new, let go who left."""
        try:
            # Opened anew: a kept descriptor of v1's file shows a list that may be seconds old.
            pids = {int(pid) for pid in read_file(f"{group.directory}/cgroup.procs").split()} - {0}
        except (Unavailable, ValueError):
            return []
        known = group.awake | group.asleep
        for pid in known.keys() - pids:
            dismiss(known[pid])
        if tick.probes > 0:
            self._blind.discard(group)
        uses = []
        for pid in pids - known.keys():
            tracked = self._processes.find(pid)
            if tracked is None:
                if tick.probes <= 0:
                    continue
                tick.probes -= 1
                tracked = self._processes.follow(pid, self._last_at)
                if tracked is None:
                    if self._processes.is_hidden(pid):
                        self._blind.add(group)
                    continue
                self._young.append((tick.now, tracked))
            group.admit(tracked)
            seconds = self._processes.used(tracked)
            if seconds:
                uses.append(ProcessUse(tracked.process, seconds))
        return uses

    def _leave(self, tracked: Tracked) -> None:
        dismiss(tracked)
        self._processes.forget(tracked)
        self._exited.append(tracked.process.key)

    def _look_again(self, now: float) -> None:
        """Read names again that may have been seen between fork and exec."""
        while self._young and self._young[0][0] <= now - _YOUNG_SECONDS:
            tracked = self._young.popleft()[1]
            if self._processes.find(tracked.process.key.pid) is tracked:
                self._processes.rename(tracked)

    def _problems(self) -> tuple[Problem, ...]:
        if not self._blind:
            return ()
        return (
            Problem(
                "permission",
                "processes of other users are hidden (mount option hidepid of /proc)",
                "run as root, or add this user to the group that mount option gid= of /proc names",
            ),
        )
