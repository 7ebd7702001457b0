"""Lists the processes of this machine, for commands that name them."""

from __future__ import annotations

import os
from collections.abc import Iterator

from ..host import Host
from ..sources.usage.pid_lookup import PidResolver
from ..workloads.explainer import Found


def processes(host: Host) -> Iterator[Found]:
    """Every process of this machine with its cgroup."""
    resolver = PidResolver(host, devices="")
    for name in os.listdir(host.procfs):
        if name.isdecimal() and (one := resolver.find(int(name), 0.0)) is not None:
            yield one.process, one.group
