"""All access to /proc, /sys and cgroupfs: injected roots, files kept open, OSError → Unavailable.

Implausible file contents and scarce descriptors are faults 13 and 60 of docs/faults.md.
"""

from __future__ import annotations

import contextlib
import errno
import os
import resource
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial

from .records import Reason, Unavailable

MAX_COUNTER = 2**63
"""Above any real counter of joules or seconds; broken drivers return 2⁶⁴−1."""

_REASONS: dict[int, Reason] = {
    errno.ENOENT: "not_found",
    errno.ENODEV: "not_found",
    errno.ENXIO: "not_found",
    errno.ENOTDIR: "not_found",
    errno.ESRCH: "not_found",
    errno.ELOOP: "not_found",
    errno.EACCES: "permission",
    errno.EPERM: "permission",
    errno.ETIMEDOUT: "timeout",
    errno.EIO: "driver",
    errno.EINVAL: "driver",
    errno.ENODATA: "driver",
    errno.EAGAIN: "driver",
    errno.EBUSY: "driver",
}


def unavailable(error: OSError, path: str) -> Unavailable:
    """Translate an operating system error; ``fix`` is set for a missing permission."""
    reason = _REASONS.get(error.errno or 0, "error")
    fix = ""
    if reason == "permission":
        fix = (
            "run as root (uid 0 needs no capabilities), or let a group of this user read it: "
            f"chgrp GROUP {path} && chmod g+r {path}"
        )
    return Unavailable(reason, f"{path}: {error.strerror or error}", fix)


def parse_counter(raw: bytes, path: str) -> int:
    """Parse a non-negative decimal counter as the kernel writes it.

    Raises `Unavailable` for an empty file, text, a negative number, a trailing NUL, and 2⁶³ or more.
    """
    text = raw.rstrip(b"\n")
    if not text.isdigit() or len(text) > 19 or (value := int(text)) >= MAX_COUNTER:
        raise Unavailable("implausible", f"{path}: not a plausible counter: {raw[:32]!r}")
    return value


