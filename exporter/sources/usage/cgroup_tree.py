"""A tree of cgroups and the CPU time each of them counted: v2 (cpu.stat), v1 (cpuacct.usage), hybrid hosts."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from typing import NamedTuple

from ...host import Host, KeptFile, read_file, unavailable
from ...records import GroupKey, GroupUse, ProcessUse, Unavailable
from .process_clock import Tracked


class Hierarchy(NamedTuple):
    """A mounted cgroup tree: root directory, the file that counts CPU time, and that file's units per second."""

    root: str
    file: str
    per_second: float
    hybrid: bool = False

    @property
    def one_of_several(self) -> bool:
        """Whether processes are in other trees as well, where they may have other groups."""
        return self.hybrid or self.file == _V1[0]


QUIET_READS = 3
"""Consecutive readings without change after which a group or process counts as idle."""

_PROBES_PER_TICK = 512
_V2 = ("cpu.stat", 1e6)
_V1 = ("cpuacct.usage", 1e9)


def find_hierarchy(host: Host) -> Hierarchy:
    """Find the tree that counts CPU time per cgroup. Raises `Unavailable`.

    ``host.cgroupfs`` may be a cgroup2 tree, a cpuacct tree or the directory that contains both. On a hybrid host
    (systemd's "hybrid" layout) the tree with more groups is used: old engines create groups only in v1, and systemd
    without CPU accounting only in v2. Names that only the other tree has come from each process (`Identities`).
    """
    base = host.cgroupfs or host.sys("fs/cgroup")
    if _counts_v2(base):
        return Hierarchy(base, *_V2)
    if _counts_v1(base):
        return Hierarchy(base, *_V1)
    v1 = next((f"{base}/{name}" for name in ("cpuacct", "cpu,cpuacct") if _counts_v1(f"{base}/{name}")), None)
    v2 = f"{base}/unified" if _counts_v2(f"{base}/unified") else None
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


def _counts_v1(directory: str) -> bool:
    """Whether a cpuacct tree counts CPU time there."""
    return os.path.exists(f"{directory}/{_V1[0]}")


def _counts_v2(directory: str) -> bool:
    """Whether a cgroup2 tree counts CPU time there, as its root does since Linux 5.8.

    The cpu controller of v1 has a ``cpu.stat`` too, which begins with ``nr_periods``.
    """
    try:
        text = read_file(f"{directory}/{_V2[0]}", 32)
    except Unavailable:
        return False
    return text.startswith(b"usage_usec ") or os.path.exists(f"{directory}/cgroup.controllers")


def _count_groups(root: str, most: int = 5000) -> int:
    """Number of groups, up to about ``most``; a directory with a link count of 2 is a leaf and is not listed."""
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


class Walk:
    """What one walk over the tree finds; ``probes`` is how many unknown processes it may still open.

    ``window`` is the seconds since the last walk. A ``full`` walk reads every group, even if its parent used no CPU.
    ``shared`` are pairs of groups that threads of one process are in, ``empty`` the groups that run without a process
    below one that has some, ``clocks`` what the processes of the latter used.
    """

    __slots__ = (
        "clocks",
        "empty",
        "exited_seconds",
        "full",
        "groups",
        "kernel_seconds",
        "now",
        "probes",
        "shared",
        "window",
    )

    def __init__(self, now: float, since: float, *, full: bool) -> None:
        self.now = now
        self.window = max(now - since, 1e-3)
        self.full = full
        self.groups: list[GroupUse] = []
        self.kernel_seconds = 0.0
        self.exited_seconds = 0.0
        self.probes = _PROBES_PER_TICK
        self.shared: list[tuple[Group, Group]] = []
        self.empty: list[Group] = []
        self.clocks: dict[GroupKey, list[ProcessUse]] = {}


