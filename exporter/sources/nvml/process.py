"""The source of NVIDIA's cards, in a child process."""

from __future__ import annotations

import os

from ...host import Host
from ...records import Problem
from ..driver_process import DriverChild, DriverProcess, Timeouts, has_library
from .library import INSTALL

_LIBRARY = "libnvidia-ml.so.1"


class NvmlProcess(DriverProcess):
    """Queries `NvmlSource` in a child process."""

    def __init__(self, host: Host, timeouts: Timeouts | None = None) -> None:
        driver = DriverChild(
            name="nvml",
            module=f"{__package__}.child",
            is_present=_is_present,
            absent=Problem("not_found", f"no NVIDIA driver: {_LIBRARY} not found", INSTALL),
            messages="NVRM and Xid",
        )
        super().__init__(host, driver, timeouts)


def _is_present(host: Host) -> bool:
    return any(map(os.path.exists, ("/dev/nvidiactl", host.proc("driver/nvidia")))) or has_library(_LIBRARY)