class KeptFile:
    """A file kept open and read again from its start, at half the cost of opening it each time.

    Without a descriptor left in the budget, each read opens and closes the file.
    """

    __slots__ = ("_budget", "_fd", "path")

    def __init__(self, path: str, budget: FdBudget) -> None:
        self.path = path
        self._budget = budget
        self._fd = -1
        if budget.take():
            try:
                self._fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
            except OSError as error:
                budget.release()
                raise unavailable(error, path) from None

    def read(self, size: int = 4096) -> bytes:
        """Read up to ``size`` bytes from the start. Raises `Unavailable`."""
        try:
            if self._fd >= 0:
                return os.pread(self._fd, size, 0)
            fd = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC)
            try:
                return os.read(fd, size)
            finally:
                os.close(fd)
        except OSError as error:
            raise unavailable(error, self.path) from None

    def reader(self, size: int) -> Callable[[], bytes]:
        """A function that reads up to ``size`` bytes with little overhead. It raises OSError or `Unavailable`."""
        return partial(os.pread, self._fd, size, 0) if self._fd >= 0 else partial(self.read, size)

    def read_all(self, chunk: int = 65536) -> bytes:
        """Read the whole file from its start. Raises `Unavailable`."""
        data = self.read(chunk)
        if len(data) < chunk:
            return data
        if self._fd < 0:
            return read_file(self.path)
        parts = [data]
        offset = len(data)
        try:
            while part := os.pread(self._fd, chunk, offset):
                parts.append(part)
                offset += len(part)
        except OSError as error:
            raise unavailable(error, self.path) from None
        return b"".join(parts)

    def counter(self) -> int:
        """Read one non-negative integer. Raises `Unavailable`."""
        return parse_counter(self.read(64), self.path)

    def close(self) -> None:
        """Close it; closing twice is harmless."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
            self._budget.release()


class FdBudget:
    """How many descriptors may be kept open; a limit of 64 is enough to run."""

    __slots__ = ("left",)

    def __init__(self, limit: int) -> None:
        self.left = max(0, limit)

    @classmethod
    def of_process(cls, reserve: int = 640) -> FdBudget:
        """Raise the soft limit to the hard one and leave ``reserve`` (at most half) for connections and the rest."""
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        if soft != hard:
            wanted = min(hard, 65536) if hard != resource.RLIM_INFINITY else 65536
            if wanted > soft:
                resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
                soft = wanted
        return cls(soft - min(reserve, soft // 2))

    def take(self) -> bool:
        """Reserve one; False if none is left."""
        if self.left <= 0:
            return False
        self.left -= 1
        return True

    def release(self) -> None:
        """Return one."""
        self.left += 1


def read_file(path: str, limit: int = 1 << 24) -> bytes:
    """Read a whole file once. Raises `Unavailable`."""
    try:
        with open(path, "rb", buffering=0) as file:
            parts = []
            while limit > 0 and (part := file.read(min(65536, limit))):
                parts.append(part)
                limit -= len(part)
            return b"".join(parts)
    except OSError as error:
        raise unavailable(error, path) from None


def list_dir(path: str) -> list[str]:
    """Names in a directory, sorted. Raises `Unavailable`."""
    try:
        return sorted(os.listdir(path))
    except OSError as error:
        raise unavailable(error, path) from None


def names_in(path: str) -> list[str]:
    """Names in a directory, sorted; none where it cannot be listed."""
    try:
        return list_dir(path)
    except Unavailable:
        return []


boot_seconds: Callable[[], float] = (
    partial(time.clock_gettime, time.CLOCK_BOOTTIME) if hasattr(time, "CLOCK_BOOTTIME") else time.monotonic
)
"""Seconds since boot including suspend, so that joules are never divided by too short a time."""


@dataclass(frozen=True, slots=True)
class Host:
    """Roots of this machine's files, and its clocks; tests pass generated trees and their own clock.

    ``cgroupfs`` "" means ``fs/cgroup`` below ``sysfs``. ``clock`` is seconds since boot, ``wall`` since the epoch,
    ``work`` the CPU seconds of the calling thread.
    """

    procfs: str = "/proc"
    sysfs: str = "/sys"
    cgroupfs: str = ""
    clock: Callable[[], float] = boot_seconds
    wall: Callable[[], float] = time.time
    work: Callable[[], float] = time.thread_time
    fds: FdBudget = field(default_factory=lambda: FdBudget(1024))

    def proc(self, *parts: str) -> str:
        """Path below /proc."""
        return "/".join((self.procfs, *parts))

    def sys(self, *parts: str) -> str:
        """Path below /sys."""
        return "/".join((self.sysfs, *parts))

    def keep(self, path: str) -> KeptFile:
        """Open a file to be read every tick. Raises `Unavailable`."""
        return KeptFile(path, self.fds)

    def text(self, path: str) -> str:
        """Read a small text file, stripped; undecodable bytes become U+FFFD. Raises `Unavailable`."""
        return read_file(path).decode("utf-8", "replace").strip("\n\0 ")

    def counter(self, path: str) -> int:
        """Read one non-negative integer from a file that is not kept open. Raises `Unavailable`."""
        return parse_counter(read_file(path, 64), path)

    def cpu_count(self) -> int:
        """Number of online CPUs, from /sys, else /proc/stat, else the operating system; 1 if unknown."""
        try:
            return count_cpus(self.text(self.sys("devices/system/cpu/online")))
        except (Unavailable, ValueError):
            pass
        try:
            stat = read_file(self.proc("stat"))
        except Unavailable:
            return os.cpu_count() or 1
        return max(1, sum(1 for line in stat.splitlines() if line[:3] == b"cpu" and line[3:4].isdigit()))

    def memory_ratio(self) -> float | None:
        """This process's resident memory over its cgroup's limit; None without a limit.

        The limit is the smallest of this process's cgroup and those above it, of v2 (memory.max) or v1.
        """
        base = self.cgroupfs or self.sys("fs/cgroup")
        limits = []
        try:
            resident = int(self.text(self.proc("self/statm")).split()[1]) * os.sysconf("SC_PAGE_SIZE")
            for line in self.text(self.proc("self/cgroup")).splitlines():
                _, controllers, path = line.split(":", 2)
                if controllers == "memory":
                    limits += self._limits(f"{base}/memory", path, "memory.limit_in_bytes")
                elif controllers == "":
                    limits += self._limits(base, path, "memory.max")
        except (Unavailable, ValueError, IndexError):
            return None
        return resident / min(limits) if limits else None

    def _limits(self, root: str, path: str, name: str) -> list[int]:
        found = []
        while True:
            with contextlib.suppress(Unavailable):  # "max", or not visible from here
                found.append(self.counter(f"{root}{path}/{name}"))
            if path in ("", "/"):
                return [limit for limit in found if 0 < limit < 1 << 60]
            path = path.rpartition("/")[0]

    def boot_id(self) -> str:
        """Identity of this boot; "" where the kernel has none. Hardware counters restart with each boot."""
        try:
            return self.text(self.proc("sys/kernel/random/boot_id"))
        except Unavailable:
            return ""


def cpu_list(text: str) -> list[int]:
    """CPU numbers in the kernel's list format (``0-3,8``). Raises ValueError."""
    cpus: list[int] = []
    for part in filter(None, text.split(",")):
        first, _, last = part.partition("-")
        cpus.extend(range(int(first), int(last or first) + 1))
    return cpus


def count_cpus(text: str) -> int:
    """Number of CPUs in a kernel CPU list. Raises ValueError if it is empty."""
    count = len(cpu_list(text))
    if count == 0:
        raise ValueError("empty CPU list")
    return count
