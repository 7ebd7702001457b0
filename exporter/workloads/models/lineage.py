"""From a process up to the one that started it, as far as both can work for the same model."""

from __future__ import annotations

from collections.abc import Iterator

from ...host import Host
from ...records import ProcessKey
from .commandline import is_shell
from .proc import container_marks, process_stat

_DEPTH = 16

_BORDERS = frozenset(
    {
        *("systemd", "init", "login", "sshd", "sshd-session", "cron", "crond", "atd", "sudo"),
        *("tmux", "tmux: server", "screen", "SCREEN", "supervisord", "runsv", "runsvdir", "s6-supervise", "s6-svscan"),
        *("containerd-shim", "conmon", "crio", "dockerd", "containerd", "podman", "kubelet", "slurmstepd"),
    }
)
"""Whoever starts unrelated things: what they do themselves says nothing of their children."""


def is_border(comm: str) -> bool:
    """Whether a process of this name hands no model down to its children: a shell, a session, an init, a runtime."""
    return comm in _BORDERS or is_shell(comm) or comm.startswith("containerd-shim")


def ancestors(host: Host, key: ProcessKey) -> Iterator[ProcessKey]:
    """Parent, grandparent, and so on, up to the first border; nothing if ``key`` is not who has the pid now.

    A parent is never younger than its child: a pid that was reused in between ends the walk (fault 34). Without
    ``ptrace`` rights, without locks; two files per step at most.
    """
    child = process_stat(host, key.pid)
    if child is None or child.key != key:
        return
    for _ in range(_DEPTH):
        if child.parent in (0, child.key.pid):
            return
        parent = process_stat(host, child.parent)
        if parent is None or parent.key.start_ticks > child.key.start_ticks or is_border(parent.comm):
            return
        yield parent.key
        child = parent


def share_container(host: Host, one: ProcessKey, other: ProcessKey) -> bool:
    """Whether two processes are in the same container, or both in none. Not if that cannot be read."""
    marks = container_marks(host, one.pid)
    return marks is not None and marks == container_marks(host, other.pid)
