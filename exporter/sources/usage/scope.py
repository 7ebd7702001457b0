"""Whether the groups and /proc/stat that are visible here cover the machine that RAPL and boards measure.

Joules of a machine are not divided by the busy time of one container of it: with its neighbours' work at its charge, a
web server in an LXC container owed 130 times its share (henrygd/beszel#2332).
"""

from __future__ import annotations

import os
from typing import NamedTuple

from ...host import Host, count_cpus
from ...records import Unavailable
from ..cpu.processor import read_processor
from .cgroup_tree import Hierarchy, find_hierarchy


class Scope(NamedTuple):
    """``partial`` is why the visible groups are only part of the metered machine, "" if they are all of it.

    ``foreign_stat``: the CPU times of /proc/stat are not that machine's either.
    """

    partial: str = ""
    foreign_stat: bool = False


def read_scope(host: Host) -> Scope:
    """Compare what can be seen with the machine."""
    if read_processor(host).virtual:
        return Scope(
            "this is a virtual machine, and the meter may be its host's (--attribution.cpu-scope=machine if not)",
            foreign_stat=True,
        )
    try:
        tree = find_hierarchy(host)
    except Unavailable:
        return Scope(foreign_stat=_is_emulated(host))  # processes then come from /proc
    if not _is_part(tree):
        return Scope()
    return Scope(f"{tree.root} is only our own subtree of the host's cgroups", foreign_stat=_is_emulated(host))


def is_whole(tree: Hierarchy) -> bool:
    """Whether a tree's root is the kernel's, and not that of a container's namespace.

    Only a v1 hierarchy's true root has release_agent, and only below v2's are there cgroup.events (cgroups(7)).
    """
    if tree.file == "cpu.stat":
        return not os.path.exists(f"{tree.root}/cgroup.events")
    return os.path.exists(f"{tree.root}/release_agent")


def _is_part(tree: Hierarchy) -> bool:
    """Whether a tree certainly is not a whole one: of v1 every group has notify_on_release."""
    return not is_whole(tree) and (tree.file == "cpu.stat" or os.path.exists(f"{tree.root}/notify_on_release"))


def _is_emulated(host: Host) -> bool:
    """Whether /proc/stat is a container's: served by lxcfs, or with fewer CPUs than the machine has."""
    stat = host.proc("stat")
    try:
        mounts = host.text(host.proc("self/mounts"))
    except Unavailable:
        mounts = ""
    for line in mounts.splitlines():
        fields = line.split()
        if len(fields) > 2 and fields[1] == stat and "lxcfs" in fields[2]:
            return True
    try:
        present = count_cpus(host.text(host.sys("devices/system/cpu/present")))
        online = count_cpus(host.text(host.sys("devices/system/cpu/online")))
        lines = sum(line[:3] == "cpu" and line[3:4].isdigit() for line in host.text(stat).splitlines())
    except (Unavailable, ValueError):
        return False
    return lines < min(present, online)
