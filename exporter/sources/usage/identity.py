"""Which cgroup names a process, where several trees are mounted (cgroup v1, hybrid hosts).

A process is in one group of each tree. The tree that counts CPU time need not be the one in which its manager made a
group: Slurm without ``jobacct_gather/cgroup`` uses only freezer and cpuset, systemd without CPU accounting only
``name=systemd``. So the identity of a process is every path that says more than the path of the counting group.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable

from ...host import Host, read_file
from ...records import PATH_SEPARATOR, GroupKey, GroupUse, ProcessKey, ProcessUse, Unavailable
from .cgroup_tree import Hierarchy


def counting_path(tree: Hierarchy, text: str) -> str:
    """Path of a process in the tree that counts CPU time, by its /proc/PID/cgroup."""
    return unified_path(text) if tree.file == "cpu.stat" else parse_cgroup(text)


def parse_cgroup(text: str) -> str:
    """Path of a process in the tree that counts CPU time: cpuacct's of v1, else v2's (cgroups(7))."""
    unified = "/"
    for controllers, path in _lines(text):
        if "cpuacct" in controllers.split(","):
            return path
        if path and not controllers:
            unified = path
    return unified


def unified_path(text: str) -> str:
    """Path of a process in the cgroup2 tree; "/" if it has none."""
    return next((path for controllers, path in _lines(text) if not controllers and path), "/")


def group_without_tree(host: Host, pid: int) -> GroupKey:
    """Group of a process where no tree of cgroups can be read, by /proc alone. Raises `Unavailable`."""
    text = host.text(host.proc(str(pid), "cgroup"))
    return GroupKey(identity_path(parse_cgroup(text), text), 0)


def identity_path(counting: str, text: str) -> str:
    """Paths of a process, separated by `PATH_SEPARATOR`: ``counting`` and those that it does not include.

    A path that is the start of another one adds nothing, and neither does a group directly below the root, where
    ``counting`` is more than the root: that is how administrators sort processes, not how managers name them. Seen from
    inside a cgroup namespace, paths begin with ``..`` (cgroup_namespaces(7)): then one that is the end of ``counting``
    is the same group.
    """
    paths = [counting]
    for _, path in _lines(text):
        visible = _visible(path)
        if visible == "/" or path in paths or counting.endswith(visible):
            continue
        if counting != "/" and path.count("/") == 1:
            continue
        if not any(_includes(other, path) for other in paths):
            paths = [other for other in paths if not _includes(path, other)] + [path]
    return PATH_SEPARATOR.join(paths)


def _lines(text: str) -> Iterable[tuple[str, str]]:
    """Controllers and path of each line. A path may contain anything but a newline."""
    for line in text.split("\n"):
        controllers, _, path = line.partition(":")[2].partition(":")
        if path.startswith("/"):
            yield controllers, path.removesuffix(" (deleted)")


def _visible(path: str) -> str:
    while path.startswith("/.."):
        path = path[3:]
    return path or "/"


def _includes(path: str, start: str) -> bool:
    """Whether ``start`` is the group ``path`` or one above it."""
    return start in ("/", path) or path.startswith(f"{start}/")


def _is_at(counting: str, path: str) -> bool:
    """Whether ``path`` is the counting group, as a thread or from inside a namespace.

    Otherwise the process has moved, or the tree's root is a group of the host's: its paths cannot be compared then.
    """
    if "/" in (counting, path):
        return counting == path or counting != "/"
    return counting.endswith(path) or _includes(counting, path) or _includes(path, counting)


class Identities:
    """The processes whose identity is not their counting group, each with a group of its own for that identity.

    Such a group exists while it has a process; its inode is 0. CPU time of processes that exited unseen stays with the
    counting group, unless the one that waited for them has an identity of its own.
    """

    def __init__(self, host: Host, tree: Hierarchy) -> None:
        self._host = host
        self._tree = tree
        self._groups: dict[ProcessKey, GroupKey] = {}
        self._members: Counter[GroupKey] = Counter()
        self._started: list[GroupKey] = []
        self._ended: list[GroupKey] = []

    def look(self, process: ProcessKey, counting: GroupKey) -> None:
        """Read the groups of a process, which is counted in ``counting``."""
        try:
            raw = read_file(self._host.proc(str(process.pid), "cgroup"))
        except Unavailable:
            return
        text = raw.decode("utf-8", "surrogateescape")
        if not _is_at(counting.path, _visible(counting_path(self._tree, text))):
            return
        path = identity_path(counting.path, text)
        group = None if path == counting.path else GroupKey(path, 0)
        if group == self._groups.get(process):
            return
        self.forget(process)
        if group is not None:
            self._groups[process] = group
            self._members[group] += 1
            if self._members[group] == 1:
                self._started.append(group)

    def forget(self, process: ProcessKey) -> None:
        """The process exited, or has no identity of its own any more."""
        group = self._groups.pop(process, None)
        if group is None:
            return
        self._members[group] -= 1
        if not self._members[group]:
            del self._members[group]
            self._ended.append(group)

    def divide(self, use: GroupUse) -> list[GroupUse]:
        """Use of the counting group, and of each identity in it: the sum of its processes and of their exited children.

        Where several worked in one counting group, it is not known to which of them the exited ones belonged.
        """
        counting, seconds, processes, listing, reaped = use
        if not self._groups:
            return [use]
        divided: defaultdict[GroupKey, tuple[list[ProcessUse], list[ProcessUse]]] = defaultdict(lambda: ([], []))
        for process in processes:
            divided[self._groups.get(process.process.key, counting)][0].append(process)
        for parent in reaped:
            divided[self._groups.get(parent.process.key, counting)][1].append(parent)
        own, own_reaped = divided.pop(counting, ([], []))
        found = [
            GroupUse(group, _seconds(members) + _seconds(parents), tuple(members), reaped=tuple(parents))
            for group, (members, parents) in divided.items()
        ]
        rest = max(seconds - sum([group.seconds for group in found]), _seconds(own) + _seconds(own_reaped))
        if rest > 0:
            found.append(GroupUse(counting, rest, tuple(own), "partial" if divided else listing, tuple(own_reaped)))
        return found

    def take_started(self) -> list[GroupKey]:
        """Groups that got their first process since the last call."""
        started, self._started = self._started, []
        return started

    def take_ended(self) -> list[GroupKey]:
        """Groups that lost their last process since the last call."""
        ended, self._ended = self._ended, []
        return ended


def _seconds(uses: Iterable[ProcessUse]) -> float:
    return sum([use.seconds for use in uses])
