"""A cgroup for one command, where this user may make one: below the cgroup of this process."""

from __future__ import annotations

import contextlib
import os
import re

from ..host import Host, read_file, unavailable
from ..records import Unavailable
from ..sources.usage.cgroup_tree import Hierarchy, find_hierarchy
from ..sources.usage.identity import counting_path

PREFIX = "ai-energy-run."
"""Beginning of the directory's name; `exporter.workloads.paths.run` names its workload by the rest."""

OWN_PROC = "/proc"
"""Where pids are those of this process: the host's, mounted in a container, has other ones for the same processes."""

_NOT_IN_NAMES = re.compile(r"[^A-Za-z0-9_.@:+-]+")
_MOST_LETTERS = 64


def directory_name(name: str, pid: int) -> str:
    """Name of the directory of a run: what cgroupfs and labels cannot contain becomes ``_``."""
    return f"{PREFIX}{_NOT_IN_NAMES.sub('_', name)[:_MOST_LETTERS] or 'command'}.{pid}"


class OwnCgroup:
    """The cgroup of a run: its counter has everything that ran in it, exited or not, waited for or not."""

    def __init__(self, host: Host, name: str) -> None:
        """Make it below the cgroup of this process. Raises `Unavailable`."""
        tree = find_hierarchy(host)
        above = counting_path(tree, host.text(host.proc("self", "cgroup")))
        self._parent = _own_directory(tree, above)
        self._host = host
        self._tree = tree
        directory = directory_name(name, os.getpid())
        self._listed = f"{above.rstrip('/')}/{directory}"  # as /proc/PID/cgroup has it
        self.directory = f"{self._parent}/{directory}"
        self.path = self.directory.removeprefix(tree.root)
        try:
            os.mkdir(self.directory)
        except OSError as error:
            raise unavailable(error, self.directory) from None

    def attach(self, pid: int) -> None:
        """Move a process into it. Raises `Unavailable`."""
        _move(pid, self.directory)

    def seconds(self) -> float:
        """CPU seconds so far. Raises `Unavailable`."""
        path = f"{self.directory}/{self._tree.file}"
        words = read_file(path).split()
        try:
            return int(words[0] if len(words) == 1 else words[1]) / self._tree.per_second
        except (ValueError, IndexError):
            raise Unavailable("implausible", f"{path}: {words[:2]!r}") from None

    def contains(self, path: str) -> bool:
        """Whether a cgroup, by its path below the hierarchy's root, is this one or below it."""
        return path == self.path or path.startswith(f"{self.path}/")

    def holds(self, pid: int) -> bool:
        """Whether a process is in it or below it, or has exited."""
        try:
            path = counting_path(self._tree, self._host.text(self._host.proc(str(pid), "cgroup")))
        except Unavailable:
            return True
        return path == self._listed or path.startswith(f"{self._listed}/")

    def remove(self) -> None:
        """Remove it; processes that still run go back to the cgroup above."""
        for directory, _, _ in os.walk(self.directory, topdown=False):
            with contextlib.suppress(OSError, Unavailable):
                for pid in read_file(f"{directory}/cgroup.procs").split():
                    _move(int(pid), self._parent)
                os.rmdir(directory)


def _own_directory(tree: Hierarchy, path: str) -> str:
    """The directory of this process's cgroup ``path``. Raises `Unavailable` if it cannot be seen.

    In a container the path begins above what is mounted, or the other way round, so its beginning is left out until
    the directory has this process.
    """
    parts = [part for part in path.split("/") if part]
    for first in range(len(parts) + 1):
        directory = "/".join((tree.root, *parts[first:]))
        with contextlib.suppress(Unavailable):
            if str(os.getpid()).encode() in read_file(f"{directory}/cgroup.procs").split():
                return directory
    raise Unavailable("not_found", f"{tree.root}: the cgroup of this process, {path}, is not in it")


def _move(pid: int, directory: str) -> None:
    path = f"{directory}/cgroup.procs"
    try:
        with open(path, "w", encoding="ascii") as file:
            file.write(str(pid))
    except OSError as error:
        raise unavailable(error, path) from None
