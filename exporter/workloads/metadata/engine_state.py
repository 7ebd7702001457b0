"""Containers of engines without an API here, by the state they keep on disk: runc, crun, containerd, nerdctl.

A path such as ``/web1`` says nothing by itself: it is a container if its runtime has a directory of that name. It is
looked up once for each cgroup, in the root of process 1, which the host's /proc shows, and in our own.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Sequence
from itertools import islice, pairwise

from ...host import Host
from ...records import Workload
from ..paths.systemd import printable

_RUNTIMES = ("runc", "crun")
_TASKS = "run/containerd/io.containerd.runtime.v2.task"
_NERDCTL = "var/lib/nerdctl"
_MOST_NAMES = 2000
_UNITS = (".slice", ".service", ".scope")


class EngineState:
    """Names from the state directories of engines; without access to them, nothing is found."""

    def __init__(self, host: Host) -> None:
        # Even root may be refused the root of process 1; without a container around us, ours is the same.
        self._roots = (host.proc("1", "root"), *(("",) if host.procfs == "/proc" else ()))
        self._nerdctl = NerdctlNames([f"{root}/{_NERDCTL}" for root in self._roots])

    def resolve(self, path: str) -> Workload | None:
        """Container of a path that no engine names: the outermost group that is called like one.

        On cgroup2 an OCI runtime without the systemd driver makes it beside the group that it was started in
        (``/user.slice/user-0.slice/NAME``), elsewhere below the root. No unit is a container.
        """
        for parent, name in pairwise(["", *path.split("/")[1:]]):
            if not name or name.startswith(".") or name.endswith(_UNITS):
                continue
            for runtime in _RUNTIMES:
                if self._exists(f"run/{runtime}/{name}"):
                    return Workload(container=printable(name), runtime=runtime)
            if parent and not parent.startswith(".") and self._exists(f"{_TASKS}/{parent}/{name}"):
                return Workload(container=printable(name), runtime="containerd")
        return None

    def named(self, owner: Workload) -> Workload:
        """A container of containerd with the name that nerdctl gave it, if it did."""
        if owner.runtime != "containerd" or not owner.container_id:
            return owner
        name = self._nerdctl.find(owner.container_id)
        return owner._replace(container=name) if name else owner

    def _exists(self, path: str) -> bool:
        return any(os.path.isdir(f"{root}/{path}") for root in self._roots)


class NerdctlNames:
    """Names that nerdctl gave, in files ``BASE/ADDRESS/names/NAMESPACE/NAME`` with a container's id in them.

    A file is read once, and a folder only after it has changed, so naming all containers takes one read for each.
    """

    def __init__(self, bases: Sequence[str]) -> None:
        self._bases = bases
        self._changed_at: dict[str, int] = {}
        self._ids: dict[str, dict[tuple[str, int], str]] = {}
        self._names: dict[str, str] = {}

    def find(self, container_id: str) -> str:
        """Name of a container, "" if it has none."""
        if container_id not in self._names and self._read():
            self._names = {one: printable(name) for ids in self._ids.values() for (name, _), one in ids.items()}
        return self._names.get(container_id, "")

    def _read(self) -> bool:
        """Read what is new; returns whether anything may have changed."""
        changed = False
        for folder in list(self._folders()):
            with contextlib.suppress(OSError):
                at = os.stat(folder).st_mtime_ns
                if at == self._changed_at.get(folder):
                    continue
                known, changed = self._ids.get(folder, {}), True
                with os.scandir(folder) as opened:
                    files = [(entry.name, entry.inode()) for entry in islice(opened, _MOST_NAMES)]
                found = {file: known.get(file) or _content(f"{folder}/{file[0]}") for file in files}
                self._ids[folder] = {file: one for file, one in found.items() if one}
                if all(found.values()):  # one that is empty is just being written
                    self._changed_at[folder] = at
        return changed

    def _folders(self) -> Iterator[str]:
        for base in self._bases:
            for address in _entries(base):
                for namespace in _entries(f"{base}/{address}/names"):
                    yield f"{base}/{address}/names/{namespace}"


def _entries(path: str) -> list[str]:
    with contextlib.suppress(OSError):
        return sorted(os.listdir(path))
    return []


def _content(path: str) -> str:
    with contextlib.suppress(OSError):
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            return os.read(fd, 128).decode("ascii", "replace").strip()
        finally:
            os.close(fd)
    return ""
