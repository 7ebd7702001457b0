"""LXC, LXD, Incus and Proxmox system containers (lxc.container.conf(5), ``lxc.cgroup.dir``)."""

from __future__ import annotations

import re
from itertools import pairwise

from ...records import Workload
from .systemd import printable

_PARENT = re.compile(r"lxc(?:\.payload|\.monitor)?")
_NAMED = re.compile(r"lxc\.(?:payload|monitor)[.-](.+)", re.DOTALL)


def resolve(path: str) -> Workload | None:
    """One row per system container, by its name; its monitor process counts towards it.

    The runtime is ``systemd``: like a unit of the host, it is a service of the machine and has no image.
    """
    for part, child in pairwise((*path.split("/"), "")):
        named = _NAMED.fullmatch(part)
        name = named[1] if named else child if _PARENT.fullmatch(part) else ""
        if name:
            return Workload(container=printable(name), runtime="systemd")
    return None
