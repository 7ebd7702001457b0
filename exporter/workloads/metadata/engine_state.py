"""Containers of engines without an API here, by the state they keep on disk: runc, crun, containerd, nerdctl.

A path such as ``/web1`` says nothing by itself: it is a container if its runtime has a directory of that name. It is
looked up once for each cgroup, in the root of process 1, which the host's /proc shows.
"""

from __future__ import annotations

import contextlib
import os

from ...host import Host
from ...records import Workload
from ..paths.systemd import printable

_RUNTIMES = ("runc", "crun")
_TASKS = "run/containerd/io.containerd.runtime.v2.task"
_NERDCTL = "var/lib/nerdctl"
_MOST_NAMES = 2000


class EngineState:
    """Names from the state directories of engines; without access to them, nothing is found."""

    def __init__(self, host: Host) -> None:
        self._root = host.proc("1", "root")

    def resolve(self, path: str) -> Workload | None:
        """Container of a path that no other resolver knows: its first one or two components are its name."""
        first, second = (*path.split("/")[1:3], "", "")[:2]
        if not first or first.startswith("."):
            return None
        for runtime in _RUNTIMES:
            if self._exists(f"run/{runtime}/{first}"):
                return Workload(container=printable(first), runtime=runtime)
        if second and not second.startswith(".") and self._exists(f"{_TASKS}/{first}/{second}"):
            return Workload(container=printable(second), runtime="containerd")
        return None

    def named(self, owner: Workload) -> Workload:
        """A container of containerd with the name that nerdctl gave it, if it did."""
        if owner.runtime != "containerd" or not owner.container_id:
            return owner
        name = self._nerdctl_name(owner.container_id)
        return owner._replace(container=name) if name else owner

    def _nerdctl_name(self, container_id: str) -> str:
        """Name in ``DATA/ADDRESS/names/NAMESPACE/NAME``, a file with the container's id."""
        left = _MOST_NAMES
        base = f"{self._root}/{_NERDCTL}"
        for address in _entries(base):
            for namespace in _entries(f"{base}/{address}/names"):
                folder = f"{base}/{address}/names/{namespace}"
                for name in _entries(folder):
                    left -= 1
                    if left < 0:
                        return ""
                    if _content(f"{folder}/{name}") == container_id:
                        return printable(name)
        return ""

    def _exists(self, path: str) -> bool:
        return os.path.isdir(f"{self._root}/{path}")


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
