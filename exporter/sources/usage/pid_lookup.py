"""Resolves the pids that a GPU driver reports to processes and cgroups, from the host's /proc."""

from __future__ import annotations

import os
from collections import deque
from typing import NamedTuple

from ...host import Host, read_file
from ...records import GroupKey, Process, Unavailable
from .cgroup_tree import Hierarchy, find_hierarchy, list_dirs
from .identity import counting_path, group_without_tree, identity_path
from .process_clock import parse_stat

_GROUP_SECONDS = 10.0
"""How long the cgroup of a process is cached."""

_GONE_SECONDS = 60.0
_MOST_DIRECTORIES = 20_000


class ProcessIdentity(NamedTuple):
    """A process and its cgroup; the group is None if it cannot be found."""

    process: Process
    group: GroupKey | None


class _Seen(NamedTuple):
    identity: ProcessIdentity
    checked_at: float
    group_at: float


class PidResolver:
    """Finds the process of a pid; /proc/PID/stat is read once per tick, the cgroup every 10 s.

    ``devices`` is the prefix, or prefixes, of the driver's device files. ``foreign`` is whether /proc shows another
    pid namespace than ours.
    """

    def __init__(self, host: Host, devices: str | tuple[str, ...] = "/dev/nvidia") -> None:
        self._host = host
        self._devices = devices
        self._hertz = os.sysconf("SC_CLK_TCK")
        self._seen: dict[int, _Seen] = {}
        self._gone: dict[int, _Seen] = {}
        self._tree: Hierarchy | None = None
        self._tree_at = float("-inf")
        self._prefixes: dict[int, str | None] = {}
        self.foreign = _is_foreign(host)

    def find(self, pid: int, now: float) -> ProcessIdentity | None:
        """The process with this pid; None if there is none here, or if it is not the one that the driver means.

        Where /proc shows another pid namespace than ours, the driver's pids may be those of yet another one: then a
        process counts only if it has a device of the driver open.
        """
        known = self._seen.get(pid)
        if known is not None and known.checked_at == now:
            return known.identity
        try:
            process, _ = parse_stat(read_file(self._host.proc(str(pid), "stat"), 1024), self._hertz)
        except Unavailable:
            if known is not None:
                self._gone[pid] = self._seen.pop(pid)._replace(checked_at=now)
            return None
        if known is not None and known.identity.process.key == process.key and now - known.group_at < _GROUP_SECONDS:
            seen = known._replace(identity=known.identity._replace(process=process), checked_at=now)
        else:
            is_new = known is None or known.identity.process.key != process.key
            if is_new and self.foreign and not self._has_device_open(pid):
                return None
            seen = _Seen(ProcessIdentity(process, self._group(pid, now)), now, now)
        self._seen[pid] = seen
        return seen.identity

    def last_seen(self, pid: int, since: float) -> ProcessIdentity | None:
        """The process that had this pid, if it was found to have exited after ``since``."""
        gone = self._gone.get(pid)
        return gone.identity if gone is not None and gone.checked_at > since else None

    def recently_exited(self, pid: int) -> bool:
        """Whether this pid belonged to a known process that exited within about the last minute."""
        return pid in self._gone

    def expire(self, now: float) -> None:
        """Forget processes that were not looked up, or have been gone, for a minute."""
        deadline = now - _GONE_SECONDS
        self._seen = {pid: seen for pid, seen in self._seen.items() if seen.checked_at > deadline}
        self._gone = {pid: seen for pid, seen in self._gone.items() if seen.checked_at > deadline}

    def _group(self, pid: int, now: float) -> GroupKey | None:
        """Its cgroup, or its identity in other trees, with the key that the cgroups source uses."""
        try:
            if self._tree is None or now - self._tree_at >= _GONE_SECONDS:
                self._find_tree(now)
            tree = self._tree
            if tree is None:
                return group_without_tree(self._host, pid)
            text = self._host.text(self._host.proc(str(pid), "cgroup"))
        except Unavailable:
            return None
        path = self._absolute(tree.root, counting_path(tree, text), pid)
        if path is None:
            return None
        try:
            inode = os.stat(tree.root + path.rstrip("/")).st_ino
        except OSError:
            return None
        if tree.one_of_several and (identity := identity_path(path, text)) != path:
            return GroupKey(identity, 0)
        return GroupKey(path, inode)

    def _find_tree(self, now: float) -> None:
        """Find the tree that counts; one of a hybrid host is kept while it is there. None is kept on failure."""
        if self._tree is None or not (self._tree.hybrid and os.path.isdir(self._tree.root)):
            try:
                self._tree = find_hierarchy(self._host)
            except Unavailable:
                self._tree = None
        self._tree_at, self._prefixes = now, {}

    def _absolute(self, root: str, path: str, pid: int) -> str | None:
        """The path below the root of the tree.

        Inside a cgroup namespace the kernel writes it relative to our own group (``/../../pod/ctr``,
        cgroup_namespaces(7)). The directory behind those ``..`` is searched once: below it, the group at that path
        contains this process.
        """
        parts = path.split("/")[1:]
        ups = next((depth for depth, part in enumerate(parts) if part != ".."), len(parts))
        if ups == 0:
            return path
        rest = "".join(f"/{part}" for part in parts[ups:])
        if ups not in self._prefixes:
            self._prefixes[ups] = _find_prefix(root, rest, pid)
        prefix = self._prefixes[ups]
        return None if prefix is None else prefix + rest or "/"

    def _has_device_open(self, pid: int) -> bool:
        """Whether the process has one of the driver's devices open."""
        folder = self._host.proc(str(pid), "fd")
        try:
            return any(os.readlink(f"{folder}/{fd}").startswith(self._devices) for fd in os.listdir(folder))
        except OSError:
            return False


def _find_prefix(root: str, rest: str, pid: int) -> str | None:
    """Directory of the tree (relative to its root) below which ``rest`` is a group that contains this process."""
    ahead = deque([""])
    for _ in range(_MOST_DIRECTORIES):
        if not ahead:
            break
        prefix = ahead.popleft()
        try:
            if str(pid).encode() in read_file(f"{root}{prefix}{rest}/cgroup.procs").split():
                return prefix
        except Unavailable:
            pass
        try:
            ahead += [f"{prefix}/{name}" for name in list_dirs(root + prefix)]
        except OSError:
            continue
    return None


def _is_foreign(host: Host) -> bool:
    """Whether /proc shows another pid namespace than ours, like the host's /proc mounted into a container."""
    try:
        return os.readlink(host.proc("self")) != str(os.getpid())
    except OSError:
        return False
