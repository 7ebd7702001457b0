"""Busy seconds per cgroup, and per process inside it: cgroup v2, v1 (cpuacct) and hybrid hosts.

Usage counters of cgroups are hierarchical and keep what exited processes and deleted children used. So a
group that did not move is skipped with everything below it, and its processes are looked at only when it
moved: work follows what is active, not what exists.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Sequence

from ...host import Host
from ...records import CpuUse, GroupKey, GroupUse, ProcessUse, Reading, Unavailable
from .cgroup_members import Members
from .cgroup_tree import QUIET_READS, Group, Hierarchy, Walk, find_hierarchy, list_dirs

_FULL_WALK_SECONDS = 10.0
_HYBRID_CHECK_SECONDS = 60.0
_PROBES_AT_FIRST = 100_000
_FIRST_SCAN_SECONDS = 0.2
_ROUNDING_SECONDS = 1e-6
_SKEW_SECONDS = 0.005
"""A group's counter lags behind its processes' clocks by up to one scheduler tick per running CPU."""

_RESCAN_SHARE = 0.01
"""Share of the time that may be spent on looking for new members of one group (fault 36)."""

_ROOT_RESCAN_SHARE = 0.001
"""The same for the root group, where interrupts leave something unexplained on every tick."""


class CgroupSource:
    """CPU use by cgroup and process. The first read only sets baselines and tells which groups exist."""

    name = "cgroups"

    def __init__(self, host: Host) -> None:
        self._host = host
        self._members = Members(host)
        self._hierarchy: Hierarchy | None = None
        self._root: Group | None = None
        self._links_count = False
        self._last_at = 0.0
        self._full_at = float("-inf")
        self._hybrid_at = 0.0
        # What came and went stays here until a read succeeds and tells it.
        self._started: list[GroupKey] = []
        self._ended: list[GroupKey] = []

    def read(self, now: float) -> Reading:
        """Walk what moved since the last call. Raises `Unavailable`."""
        tick = Walk(now, self._last_at, full=now - self._full_at >= _FULL_WALK_SECONDS)
        if self._root is not None and self._other_tree_is_fuller(now):
            self._unmount()
        if self._root is None:
            self._mount(tick)
            return Reading(cpu=self._cpu_use(tick, 0.0))
        self._members.reap(thorough=tick.full)
        try:
            if self._root.refresh() or tick.full:
                # The v2 root is counted in scheduler ticks, the groups below in nanoseconds: these may show more
                # in the long run. That is forgotten, lest it swallows the root's own use for hours.
                self._root.attributed_seconds = min(self._root.attributed_seconds, self._root.own_seconds())
                self._visit(self._root, tick)
        except Unavailable as error:
            if error.reason == "not_found":
                self._unmount()
            raise
        self._members.refresh_names(now)
        window, self._last_at = now - self._last_at, now
        if tick.full:
            self._full_at = now
        return Reading(cpu=self._cpu_use(tick, window), problems=self._members.problems())

    def close(self) -> None:
        """Give back all descriptors."""
        if self._root is not None:
            for group in self._root.tree():
                group.close()
            self._root = None
        self._members.close()

    def _cpu_use(self, tick: Walk, window_seconds: float) -> CpuUse:
        started, ended = self._started, self._ended
        self._started, self._ended = [], []
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
            self._members.take_exited(),
        )

    # --- the tree -----------------------------------------------------------------------------------

    def _mount(self, tick: Walk) -> None:
        self._hierarchy = find_hierarchy(self._host)
        self._links_count = False
        root = self._root = Group(self._host, self._hierarchy, "/", None)
        self._started.append(root.key)
        root.attributed_seconds = root.usage
        self._last_at = self._full_at = self._hybrid_at = tick.now
        self._discover(root, tick)
        # Opening them took longer than reading them will: read all again, so that the time between a group's
        # reading and its children's is from now on about the same.
        groups = list(root.tree())
        for group in groups:
            with contextlib.suppress(Unavailable):
                group.refresh()
        for group in groups:
            group.attributed_seconds = group.own_seconds()
        # Who is there already is known from now on; what is not reached in time is found when it moves.
        tick.groups, tick.kernel_seconds, tick.probes = [], 0.0, _PROBES_AT_FIRST
        until = self._host.clock() + _FIRST_SCAN_SECONDS
        for group in groups:
            if self._host.clock() > until:
                break
            self._members.scan(group, tick, self._last_at)
        self._members.forget_recent()

    def _unmount(self) -> None:
        assert self._root is not None
        self._remove(self._root)
        self._root = None

    def _other_tree_is_fuller(self, now: float) -> bool:
        """On a hybrid host, whether the other tree is now the one that engines fill."""
        assert self._hierarchy is not None
        if not self._hierarchy.hybrid or now - self._hybrid_at < _HYBRID_CHECK_SECONDS:
            return False
        self._hybrid_at = now
        try:
            return find_hierarchy(self._host).root != self._hierarchy.root
        except Unavailable:
            return False

    def _discover(self, parent: Group, tick: Walk) -> None:
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
            unattributed = max(0.0, parent.own_seconds() - parent.attributed_seconds)
            child.attributed_seconds = max(0.0, child.usage - unattributed)
            parent.attributed_seconds -= child.attributed_seconds
            parent.children[name] = child
            self._started.append(child.key)
            self._discover(child, tick)
            self._attribute(child, tick)

    def _visit(self, group: Group, tick: Walk) -> None:
        """Book what a group that moved and those below it used. Raises `Unavailable` if it is gone."""
        if tick.full and not group.in_place():
            raise Unavailable("not_found", f"{group.directory}: another group has its place")
        removed: list[Group] = []
        if group.children:
            gone, unread = self._visit_children(group, tick)
            if unread:
                # What is the group's own, or was of those that are gone, shows once that child is read again.
                return
            for name in gone:
                child = group.children.pop(name)
                self._remove(child)
                group.removed_seconds += sum([each.attributed_seconds + each.removed_seconds for each in child.tree()])
                removed += child.leaves()
        if removed or tick.full:
            self._discover(group, tick)
        self._attribute(group, tick, removed)

    def _visit_children(self, group: Group, tick: Walk) -> tuple[list[str], bool]:
        """Visit those that moved; returns the names of those that are gone, and whether one is unread that may have.

        Those that stood still lately are read only if the group's own counter shows more than the others explain:
        it includes theirs, to the microsecond by which each is rounded. Less waits for the next full walk, and is
        nobody else's meanwhile. The kernel's own root says nothing of them: its counter has another clock.
        """
        active: list[tuple[str, Group]] = []
        idle: list[tuple[str, Group]] = []
        for item in group.children.items():
            (idle if item[1].quiet >= QUIET_READS else active).append(item)
        gone, unread = self._visit_each(active, tick)
        rounding = _ROUNDING_SECONDS * len(group.children)
        if idle and (
            tick.full or gone or group.kernel_root or group.own_seconds() - group.attributed_seconds > rounding
        ):
            more, more_unread = self._visit_each(idle, tick)
            return gone + more, unread or more_unread
        return gone, unread or bool(idle)

    def _visit_each(self, children: Iterable[tuple[str, Group]], tick: Walk) -> tuple[list[str], bool]:
        gone, unread = [], False
        for name, child in children:
            try:
                moved = child.refresh()
                if tick.full or (moved and child.children):
                    self._visit(child, tick)
                elif moved:
                    self._attribute(child, tick)
            except Unavailable as error:
                if error.reason == "not_found":
                    gone.append(name)
                else:
                    unread = True
        return gone, unread

    def _remove(self, group: Group) -> None:
        for ended in group.tree():
            self._ended.append(ended.key)
            ended.close()
            self._members.remove(ended)

    # --- what a group used --------------------------------------------------------------------------

    def _attribute(self, group: Group, tick: Walk, removed: Sequence[Group] = ()) -> None:
        own = group.own_seconds() - group.attributed_seconds
        if own <= 0:
            return
        uses, explained = self._members.active_use(group)
        skew = _SKEW_SECONDS if own <= tick.window else _SKEW_SECONDS * own / tick.window
        group.unexplained = max(-skew, group.unexplained + own - explained)
        if group.unexplained > skew and tick.now >= group.rescan_after:
            began = self._host.clock()
            uses += self._members.idle_use(group)
            self._discover(group, tick)
            uses += self._members.scan(group, tick, self._last_at)
            explained = sum([use.seconds for use in uses])
            own = group.own_seconds() - group.attributed_seconds
            if tick.probes > 0:
                group.unexplained = 0.0
            share = _RESCAN_SHARE if group.parent else _ROOT_RESCAN_SHARE
            group.rescan_after = tick.now + (self._host.clock() - began) / share
            if own <= 0:
                return
        group.attributed_seconds += own
        if explained > own:
            scale = own / explained
            uses = [ProcessUse(process, seconds * scale) for process, seconds in uses]
        if group.parent is None:
            self._attribute_root(group, own, uses, removed, tick)
        elif removed and not uses and not group.has_user_process():
            self._attribute_to_removed(own, removed, tick)
        else:
            tick.groups.append(GroupUse(group.key, own, tuple(uses)))

    def _attribute_to_removed(self, own: float, removed: Sequence[Group], tick: Walk) -> None:
        """Nobody runs in a group but who ran in the children that just went: theirs is the rest (fault 38)."""
        if own > 0:
            recent = [ended for ended in removed if ended.quiet < QUIET_READS] or removed
            tick.groups += [GroupUse(ended.key, own / len(recent), ()) for ended in recent]

    def _attribute_root(
        self, root: Group, own: float, uses: list[ProcessUse], removed: Sequence[Group], tick: Walk
    ) -> None:
        """Part the root group's own use between kernel threads and the rest."""
        kernel = sum([use.seconds for use in uses if use.process.kernel])
        uses = [use for use in uses if not use.process.kernel]
        tick.kernel_seconds += kernel
        own -= kernel
        if uses or root.has_user_process():
            if own > 0:
                tick.groups.append(GroupUse(root.key, own, tuple(uses)))
        elif removed:
            self._attribute_to_removed(own, removed, tick)
        else:
            # Nobody but the kernel lives in the root group: the rest is interrupts (fault 35).
            tick.kernel_seconds += own
