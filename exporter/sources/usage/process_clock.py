"""Follow processes by pid and start time, and read their CPU clocks as cheaply as the kernel allows.

Where /proc shows our own pid namespace, each process is followed by a pidfd (one epoll reports the exited ones before
their pids can be reused) and its CPU time is read with ``clock_gettime`` on its process clock: in nanoseconds, all
threads included, at an eighth of the cost of reading ``/proc/PID/stat`` (clock_getcpuclockid(3), pidfd_open(2)).
Elsewhere ``/proc/PID/stat`` is kept open and read again.
"""

from __future__ import annotations

import os
import select
import time
from collections.abc import Callable, Iterator

from ...host import Host, KeptFile, read_file
from ...records import Process, ProcessKey, Unavailable

_KERNEL_THREAD = 0x00200000
"""PF_KTHREAD in the flags field of /proc/PID/stat (include/linux/sched.h)."""

_CPUCLOCK_SCHED = 2

_LOST = ("not_found", "permission", "implausible")
"""Reasons for which a process is no longer followed; others (no descriptor left, an I/O error) may be temporary."""


class Tracked:
    """One process: ``seconds`` is its CPU time when last read, ``quiet`` the number of reads in a row without use.

    ``children_seconds`` is the CPU time, when last read, of exited children that it waited for, and of those for which
    they did. ``unseen_seconds`` is the part of it that no process that was followed had, and that has not been
    attributed; below 0 if a followed child exited for which it has not waited yet. ``parent`` is a pid while that
    process is not followed.
    """

    __slots__ = (
        "children_seconds",
        "clock_id",
        "file",
        "group",
        "parent",
        "pidfd",
        "process",
        "quiet",
        "seconds",
        "unseen_seconds",
    )

    def __init__(self, process: Process, seconds: float, parent: Tracked | int = 0, children: float = 0.0) -> None:
        self.process = process
        self.seconds = seconds
        self.parent = parent
        self.children_seconds = children
        self.unseen_seconds = 0.0
        self.quiet = 0
        self.pidfd = -1
        self.clock_id = 0
        self.file: KeptFile | None = None
        self.group: object = None


def clock_of(pid: int) -> int:
    """Clock of the CPU time of a process, all its threads included, exited ones too (clock_getcpuclockid(3))."""
    return (~pid << 3) | _CPUCLOCK_SCHED


def parse_stat(raw: bytes, hertz: int) -> tuple[Process, float]:
    """Parse ``/proc/PID/stat`` into the process and its CPU seconds (user + system, proc(5)).

    The command name may contain spaces, parentheses and newlines: it ends at the last ``)``. Raises `Unavailable` for
    anything that is not such a file.
    """
    head, found, tail = raw.rpartition(b")")
    pid, _, comm = head.partition(b"(")
    fields = tail.split()
    try:
        if not found:
            raise ValueError
        key = ProcessKey(int(pid), int(fields[19]))
        seconds = (int(fields[11]) + int(fields[12])) / hertz
        kernel = bool(int(fields[6]) & _KERNEL_THREAD)
    except (ValueError, IndexError):
        raise Unavailable("implausible", f"not a process stat file: {raw[:48]!r}") from None
    return Process(key, comm.decode("utf-8", "replace"), kernel), seconds


def parse_family(raw: bytes, hertz: int) -> tuple[int, float]:
    """Pid of the parent, and CPU seconds of exited children it waited for, of a file that `parse_stat` accepts."""
    fields = raw.rpartition(b")")[2].split()
    return int(fields[1]), (int(fields[13]) + int(fields[14])) / hertz


