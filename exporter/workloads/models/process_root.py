"""Reads files as a process sees them, below its own root, which no link of its making can lead out of."""

from __future__ import annotations

import os
import stat
from collections import deque

_MAX_LINKS = 40
_FIND = os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC
_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


class Inside:
    """The file system of one process, through ``/proc/PID/root`` and ``cwd`` (proc(5)). Every method may raise OSError.

    The kernel resolves an absolute link below ``/proc/PID/root`` from *our* root: whoever writes links in a container
    could have us read the host's files. So every step is taken by hand, from directory to directory.
    """

    def __init__(self, procfs: str, pid: int) -> None:
        self._place = f"{procfs}/{pid}"

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
        """Up to ``limit`` names in a directory, sorted, each with whether it is a directory itself."""
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
        root = os.open(f"{self._place}/root", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        trail = [root]
        try:
            if not path.startswith("/"):
                trail.append(os.open(f"{self._place}/cwd", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC))
            return _walk(trail, deque(part for part in path.split("/") if part not in ("", ".")), flags)
        finally:
            for fd in trail:
                os.close(fd)


def _walk(trail: list[int], ahead: deque[str], flags: int) -> int:
    """Open what lies ``ahead``; ``trail`` holds the directories from the root to where we are."""
    links = 0
    while ahead:
        part = ahead.popleft()
        if part == "..":
            if len(trail) > 1:
                os.close(trail.pop())
            continue
        fd = os.open(part, _FIND, dir_fd=trail[-1])
        mode = os.fstat(fd).st_mode
        if stat.S_ISLNK(mode):
            target = os.readlink("", dir_fd=fd)
            os.close(fd)
            links += 1
            if links > _MAX_LINKS:
                raise OSError(f"{part}: too many links")
            while target.startswith("/") and len(trail) > 1:
                os.close(trail.pop())
            ahead.extendleft(step for step in reversed(target.split("/")) if step not in ("", "."))
        elif stat.S_ISDIR(mode):
            trail.append(fd)
        else:
            os.close(fd)
            if ahead:
                raise NotADirectoryError(f"{part}: not a directory")
            return os.open(part, flags, dir_fd=trail[-1])
    return os.open(".", flags, dir_fd=trail[-1])
