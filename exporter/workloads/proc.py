"""Reads a process from /proc: command line, parent, environment, container. Unreadable files give empty results."""

from __future__ import annotations

import re
from collections.abc import Collection
from typing import NamedTuple

from ..host import Host, read_file
from ..records import ProcessKey, Unavailable

MAX_COMMAND = 65_536
"""Longest part of a command line that is read, in bytes."""

_MAX_ENVIRONMENT = 131_072
_CONTAINER = re.compile(rb"[0-9a-f]{64}|pod[0-9a-f]{8}[-_][0-9a-f_-]{27}|/(job_\d+)(?=/|\n|\Z)")


class ProcessStat(NamedTuple):
    """Identity, name and parent pid of a process, from /proc/PID/stat."""

    key: ProcessKey
    comm: str
    parent: int


def process_stat(host: Host, pid: int) -> ProcessStat | None:
    """The process that has this pid now, None if there is none or it is hidden (``hidepid``)."""
    try:
        raw = read_file(host.proc(str(pid), "stat"), 1024)
        head, _, tail = raw.rpartition(b")")
        fields = tail.split(None, 20)
        comm = head.partition(b"(")[2].decode("utf-8", "replace")
        return ProcessStat(ProcessKey(pid, int(fields[19])), comm, int(fields[1]))
    except (Unavailable, ValueError, IndexError):
        return None


def command_line(host: Host, pid: int) -> bytes:
    """The raw command line, empty for kernel threads, zombies and hidden processes."""
    try:
        return read_file(host.proc(str(pid), "cmdline"), MAX_COMMAND)
    except Unavailable:
        return b""


def environment(host: Host, pid: int, names: Collection[str]) -> dict[str, str]:
    """Values of the variables ``names`` at the start of the program; no other variable is decoded.

    Empty without permission: the kernel requires the rights of a debugger (ptrace(2)).
    """
    try:
        raw = read_file(host.proc(str(pid), "environ"), _MAX_ENVIRONMENT)
    except Unavailable:
        return {}
    found = {}
    entries = b"\0" + raw
    for name in names:
        start = f"\0{name}=".encode()
        if (offset := entries.find(start)) >= 0:
            value = entries[offset + len(start) :].partition(b"\0")[0]
            found[name] = value.decode("utf-8", "replace")
    return found


def container_marks(host: Host, pid: int) -> frozenset[bytes] | None:
    """Ids of the containers, pods and Slurm jobs of a process; empty for a host process, None if hidden."""
    try:
        raw = read_file(host.proc(str(pid), "cgroup"), 65_536)
    except Unavailable:
        return None
    return frozenset(match[0] for match in _CONTAINER.finditer(raw))
