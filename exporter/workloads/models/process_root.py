"""Reads files of a process below its own root, which no symbolic link can leave."""

from __future__ import annotations

import os
import stat
from collections import deque

_MAX_LINKS = 40
_FIND = os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC
_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


class ProcessRootFs:
    """The file system of one process, through ``/proc/PID/root`` and ``cwd`` (proc(5)). Every method may raise OSError.

    The kernel resolves an absolute link below ``/proc/PID/root`` from the root of the *exporter*, so a link in a
    container could lead to files of the host. Therefore paths and links are resolved here, one directory at a time.
    """

    def __init__(self, procfs: str, pid: int) -> None:
        self._base = f"{procfs}/{pid}"

    def read(self, path: str, limit: int) -> bytes:
        """The first ``limit`` bytes of a regular file."""
        fd = self._open(path, _READ)
        try:
            if not stat.S_ISREG(os.fstat(fd).st_mode):
                raise IsADirectoryError(f"{path}: not a regular file")
            return os.read(fd, limit)
        finally:
            os.close(fd)

    def entries(self, path: str, limit: int) -> list[tuple[str, bool]]:
        """Up to ``limit`` names in a directory, sorted, each with whether it is a directory."""
        fd = self._open(path, _READ | os.O_DIRECTORY)
        try:
            with os.scandir(fd) as opened:
                found = [
                    (entry.name, entry.is_dir(follow_symlinks=False))
                    for entry, _ in zip(opened, range(limit), strict=False)
                ]
        finally:
            os.close(fd)
        return sorted(found)

    def _open(self, path: str, flags: int) -> int:
        root = os.open(f"{self._base}/root", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        trail = [root]
        try:
            if not path.startswith("/"):
                trail.append(os.open(f"{self._base}/cwd", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC))
            return _walk(trail, deque(name for name in path.split("/") if name not in ("", ".")), flags)
        finally:
            for fd in trail:
                os.close(fd)


def _walk(trail: list[int], names: deque[str], flags: int) -> int:
    """Open the path ``names``; ``trail`` holds the open directories from the root to the current one."""
    links = 0
    while names:
        name = names.popleft()
        if name == "..":
            if len(trail) > 1:
                os.close(trail.pop())
            continue
        fd = os.open(name, _FIND, dir_fd=trail[-1])
        mode = os.fstat(fd).st_mode
        if stat.S_ISLNK(mode):
            target = os.readlink("", dir_fd=fd)
            os.close(fd)
            links += 1
            if links > _MAX_LINKS:
                raise OSError(f"{name}: too many links")
            while target.startswith("/") and len(trail) > 1:
                os.close(trail.pop())
            names.extendleft(step for step in reversed(target.split("/")) if step not in ("", "."))
        elif stat.S_ISDIR(mode):
            trail.append(fd)
        else:
            os.close(fd)
            if names:
                raise NotADirectoryError(f"{name}: not a directory")
            return os.open(name, flags, dir_fd=trail[-1])
    return os.open(".", flags, dir_fd=trail[-1])
