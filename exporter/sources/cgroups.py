"""Busy seconds per cgroup, and per process inside it: cgroup v2, v1 (cpuacct) and hybrid hosts.

Usage counters of cgroups are hierarchical and keep what exited processes and deleted children used. So a
group that did not move is skipped with everything below it, and its processes are looked at only when it
moved: work follows what is active, not what exists.
"""

from __future__ import annotations

import contextlib
import os
from collections import deque
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from ..host import Host, KeptFile, read_file
from ..records import CpuUse, GroupKey, GroupUse, Problem, ProcessKey, ProcessUse, Reading, Unavailable
from .processes import ProcessTable, Tracked

_FULL_WALK_SECONDS = 10.0
_HYBRID_CHECK_SECONDS = 60.0
_PROBES_PER_TICK = 512
_QUIET_READS = 3
_SKEW_SECONDS = 0.005
"""A group's counter lags behind its processes' clocks by up to one scheduler tick per running CPU."""

_RESCAN_SHARE = 0.01
"""Share of the time that may be spent on looking for new members of one group (fault 36)."""

_ROOT_RESCAN_SHARE = 0.001
"""The same for the root group, where interrupts leave something unexplained on every tick."""

_YOUNG_SECONDS = 5.0


class Hierarchy(NamedTuple):
    """A mounted cgroup tree: its root directory, the file that counts CPU time and how many of its units are 1 s."""

    root: str
    file: str
    per_second: float
    hybrid: bool = False


_V2 = ("cpu.stat", 1e6)
_V1 = ("cpuacct.usage", 1e9)


def find_hierarchy(host: Host) -> Hierarchy:
    """Find where CPU time per cgroup is counted. Raises `Unavailable`.

    ``host.cgroupfs`` may name a cgroup2 tree, a cpuacct tree or the directory that holds both. On a hybrid
    host (systemd's "hybrid" layout) the tree with more groups is taken: old engines fill only v1, and
    systemd without CPU accounting fills only v2.
    """
    base = host.cgroupfs or host.sys("fs/cgroup")
    if _counts(base, *_V2):
        return Hierarchy(base, *_V2)
    if _counts(base, *_V1):
        return Hierarchy(base, *_V1)
    v1 = next((f"{base}/{name}" for name in ("cpuacct", "cpu,cpuacct") if _counts(f"{base}/{name}", *_V1)), None)
    v2 = f"{base}/unified" if _counts(f"{base}/unified", *_V2) else None
    if v1 is not None and v2 is not None:
        more_v2 = _count_groups(v2) > _count_groups(v1)
        return Hierarchy(v2, *_V2, hybrid=True) if more_v2 else Hierarchy(v1, *_V1, hybrid=True)
    if v1 is not None:
        return Hierarchy(v1, *_V1)
    if v2 is not None:
        return Hierarchy(v2, *_V2)
    raise Unavailable(
        "not_found",
        f"{base}: no cgroup2 and no cpuacct tree",
        "mount the host's /sys/fs/cgroup and point --path.cgroupfs at it",
    )


def list_dirs(path: str) -> list[str]:
    """Names of the directories in a directory, sorted. Raises OSError."""
    with os.scandir(path) as entries:
        return sorted(entry.name for entry in entries if entry.is_dir(follow_symlinks=False))


def _counts(directory: str, file: str, _per_second: float) -> bool:
    """Whether CPU time is counted there; the v2 root itself counts it since Linux 5.8."""
    return os.path.exists(f"{directory}/{file}")


def _count_groups(root: str, most: int = 5000) -> int:
    """How many groups there are, up to about ``most``; a link count of 2 spares the look into a leaf."""
    count, ahead = 0, [root]
    while ahead and count < most:
        directory = ahead.pop()
        count += 1
        try:
            if os.stat(directory).st_nlink != 2 or directory == root:
                ahead += [f"{directory}/{name}" for name in list_dirs(directory)]
        except OSError:
            continue
    return count


