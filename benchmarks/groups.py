"""A cgroup v2 subtree of our own, which the exporter takes for the whole node."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from .native import CannotMeasure


def mount_point() -> Path:
    """Where cgroup2 is mounted. Raises `CannotMeasure`."""
    with open("/proc/self/mounts", encoding="utf-8") as mounts:
        for line in mounts:
            _, where, kind, *_ = line.split()
            if kind == "cgroup2":
                return Path(where)
    raise CannotMeasure("no cgroup2 hierarchy is mounted")


@contextlib.contextmanager
def subtree(name: str) -> Iterator[Path]:
    """A fresh group below the root of cgroup2, removed with all in it at the end. Raises `CannotMeasure`.

    Whoever was started in it must be gone by then. A SIGTERM ends the program as an exception does, so that
    nothing stays behind then either.
    """
    root = mount_point() / f"{name}-{os.getpid()}"
    try:
        root.mkdir()
    except OSError as error:
        raise CannotMeasure(f"cannot make cgroups (run as root on a writable cgroup2): {error}") from None
    previous = signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    try:
        yield root
    finally:
        remove(root)
        signal.signal(signal.SIGTERM, previous)


def container(number: int) -> str:
    """Name of the group of a Docker container, as systemd's cgroup driver makes it."""
    return f"docker-{number:012x}{'0' * 52}.scope"


def pod_container(number: int) -> str:
    """The group of a pod's container, with the kubelet's systemd driver; ``{0}`` is the pod's number."""
    pod = "kubepods-burstable-pod00000000_0000_4000_8000_{0:012x}"
    return f"kubepods.slice/kubepods-burstable.slice/{pod}.slice/cri-containerd-{number:052x}{{0:012x}}.scope"


def container_label(number: int) -> str:
    """The ``container`` label of that group."""
    return f"{number:012x}"


def remove(root: Path) -> None:
    """Remove a group and all below it, as soon as their last processes are gone."""
    for directory, _, _ in os.walk(root, topdown=False):
        for attempt in range(50):
            try:
                os.rmdir(directory)
                break
            except OSError:  # its last process is on its way out
                time.sleep(0.02 * (attempt + 1))