class Group:
    """One cgroup: its last usage, how much of that was attributed to itself, and its processes. Times in seconds.

    ``usage`` is ``base`` + the counter and never decreases. ``attributed_seconds`` is the part of it attributed to the
    group itself, ``removed_seconds`` the part attributed to children that no longer exist.
    ``kernel_root`` marks the kernel's own root: v2 counts it in scheduler ticks, on another clock than the groups
    below. ``quiet`` counts consecutive readings without change. ``active`` holds the processes that ran recently, by
    pid; ``idle`` the others. ``joined`` are directories below that count as this group itself, because they contain
    only threads of its processes. ``elsewhere`` is the time of its processes that its own counter does not contain.
    """

    __slots__ = (
        "_counter",
        "_file",
        "_per_second",
        "_raw",
        "active",
        "attributed_seconds",
        "base",
        "children",
        "directory",
        "elsewhere",
        "idle",
        "joined",
        "kernel_root",
        "key",
        "parent",
        "quiet",
        "removed_seconds",
        "rescan_after",
        "unexplained",
        "usage",
    )

    def __init__(self, host: Host, tree: Hierarchy, path: str, parent: Group | None) -> None:
        """Open its counter. Raises `Unavailable`."""
        self.directory = tree.root + path.rstrip("/")
        self.parent = parent
        self.children: dict[str, Group] = {}
        self.active: dict[int, Tracked] = {}
        self.idle: dict[int, Tracked] = {}
        self.base = 0.0
        self.usage = 0.0
        self.attributed_seconds = 0.0
        self.removed_seconds = 0.0
        self.unexplained = 0.0
        self.elsewhere = 0.0
        self.joined: set[str] = set()
        self.quiet = 0
        self.rescan_after = 0.0
        self._raw = b""
        self._per_second = tree.per_second
        # On v2 every group except the kernel's own root has this file; on v1 no group has it.
        self.kernel_root = parent is None and not os.path.exists(f"{self.directory}/cgroup.events")
        self._file: KeptFile = host.keep(f"{self.directory}/{tree.file}")
        self._counter = self._file.reader(48 if parent is not None else 128)
        inode = self.inode()
        if inode is None:
            self._file.close()
            raise Unavailable("not_found", self.directory)
        self.key = GroupKey(path, inode)
        with contextlib.ExitStack() as opened:
            opened.callback(self._file.close)
            self.refresh()
            opened.pop_all()

    def refresh(self) -> bool:
        """Read its usage; False if unchanged. Raises `Unavailable`, with ``not_found`` if it no longer exists."""
        try:
            raw = self._counter()
        except OSError as error:
            raise unavailable(error, self._file.path) from None
        if raw == self._raw:
            self.quiet += 1
            return False
        try:
            if raw[:1] != b"u":
                count = int(raw)
            elif self.parent is None and len(words := raw.split(None, 6)) >= 6:
                # Before Linux 6.14 the root's usage_usec includes time stolen by the hypervisor; user + system do not.
                count = int(words[3]) + int(words[5])
            else:
                count = int(raw.split(None, 2)[1])
        except (ValueError, IndexError):
            raise Unavailable("implausible", f"{self._file.path}: {raw!r}") from None
        self._raw = raw
        usage = self.base + count / self._per_second
        if usage < self.usage:
            if not self.in_place():
                # Read by path (no descriptor left), and the path now belongs to a new group of the same name.
                raise Unavailable("not_found", f"{self.directory}: replaced by another group")
            # cpuacct.usage was reset by writing 0: continue from the present total.
            self.base += self.usage - usage
            return False
        self.usage = usage
        self.quiet = 0
        return True

    def own_seconds(self) -> float:
        """CPU seconds so far of the group itself, children excluded."""
        if not self.children:
            return self.usage - self.removed_seconds
        return self.usage - self.removed_seconds - sum([child.usage for child in self.children.values()])

    def inode(self) -> int | None:
        """Inode of its directory; None if it does not exist."""
        try:
            return os.stat(self.directory).st_ino
        except OSError:
            return None

    def in_place(self) -> bool:
        """Whether its path still belongs to this group."""
        return self.inode() == self.key.inode

    def tree(self) -> Iterator[Group]:
        """This group and all below it."""
        yield self
        for child in self.children.values():
            yield from child.tree()

    def leaves(self) -> list[Group]:
        """The groups of its tree that have no children."""
        return [group for group in self.tree() if not group.children]

    def members(self) -> Iterator[Tracked]:
        """Every process known to be in it."""
        yield from self.active.values()
        yield from self.idle.values()

    def has_user_process(self) -> bool:
        """Whether a process other than a kernel thread is known to be in it."""
        return any(not member.process.kernel for member in self.members())

    def attach(self, tracked: Tracked) -> None:
        """Make a process a member of this group and of no other: one that moves is charged once."""
        detach(tracked)
        tracked.group = self
        self.active[tracked.process.key.pid] = tracked

    def join(self, child: Group) -> None:
        """Count a child as this group itself from now on, with its processes and what was attributed to it."""
        name = child.key.path.rpartition("/")[2]
        del self.children[name]
        self.joined.add(name)
        for each in child.tree():
            self.attributed_seconds += each.attributed_seconds + each.removed_seconds
            for tracked in list(each.members()):
                self.attach(tracked)

    def close(self) -> None:
        """Close its descriptor."""
        self._file.close()


def detach(tracked: Tracked) -> None:
    """Remove a process from its group, if it has one."""
    if isinstance(tracked.group, Group):
        tracked.group.active.pop(tracked.process.key.pid, None)
        tracked.group.idle.pop(tracked.process.key.pid, None)
        tracked.group = None