class _Group:
    """One cgroup: last usage, what of it was booked as its own, and its processes. All in seconds.

    ``usage`` is ``base`` + the counter and never falls; ``buried`` is what was booked for children that are gone.
    """

    __slots__ = (
        "base",
        "booked",
        "buried",
        "children",
        "directory",
        "file",
        "key",
        "members",
        "parent",
        "raw",
        "rescan_after",
        "unexplained",
        "usage",
    )

    def __init__(self, key: GroupKey, directory: str, parent: _Group | None, file: KeptFile) -> None:
        self.key = key
        self.directory = directory
        self.parent = parent
        self.file = file
        self.children: dict[str, _Group] = {}
        self.members: dict[int, Tracked] = {}
        self.raw = b""
        self.base = 0.0
        self.usage = 0.0
        self.booked = 0.0
        self.buried = 0.0
        self.unexplained = 0.0
        self.rescan_after = 0.0

    def own_seconds(self) -> float:
        """CPU seconds so far of the group itself, children excluded."""
        return self.usage - self.buried - sum([child.usage for child in self.children.values()])

    def tree(self) -> Iterator[_Group]:
        """This group and all below it."""
        yield self
        for child in self.children.values():
            yield from child.tree()

    def leaves(self) -> list[_Group]:
        """Those of its tree that have no children."""
        return [group for group in self.tree() if not group.children]

    def has_user_process(self) -> bool:
        """Whether anybody but the kernel is known to live in it."""
        return any(not member.process.kernel for member in self.members.values())


class _Tick:
    """What one walk finds."""

    __slots__ = ("full", "groups", "kernel_seconds", "now", "probes")

    def __init__(self, now: float, *, full: bool) -> None:
        self.now = now
        self.full = full
        self.groups: list[GroupUse] = []
        self.kernel_seconds = 0.0
        self.probes = _PROBES_PER_TICK


