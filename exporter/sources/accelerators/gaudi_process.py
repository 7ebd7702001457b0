"""The source of Intel Gaudi cards, in a child process."""

from __future__ import annotations

import os

from ...host import Host
from ...records import Problem
from ..driver_process import DriverChild, DriverProcess, Timeouts, has_library

LIBRARY = "libhlml.so"
PATH = "/usr/lib/habanalabs/libhlml.so"
"""Where Intel's packages install it, which the dynamic linker does not search."""

INSTALL = (
    "nothing to do without an Intel Gaudi card; else install habanalabs-firmware-tools, and in a container mount "
    "/usr/lib/habanalabs read-only"
)


class GaudiProcess(DriverProcess):
    """Queries `exporter.sources.accelerators.gaudi.GaudiSource` in a child process."""

    def __init__(self, host: Host, timeouts: Timeouts | None = None) -> None:
        driver = DriverChild(
            name="gaudi",
            module=f"{__package__}.gaudi_child",
            is_present=lambda _: os.path.exists(PATH) or has_library(LIBRARY),
            absent=Problem("not_found", f"no Intel Gaudi driver: {PATH} not found", INSTALL),
            messages="habanalabs",
        )
        super().__init__(host, driver, timeouts)
