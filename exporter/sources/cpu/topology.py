"""Which online CPUs belong to which package and die: the capacity of a socket's meter."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

from ...host import Host, cpu_list
from ...records import Unavailable


@dataclass(frozen=True, slots=True)
class Topology:
    """CPUs per (package, die) as the kernel numbers them; ``total`` is all online CPUs."""

    cpus: Mapping[tuple[int, int], int]
    total: int

    @property
    def packages(self) -> list[int]:
        """Package numbers in order; empty where the kernel does not report them."""
        return sorted({package for package, _ in self.cpus})

    def capacity(self, package: int, die: int | None = None, packages: int = 1) -> float:
        """Busy seconds per second of a package (or one die of it) at full use.

        A package that the kernel does not report gets an equal share: all CPUs divided by ``packages``.
        """
        known = sum(count for (p, d), count in self.cpus.items() if p == package and die in (None, d))
        return float(known or self.total / max(1, packages))

    def package_of_socket(self, socket: int) -> int:
        """Package number of the n-th socket: firmware counts sockets from 0, Arm package ids need not."""
        packages = self.packages
        if socket in packages or socket >= len(packages):
            return socket
        return packages[socket]


def cpu_packages(host: Host) -> dict[int, int | None]:
    """Online CPU number → package number, None where the kernel does not report one; empty without /sys."""
    try:
        online = cpu_list(host.text(host.sys("devices/system/cpu/online")))
    except (Unavailable, ValueError):
        return {}
    return {cpu: _number(host, cpu, "physical_package_id") for cpu in online}


def read_topology(host: Host) -> Topology:
    """Read ``/sys/devices/system/cpu/cpu*/topology`` (Documentation/admin-guide/cputopology.rst)."""
    cpus: Counter[tuple[int, int]] = Counter()
    for cpu, package in cpu_packages(host).items():
        if package is not None:
            cpus[package, _number(host, cpu, "die_id") or 0] += 1
    return Topology(cpus, host.cpu_count())


def _number(host: Host, cpu: int, file: str) -> int | None:
    """A number of 0 or more; None where the file is missing or holds -1 (not known)."""
    try:
        number = int(host.text(host.sys(f"devices/system/cpu/cpu{cpu}/topology/{file}")))
    except (Unavailable, ValueError):
        return None
    return number if number >= 0 else None