class CgroupSource:
    """CPU use by cgroup and process. The first read only sets baselines and tells which groups exist."""

    name = "cgroups"

    def __init__(self, host: Host) -> None:
        self._host = host
        self._processes = ProcessTable(host)
        self._hierarchy: Hierarchy | None = None
        self._root: _Group | None = None
        self._links_count = False
        self._last_at = 0.0
        self._full_at = float("-inf")
        self._hybrid_at = 0.0
        self._young: deque[tuple[float, Tracked]] = deque()
        self._blind: set[_Group] = set()
        # What came and went stays here until a read succeeds and tells it.
        self._started: list[GroupKey] = []
        self._ended: list[GroupKey] = []
        self._exited: list[ProcessKey] = []

    def read(self, now: float) -> Reading:
        """Walk what moved since the last call. Raises `Unavailable`."""
        tick = _Tick(now, full=now - self._full_at >= _FULL_WALK_SECONDS)
        if self._root is not None and self._has_moved(now):
            self._unmount()
        if self._root is None:
            self._mount(tick)
            return Reading(cpu=self._told(tick, 0.0))
        for tracked in self._processes.exited(thorough=tick.full):
            self._leave(tracked)
        try:
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
                group.file.close()
            self._root = None
        self._processes.close()

    def _told(self, tick: _Tick, window_seconds: float) -> CpuUse:
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

    def _mount(self, tick: _Tick) -> None:
        self._hierarchy = find_hierarchy(self._host)
        self._links_count = False
        root = self._open("/", self._hierarchy.root, None)
        try:
            self._usage(root)
        except Unavailable:
            root.file.close()
            raise
        self._root = root
        self._started.append(root.key)
        root.booked = root.usage
        self._adopt(root, tick)
        # Opening them took longer than reading them will: read all again, so that the time between a group's
        # reading and its children's is from now on about the same.
        groups = list(root.tree())
        for group in groups:
            with contextlib.suppress(Unavailable):
                self._usage(group)
        for group in groups:
            group.booked = group.own_seconds()
        self._last_at = self._full_at = self._hybrid_at = tick.now

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

    def _open(self, path: str, directory: str, parent: _Group | None) -> _Group:
        assert self._hierarchy is not None
        file = self._host.keep(f"{directory}/{self._hierarchy.file}")
        inode = _inode(directory)
        if inode is None:
            file.close()
            raise Unavailable("not_found", directory)
        return _Group(GroupKey(path, inode), directory, parent, file)

    def _usage(self, group: _Group) -> bool:
        """Read a group's usage; False if it did not move. Raises `Unavailable`: with ``not_found`` it is gone."""
        root = group.parent is None
        raw = group.file.read(128 if root else 48)
        if raw == group.raw:
            return False
        assert self._hierarchy is not None
        try:
            if raw[:1] != b"u":
                count = int(raw)
            elif root and len(words := raw.split(None, 6)) >= 6:
                # Before Linux 6.14 the root's usage_usec includes what the hypervisor stole; user + system do not.
                count = int(words[3]) + int(words[5])
            else:
                count = int(raw.split(None, 2)[1])
        except (ValueError, IndexError):
            raise Unavailable("implausible", f"{group.file.path}: {raw!r}") from None
        group.raw = raw
        usage = group.base + count / self._hierarchy.per_second
        if usage < group.usage:
            if _inode(group.directory) != group.key.inode:
                # Read by path (no descriptor to spare): a new group of the same name has its place (fault 39).
                raise Unavailable("not_found", f"{group.directory}: another group has its place")
            # Somebody wrote 0 to cpuacct.usage: go on from here.
            group.base += group.usage - usage
            return False
        group.usage = usage
        return True

    def _adopt(self, parent: _Group, tick: _Tick) -> None:
        """Find child groups that are not known yet, and theirs.

        What a new one used so far is booked now, less what its parent has booked as its own before: of one that
        was born since the last walk that is nothing, of one that is older it is all.
        """
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
                child = self._open(f"{prefix}/{name}", f"{parent.directory}/{name}", parent)
            except Unavailable:
                continue
            try:
                self._usage(child)
            except Unavailable:
                child.file.close()
                continue
            unbooked = max(0.0, parent.own_seconds() - parent.booked)
            child.booked = max(0.0, child.usage - unbooked)
            parent.booked -= child.booked
            parent.children[name] = child
            self._started.append(child.key)
            self._adopt(child, tick)
            self._book(child, tick)

    def _visit(self, group: _Group, tick: _Tick) -> None:
        """Book what a group and those below it used since the last walk. Raises `Unavailable` if it is gone."""
        if not self._usage(group) and not tick.full:
            return
        if tick.full and _inode(group.directory) != group.key.inode:
            raise Unavailable("not_found", f"{group.directory}: another group has its place")
        if group.parent is None:
            # The v2 root is counted in scheduler ticks, the groups below in nanoseconds: these may show more in
            # the long run. That is forgotten, lest it swallows the root's own use for hours.
            group.booked = min(group.booked, group.own_seconds())
        buried: list[_Group] = []
        unread = False
        for name, child in list(group.children.items()):
            try:
                self._visit(child, tick)
            except Unavailable as error:
                if error.reason != "not_found":
                    unread = True
                    continue
                del group.children[name]
                self._bury(child)
                group.buried += sum([lost.booked + lost.buried for lost in child.tree()])
                buried += child.leaves()
        if unread:
            # What is the group's own shows once that child can be read again: its next reading covers both ticks.
            return
        if buried or tick.full:
            self._adopt(group, tick)
        self._book(group, tick, buried)

    def _bury(self, group: _Group) -> None:
        for lost in group.tree():
            self._ended.append(lost.key)
            self._blind.discard(lost)
            lost.file.close()
            for tracked in lost.members.values():
                # It moved and will be found in another group, or its exit will be told.
                tracked.home = None

    # --- what a group used --------------------------------------------------------------------------

    def _book(self, group: _Group, tick: _Tick, buried: Sequence[_Group] = ()) -> None:
        own = group.own_seconds() - group.booked
        if own <= 0:
            return
        uses = self._members_use(group, quiet=False)
        skew = _SKEW_SECONDS * max(1.0, own / max(tick.now - self._last_at, 1e-3))
        group.unexplained = max(-skew, group.unexplained + own - sum([use.seconds for use in uses]))
        if group.unexplained > skew and tick.now >= group.rescan_after:
            began = self._host.clock()
            uses += self._members_use(group, quiet=True)
            self._adopt(group, tick)
            uses += self._scan(group, tick)
            own = group.own_seconds() - group.booked
            group.unexplained = 0.0
            share = _RESCAN_SHARE if group.parent else _ROOT_RESCAN_SHARE
            group.rescan_after = tick.now + (self._host.clock() - began) / share
        if own > 0:
            group.booked += own
            self._settle(group, own, uses, buried, tick)

    def _settle(self, group: _Group, own: float, uses: list[ProcessUse], buried: Sequence[_Group], tick: _Tick) -> None:
        explained = sum([use.seconds for use in uses])
        if explained > own:
            scale = own / explained
            uses = [ProcessUse(process, seconds * scale) for process, seconds in uses]
        if group.parent is None:
            kernel = sum([use.seconds for use in uses if use.process.kernel])
            uses = [use for use in uses if not use.process.kernel]
            tick.kernel_seconds += kernel
            own -= kernel
        if not uses and (buried or group.parent is None) and not group.has_user_process():
            if buried:
                # Nobody runs in it but who ran in the children that just went (fault 38): theirs is the rest.
                tick.groups += [GroupUse(lost.key, own / len(buried), ()) for lost in buried if own > 0]
            else:
                # Nobody but the kernel lives in the root group: the rest is interrupts (fault 35).
                tick.kernel_seconds += own
        elif own > 0:
            tick.groups.append(GroupUse(group.key, own, tuple(uses)))

    def _members_use(self, group: _Group, *, quiet: bool) -> list[ProcessUse]:
        """CPU seconds of members: of those at work lately, or of the ``quiet`` rest."""
        uses: list[ProcessUse] = []
        used, gone = self._processes.used, []
        for tracked in group.members.values():
            if (tracked.quiet >= _QUIET_READS) is not quiet:
                continue
            seconds = used(tracked)
            if seconds:
                tracked.quiet = 0
                uses.append(ProcessUse(tracked.process, seconds))
            elif seconds is None:
                gone.append(tracked)
            else:
                tracked.quiet += 1
        for tracked in gone:
            self._leave(tracked)
        return uses

    def _scan(self, group: _Group, tick: _Tick) -> list[ProcessUse]:
        """Read a group's member list: follow who is new, let go who left."""
        try:
            # Opened anew: a kept descriptor of v1's file shows a list that may be seconds old.
            pids = {int(pid) for pid in read_file(f"{group.directory}/cgroup.procs").split()} - {0}
        except (Unavailable, ValueError):
            return []
        for pid in group.members.keys() - pids:
            group.members.pop(pid).home = None
        if tick.probes > 0:
            self._blind.discard(group)
        uses = []
        for pid in pids - group.members.keys():
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
            self._move(tracked, group)
            seconds = self._processes.used(tracked)
            if seconds:
                uses.append(ProcessUse(tracked.process, seconds))
        return uses

    def _move(self, tracked: Tracked, group: _Group) -> None:
        """Make a process a member of one group only (fault 41)."""
        if isinstance(tracked.home, _Group):
            tracked.home.members.pop(tracked.process.key.pid, None)
        tracked.home = group
        group.members[tracked.process.key.pid] = tracked

    def _leave(self, tracked: Tracked) -> None:
        if isinstance(tracked.home, _Group):
            tracked.home.members.pop(tracked.process.key.pid, None)
            tracked.home = None
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


def _inode(directory: str) -> int | None:
    try:
        return os.stat(directory).st_ino
    except OSError:
        return None