class ProcessTable:
    """The followed processes, by pid."""

    def __init__(self, host: Host, clock_ns: Callable[[int], int] = time.clock_gettime_ns) -> None:
        self._host = host
        self._clock_ns = clock_ns
        self._hertz = os.sysconf("SC_CLK_TCK")
        self._by_pid: dict[int, Tracked] = {}
        self._by_fd: dict[int, Tracked] = {}
        self.native = is_own_namespace(host)
        self._epoll = select.epoll() if self.native else None
        self._unwatched: set[Tracked] = set()

    def __len__(self) -> int:
        return len(self._by_pid)

    def __iter__(self) -> Iterator[Tracked]:
        return iter(list(self._by_pid.values()))

    def find(self, pid: int) -> Tracked | None:
        """The followed process with this pid."""
        return self._by_pid.get(pid)

    def follow(self, pid: int, since: float) -> Tracked | None:
        """Start to follow a process; None if it has exited or is hidden (see `is_hidden`).

        Its CPU time so far does not count, unless it started after boot time ``since``: then all of it does.
        """
        path = self._host.proc(str(pid), "stat")
        pidfd = -1
        try:
            if self._epoll is not None and self._host.fds.take():
                try:
                    pidfd = os.pidfd_open(pid)
                except OSError:
                    self._host.fds.release()
            process, seconds, raw = self._look(pid)
        except Unavailable:
            if pidfd >= 0:
                os.close(pidfd)
                self._host.fds.release()
            return None
        parent, children = parse_family(raw, self._hertz)
        tracked = Tracked(process, seconds, parent, children)
        if pidfd >= 0 and self._epoll is not None:
            tracked.pidfd = pidfd
            tracked.clock_id = clock_of(pid)
            self._epoll.register(pidfd, select.EPOLLIN)
            self._by_fd[pidfd] = tracked
        else:
            if not self.native:
                try:
                    tracked.file = self._host.keep(path)
                except Unavailable:
                    return None
            self._unwatched.add(tracked)
        if process.key.start_ticks / self._hertz >= since - 1 / self._hertz:
            tracked.seconds = 0.0
        elif tracked.clock_id:
            self.used(tracked)
        self._by_pid[pid] = tracked
        return tracked

    def used(self, tracked: Tracked) -> float | None:
        """CPU seconds since it was last read, 0.0 if it cannot be read now; None if this process has exited."""
        if tracked.clock_id:
            try:
                seconds = self._clock_ns(tracked.clock_id) * 1e-9
            except OSError:
                return None
        else:
            key = tracked.process.key
            try:
                raw = (
                    tracked.file.read(1024) if tracked.file else read_file(self._host.proc(str(key.pid), "stat"), 1024)
                )
                process, seconds = parse_stat(raw, self._hertz)
            except Unavailable as error:
                return None if error.reason in _LOST else 0.0
            if process.key != key:
                return None
        delta = seconds - tracked.seconds
        if delta < 0:
            # A larger decrease than rounding means that another process has this pid now.
            return None if delta < -1.5 / self._hertz else 0.0
        tracked.seconds = seconds
        return delta

    def is_hidden(self, pid: int) -> bool:
        """Whether a process that could not be followed exists but is hidden from this user (``hidepid``, proc(5))."""
        try:
            read_file(self._host.proc(str(pid), "stat"), 1)
        except Unavailable as error:
            return error.reason == "permission" or (error.reason == "not_found" and self.native and _exists(pid))
        return False

    def exited(self, *, thorough: bool = False) -> list[Tracked]:
        """Processes that exited since the last call, no longer followed.

        Those without a pidfd (no descriptor left, or another pid namespace) are checked only if ``thorough``.
        """
        gone: list[Tracked] = []
        while self._epoll is not None and (events := self._epoll.poll(0)):
            for fd, _ in events:
                tracked = self._by_fd[fd]
                self.forget(tracked)
                gone.append(tracked)
        if thorough:
            lost = [
                tracked
                for tracked in self._unwatched
                if (now := self._current(tracked)) is None or now.key != tracked.process.key
            ]
            for tracked in lost:
                self.forget(tracked)
            gone += lost
        return gone

    def forget(self, tracked: Tracked) -> None:
        """Stop following it."""
        pid = tracked.process.key.pid
        if self._by_pid.get(pid) is tracked:
            del self._by_pid[pid]
        if tracked.pidfd >= 0:
            if self._epoll is not None:
                self._epoll.unregister(tracked.pidfd)
            del self._by_fd[tracked.pidfd]
            os.close(tracked.pidfd)
            self._host.fds.release()
            tracked.pidfd = -1
        if tracked.file is not None:
            tracked.file.close()
            tracked.file = None
        self._unwatched.discard(tracked)

    def rename(self, tracked: Tracked) -> None:
        """Read its name again: a process found between fork and exec had its parent's."""
        process = self._current(tracked)
        if process is not None and process.key == tracked.process.key:
            tracked.process = process

    def _current(self, tracked: Tracked) -> Process | None:
        """The process that has its pid now; the same one if that cannot be read."""
        try:
            return self._look(tracked.process.key.pid)[0]
        except Unavailable as error:
            return None if error.reason in _LOST else tracked.process

    def _look(self, pid: int) -> tuple[Process, float, bytes]:
        """Read ``/proc/PID/stat`` once. Raises `Unavailable`, also for a zombie, which has exited."""
        raw = read_file(self._host.proc(str(pid), "stat"), 1024)
        process, seconds = parse_stat(raw, self._hertz)
        state, *fields = raw.rpartition(b")")[2].split()
        if state in (b"Z", b"X") and int(fields[16]) <= 1:  # its main thread may be gone while others run
            raise Unavailable("not_found", f"{pid} is a zombie")
        return process, seconds, raw

    def close(self) -> None:
        """Close every descriptor."""
        for tracked in list(self._by_pid.values()):
            self.forget(tracked)
        for tracked in list(self._by_fd.values()):
            self.forget(tracked)
        if self._epoll is not None:
            self._epoll.close()
            self._epoll = None
            self.native = False


def is_own_namespace(host: Host) -> bool:
    """Whether ``host.procfs`` shows our own pid namespace: then its ``self`` is this process."""
    try:
        return os.readlink(host.proc("self")) == str(os.getpid()) and hasattr(os, "pidfd_open")
    except OSError:
        return False


def _exists(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except PermissionError:
        return True
    except OSError:
        return False
    return True
