"""Ancestors of a process that may work for the same model."""

from __future__ import annotations

from collections.abc import Iterator

from ...host import Host
from ...records import ProcessKey
from ..proc import ProcessStat, container_marks, process_stat
from .commandline import is_shell

_DEPTH = 16

_BOUNDARIES = frozenset(
    {
        *("systemd", "init", "login", "sshd", "sshd-session", "cron", "crond", "atd", "sudo"),
        *("tmux", "tmux: server", "screen", "SCREEN", "supervisord", "runsv", "runsvdir", "s6-supervise", "s6-svscan"),
        *("containerd-shim", "conmon", "crio", "dockerd", "containerd", "podman", "kubelet", "slurmstepd"),
    }
)
"""Programs that start unrelated processes: evidence on their command lines does not apply to their children."""


def is_boundary(comm: str) -> bool:
    """Whether children of a process with this ``comm`` inherit no model: a shell, session, init system or runtime."""
    return comm in _BOUNDARIES or is_shell(comm) or comm.startswith("containerd-shim")


def ancestors(host: Host, key: ProcessKey) -> Iterator[ProcessKey]:
    """Parent, grandparent, and so on, up to the first boundary; nothing if another process has the pid by now.

    A parent is never younger than its child, so a pid that was reused in between ends the walk. Needs no ``ptrace``
    rights and no locks; reads at most two files per step.
    """
    child = process_stat(host, key.pid)
    if child is None or child.key != key:
        return
    for _ in range(_DEPTH):
        if child.parent in (0, child.key.pid):
            return
        parent = process_stat(host, child.parent)
        if parent is None or parent.key.start_ticks > child.key.start_ticks or is_boundary(parent.comm):
            return
        yield parent.key
        child = parent


def starter(host: Host, key: ProcessKey) -> ProcessStat | None:
    """The parent of a process, at which `ancestors` ends if it is a boundary; None if there is none, or it is not."""
    child = process_stat(host, key.pid)
    parent = process_stat(host, child.parent) if child is not None and child.key == key else None
    return parent if parent is not None and is_boundary(parent.comm) else None


def share_container(host: Host, one: ProcessKey, other: ProcessKey) -> bool:
    """Whether two processes are in the same container, or both in none. False if their cgroups cannot be read."""
    marks = container_marks(host, one.pid)
    return marks is not None and marks == container_marks(host, other.pid)
