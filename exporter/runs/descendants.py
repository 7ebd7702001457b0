"""CPU time of a process's descendants: of the living by /proc, of the exited by what their parents waited for."""

from __future__ import annotations

import contextlib
import os
import time
from collections import defaultdict

from ..host import Host, list_dir, read_file
from ..records import ProcessKey, Unavailable
from ..sources.usage.process_clock import clock_of, is_own_namespace, parse_family, parse_stat


class Descendants:
    """The processes below ``root``, without its child ``apart`` and those below that.

    Each read walks from parent to child, so that a process that exits meanwhile is missed rather than counted twice;
    the next read has it. ``seen`` are all that were ever met.
    """

    def __init__(self, host: Host, root: int, apart: int) -> None:
        self._host = host
        self._root = root
        self._apart = apart
        self._hertz = os.sysconf("SC_CLK_TCK")
        self._native = is_own_namespace(host)
        self._listed = os.path.exists(host.proc(str(root), "task", str(root), "children"))
        self.seen: set[ProcessKey] = set()
        self.living: frozenset[int] = frozenset()

    def read(self) -> tuple[float, float]:
        """CPU seconds of the living and of those that their parents waited for; of those that the root waited for."""
        children = self._children if self._listed else self._scan().__getitem__
        try:
            reaped = self._stat(self._root)[2]
        except Unavailable:
            reaped = 0.0
        seconds = 0.0
        living = []
        ahead = [pid for pid in children(self._root) if pid != self._apart]
        while ahead:
            pid = ahead.pop()
            try:
                key, own, waited = self._stat(pid)
            except Unavailable:
                continue
            seconds += own + waited
            living.append(pid)
            self.seen.add(key)
            ahead += children(pid)
        self.living = frozenset(living)
        return seconds, reaped

    def _stat(self, pid: int) -> tuple[ProcessKey, float, float]:
        raw = read_file(self._host.proc(str(pid), "stat"), 1024)
        process, seconds = parse_stat(raw, self._hertz)
        if self._native:
            with contextlib.suppress(OSError):
                seconds = time.clock_gettime(clock_of(pid))  # in nanoseconds: /proc counts in scheduler ticks
        return process.key, seconds, parse_family(raw, self._hertz)[1]

    def _children(self, pid: int) -> list[int]:
        """Children of all its threads."""
        found: list[int] = []
        try:
            for thread in list_dir(self._host.proc(str(pid), "task")):
                found += map(int, read_file(self._host.proc(str(pid), "task", thread, "children")).split())
        except Unavailable:
            pass
        return found

    def _scan(self) -> defaultdict[int, list[int]]:
        """Children of every process, for kernels without CONFIG_PROC_CHILDREN."""
        found: defaultdict[int, list[int]] = defaultdict(list)
        try:
            pids = [name for name in list_dir(self._host.proc()) if name.isdigit()]
        except Unavailable:
            return found
        for pid in pids:
            try:
                raw = read_file(self._host.proc(pid, "stat"), 1024)
                parse_stat(raw, self._hertz)
            except Unavailable:
                continue
            found[parse_family(raw, self._hertz)[0]].append(int(pid))
        return found
