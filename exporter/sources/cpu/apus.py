"""Server APUs, whose GPU's meter is that of the whole socket: which package is within which card.

The kernel's documentation of amdgpu says of ``power1_average`` and ``power1_input``: "On APUs this includes the CPU".
An MI300A is such an APU. It differs from those of laptops, where the package's counter includes the GPU, and it has no
``vddnb`` voltage that would distinguish it from a card (amdgpu_pm.c).
"""

from __future__ import annotations

import os

from ...host import Host, cpu_list, names_in
from ...records import Unavailable
from ..drm.card import gpu_id
from .topology import Topology, cpu_packages

_APUS = frozenset({"0x74a0"})
"""PCI ids of amdgpu: MI300A."""


def enclosing_cards(host: Host, topology: Topology) -> dict[int, str]:
    """Package number → id of the card whose meter includes it; empty on machines without such an APU."""
    cards: dict[int, str] = {}
    for chip in names_in(host.sys("class/hwmon")):
        folder = host.sys("class/hwmon", chip, "device")
        try:
            if host.text(f"{folder}/device") in _APUS and host.text(host.sys("class/hwmon", chip, "name")) == "amdgpu":
                package = _package(host, int(host.text(f"{folder}/numa_node")), topology)
                address = os.path.basename(os.path.realpath(folder))
                cards[package] = gpu_id(host, "amdgpu", address, folder)
        except (Unavailable, ValueError):
            continue
    return cards


def _package(host: Host, node: int, topology: Topology) -> int:
    """The package of a NUMA node's CPUs. Without a list of them, or a node (-1), nodes are numbered as sockets are."""
    try:
        cpus = cpu_list(host.text(host.sys(f"devices/system/node/node{node}/cpulist")))
        package = cpu_packages(host).get(cpus[0])
    except (Unavailable, ValueError, IndexError):
        package = None
    return topology.package_of_socket(max(0, node)) if package is None else package
