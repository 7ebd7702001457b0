"""Busy seconds per cgroup, and per process inside it: cgroup v2, v1 (cpuacct) and hybrid hosts.

Usage counters of cgroups are hierarchical and keep the usage of exited processes and deleted children. So a group
whose counter did not change is skipped with everything below it, and its processes are read only when it changed: the
work per tick follows what is active, not what exists. Process and cgroup faults are numbers 34 to 44 of docs/faults.md.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Sequence

from ...host import Host
from ...records import CpuUse, GroupKey, GroupUse, Listing, ProcessUse, Reading, Unavailable
from .cgroup_members import Members
from .cgroup_tree import QUIET_READS, Group, Hierarchy, Walk, find_hierarchy, list_dirs
from .removals import Removals
from .shared_threads import elsewhere_seconds, find_shared, merge_uses

_FULL_WALK_SECONDS = 10.0
_PROBES_AT_FIRST = 100_000
_FIRST_SCAN_SECONDS = 0.2
_ROUNDING_SECONDS = 1e-6
_SKEW_SECONDS = 0.005
"""The counter of a group lags behind the clocks of its processes by up to one scheduler tick per running CPU."""

_RESCAN_SHARE = 0.01
"""Share of a CPU that may be spent on scanning one group for new members, so that a fork storm is bounded."""

_ROOT_RESCAN_SHARE = 0.001
"""The same for the root group, where interrupts leave unexplained usage in every tick."""


class CgroupSource:
    """CPU use by cgroup and process. The first read sets the baselines and reports which groups exist."""

    name = "cgroups"

    def __init__(self, host: Host) -> None:
        self._host = host
        self._members = Members(host)
        self._removals = Removals()
        self._hierarchy: Hierarchy | None = None
        self._root: Group | None = None
        self._links_count = False
        self._elsewhere_seconds = elsewhere_seconds(host.cpu_count())
        self._first_at = self._last_at = 0.0
        self._full_at = float("-inf")
        # Kept until a read succeeds and reports them.
        self._started: list[GroupKey] = []
        self._ended: list[GroupKey] = []

    def read(self, now: float) -> Reading:
        """Walk the groups that used CPU since the last call. Raises `Unavailable`."""
        tick = Walk(now, self._last_at, full=now - self._full_at >= _FULL_WALK_SECONDS)
        if self._root is None:
            self._mount(tick)
            return Reading(cpu=self._cpu_use(tick, 0.0))
        self._members.reap(thorough=tick.full)
        self._removals.read()
        try:
            if self._root.refresh() or tick.full:
                # The v2 root is counted in scheduler ticks, the groups below in nanoseconds, so over time these may
                # exceed it. The excess is dropped; otherwise it would hide the root's own usage for hours.
                self._root.attributed_seconds = min(self._root.attributed_seconds, self._root.own_seconds())
                self._visit(self._root, tick)
        except Unavailable as error:
            if error.reason == "not_found":
                self._unmount()
            raise
        if tick.shared or tick.empty:
            self._join_threads(tick)
        self._members.refresh_names(now)
        window, self._last_at = now - self._last_at, now
        if tick.full:
            self._full_at = now
        return Reading(cpu=self._cpu_use(tick, window), problems=self._members.problems())

    def close(self) -> None:
        """Close all descriptors."""
        if self._root is not None:
            for group in self._root.tree():
                group.close()
            self._root = None
        self._members.close()
        self._removals.close()

    def _cpu_use(self, tick: Walk, window_seconds: float) -> CpuUse:
        started, ended = self._started, self._ended
        self._started, self._ended = [], []
        if self._members.identities is not None:
            started += self._members.identities.take_started()
            ended += self._members.identities.take_ended()
        if started and ended:
            # Found again after the tree was unavailable for a moment: these groups did not end.
            again = set(started) & set(ended)
            started = [key for key in started if key not in again]
            ended = [key for key in ended if key not in again]
        return CpuUse(
            tick.now,
            window_seconds,
            sum([group.seconds for group in tick.groups]) + tick.kernel_seconds + tick.exited_seconds,
            tuple(tick.groups),
            tick.kernel_seconds,
            tick.exited_seconds,
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
        self._first_at = self._last_at = self._full_at = tick.now
        self._members.set_tree(self._hierarchy)
        self._discover(root, tick)
        # Opening the files took longer than reading them will. Read all again, so that from now on a group and its
        # children are read about the same time apart.
        groups = list(root.tree())
        for group in groups:
            with contextlib.suppress(Unavailable):
                group.refresh()
        for group in groups:
            group.attributed_seconds = group.own_seconds()
        # Follow the existing processes; those not reached in time are found when their group uses CPU.
        tick.groups, tick.kernel_seconds, tick.probes = [], 0.0, _PROBES_AT_FIRST
        until = self._host.clock() + _FIRST_SCAN_SECONDS
        for group in groups:
            if self._host.clock() > until:
                break
            self._members.scan(group, tick, self._last_at)
        self._members.forget_recent()
        self._join_threads(tick)

    def _unmount(self) -> None:
        assert self._root is not None
        self._remove(self._root)
        self._root = None

    def _discover(self, parent: Group, tick: Walk) -> None:
        """Find child groups that are not known yet, recursively.

        The usage of a new group is attributed to it, except for the part that was already attributed to its parent:
        none of it if the group was created since the last walk, all of it if the group is older.
        """
        assert self._hierarchy is not None
        try:
            status = os.stat(parent.directory)
            # A directory's link count is 2 + its subdirectories, on cgroupfs too: one stat shows if any is new.
            known = len(parent.children) + len(parent.joined)
            if self._links_count and status.st_nlink == known + 2:
                return
            names = list_dirs(parent.directory)
        except OSError:
            return
        if parent.parent is None:
            # Not so on overlayfs, btrfs and emulations of cgroupfs.
            self._links_count = bool(names) and status.st_nlink == len(names) + 2
        prefix = parent.key.path.rstrip("/")
        parent.joined.intersection_update(names)
        for name in names:
            if name in parent.children or name in parent.joined:
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
        if parent.children:
            self._removals.watch(parent)

    def _visit(self, group: Group, tick: Walk) -> None:
        """Attribute the usage of a group and of those below it. Raises `Unavailable` if it no longer exists."""
        if tick.full and not group.in_place():
            raise Unavailable("not_found", f"{group.directory}: replaced by another group")
        removed: list[Group] = []
        if group.children:
            gone, unread = self._visit_children(group, tick)
            if unread:
                # The usage of the group itself and of removed children is known once that child is read again.
                return
            for name in gone:
                child = group.children.pop(name)
                removed += [child] if self._removals.any_below(child) else child.leaves()
                self._removals.removed(group, name)
                self._remove(child)
                group.removed_seconds += sum([each.attributed_seconds + each.removed_seconds for each in child.tree()])
        if removed or tick.full:
            self._discover(group, tick)
        self._attribute(group, tick, removed)
        self._removals.settle(group)

    def _visit_children(self, group: Group, tick: Walk) -> tuple[list[str], bool]:
        """Visit the children that used CPU; returns the names of removed ones, and whether one that may have is unread.

        Children that were idle in the last reads are read only if the group's counter, which includes theirs, exceeds
        what the others explain by more than the rounding (1 us for each). A smaller rest waits for the next full walk
        and is attributed to no other group meanwhile. Children of the kernel's own root are always read, because its
        counter runs on another clock.
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

    def _join_threads(self, tick: Walk) -> None:
        """Make one group of those that contain threads of the same processes; see `find_shared`."""
        for parent, children in find_shared(tick, self._members, self._elsewhere_seconds).items():
            merge_uses(parent.key, {each.key for child in children for each in child.tree()}, tick)
            for child in children:
                parent.join(child)
                self._remove(child)

    def _remove(self, group: Group) -> None:
        for ended in group.tree():
            self._ended.append(ended.key)
            ended.close()
            self._removals.forget(ended)
            self._members.remove(ended)

    # --- what a group used --------------------------------------------------------------------------

    def _attribute(self, group: Group, tick: Walk, removed: Sequence[Group] = ()) -> None:
        own = group.own_seconds() - group.attributed_seconds
        if own <= 0:
            return
        own, uses, explained, listing = self._explain(group, own, tick)
        if own <= 0:
            return
        group.attributed_seconds += own
        if explained > own:
            scale = own / explained
            uses = [ProcessUse(process, seconds * scale) for process, seconds in uses]
        reaped = self._members.take_reaped(group, own - explained)
        if group.parent is None:
            self._attribute_root(group, GroupUse(group.key, own, tuple(uses), listing, reaped), removed, tick)
        elif removed and not uses and not group.has_user_process() and not self._removals.came_and_went(group):
            self._attribute_to_removed(own, removed, tick)
        else:
            self._add_use(GroupUse(group.key, own, tuple(uses), listing, reaped), tick)

    def _explain(self, group: Group, own: float, tick: Walk) -> tuple[float, list[ProcessUse], float, Listing]:
        """What a group used, its members, their sum, and whether all members that may have run are among them.

        ``own`` is what it used, with that of children that are found only now. It is scanned if it used more than the
        known members explain, unless the last scan cost so much that this one is put off.
        """
        uses, explained = self._members.active_use(group)
        if explained > own:
            group.elsewhere += explained - own
        elif group.elsewhere:
            group.elsewhere = max(0.0, group.elsewhere + explained - own)
        skew = _SKEW_SECONDS if own <= tick.window else _SKEW_SECONDS * own / tick.window
        group.unexplained = max(-skew, group.unexplained + own - explained)
        late = False
        if group.unexplained > skew:
            due = tick.full or tick.now >= group.rescan_after
            began = self._host.work()
            if due or self._links_count:
                self._discover(group, tick)
                own = group.own_seconds() - group.attributed_seconds
            if due:
                uses += self._members.idle_use(group)
                explained = sum([use.seconds for use in uses])
                found = self._members.scan(group, tick, self._first_at)
                uses += _within(found, own - explained)
                explained = sum([use.seconds for use in uses])
                if own - explained > skew:
                    self._members.read_children(uses)
                if tick.probes > 0:
                    group.unexplained = 0.0
                share = _RESCAN_SHARE if group.parent else _ROOT_RESCAN_SHARE
                group.rescan_after = tick.now + (self._host.work() - began) / share
            late = not due or tick.probes <= 0
        if self._members.is_partial(group):
            return own, uses, explained, "partial"
        return own, uses, explained, "late" if late else "complete"

    def _add_use(self, use: GroupUse, tick: Walk) -> None:
        identities = self._members.identities
        if identities is None:
            tick.groups.append(use)
        else:
            tick.groups += identities.divide(use)

    def _attribute_to_removed(self, own: float, removed: Sequence[Group], tick: Walk) -> None:
        """Attribute the remainder of a group without processes to the child cgroups that were just removed.

        If another one came and went unseen, it remains with the group itself: how much of it each of them used is
        not known.
        """
        if own > 0:
            recent = [ended for ended in removed if ended.quiet < QUIET_READS] or removed
            tick.groups += [GroupUse(ended.key, own / len(recent), ()) for ended in recent]

    def _attribute_root(self, root: Group, use: GroupUse, removed: Sequence[Group], tick: Walk) -> None:
        """Split the root group's own usage between kernel threads and its other processes."""
        kernel = sum([one.seconds for one in use.processes if one.process.kernel])
        users = tuple([one for one in use.processes if not one.process.kernel])
        tick.kernel_seconds += kernel
        own = use.seconds - kernel
        if users or root.has_user_process():
            if own > 0:
                self._add_use(GroupUse(root.key, own, users, use.listing, use.reaped), tick)
        elif removed and self._removals.came_and_went(root):
            tick.exited_seconds += own
        elif removed:
            self._attribute_to_removed(own, removed, tick)
        else:
            # The root group contains only kernel threads: the rest is the time of interrupt handlers.
            tick.kernel_seconds += own


def _within(found: list[ProcessUse], seconds: float) -> list[ProcessUse]:
    """Limit the CPU time of new members to what their group used beyond the others.

    It is all that they used since they started, because so far none of it was attributed to them. What exceeds the
    limit was attributed to the group earlier, or to the group that they came from; they are listed nevertheless.
    """
    total = sum([use.seconds for use in found])
    if total <= seconds:
        return found
    return [ProcessUse(process, used * max(0.0, seconds) / total) for process, used in found]
