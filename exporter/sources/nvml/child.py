"""The process in which NVIDIA's driver is called. Between two lines it reads the counters of the watched cards."""

from __future__ import annotations

import sys

from ...host import Host
from ..driver_child import run
from .fast_reads import FastReads
from .source import NvmlSource


def _make(host: Host) -> tuple[NvmlSource, FastReads]:
    source = NvmlSource(host)
    return source, FastReads(source.counter_joules, host.clock)


if __name__ == "__main__":
    run(sys.argv[1:], _make)
