"""READ: one source per file; this is the list of them."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping

from ..host import Host
from ..records import Source, Unavailable
from .cgroups import CgroupSource, find_hierarchy
from .estimate import EstimateSource
from .hwmon import HwmonSource
from .portable import PortableSource
from .procfs import ProcfsSource
from .rapl import RaplSource

WattsPerCpu = tuple[float, float]


def build(
    host: Host, enabled: Mapping[str, bool | None], estimate_watts_per_cpu: WattsPerCpu | None = None
) -> list[Source]:
    """Make the sources of this machine; ``enabled`` False leaves one out, None lets the machine decide.

    /proc tells who used the CPUs only where cgroups do not; psutil only where there is no /proc.
    """
    grouped = enabled.get("cgroups") is not False and _has_groups(host)
    registry: Mapping[str, Callable[[], Source]] = {
        "rapl": lambda: RaplSource(host),
        "hwmon": lambda: HwmonSource(host),
        "estimate": lambda: EstimateSource(host, estimate_watts_per_cpu),
        "cgroups": lambda: CgroupSource(host),
        "procfs": lambda: ProcfsSource(host, processes=not grouped),
    }
    sources = [make() for name, make in registry.items() if enabled.get(name) is not False]
    if not os.path.exists(host.proc("stat")):
        sources = [source for source in sources if source.name not in ("cgroups", "procfs")]
        sources.append(PortableSource(host))
    return sources


def _has_groups(host: Host) -> bool:
    try:
        find_hierarchy(host)
    except Unavailable:
        return False
    return True
