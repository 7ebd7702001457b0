"""The source of NVIDIA's cards, in a child process."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection

from ...host import Host
from ...records import Problem
from ..driver_process import DriverChild, DriverProcess, Timeouts, has_library, no_cards
from .library import INSTALL

_LIBRARY = "libnvidia-ml.so.1"


class NvmlProcess(DriverProcess):
    """Queries `NvmlSource` in a child process, which reads the counters of the ``watched`` cards more often."""

    def __init__(
        self, host: Host, timeouts: Timeouts | None = None, watched: Callable[[], Collection[str]] = no_cards
    ) -> None:
        driver = DriverChild(
            name="nvml",
            module=f"{__package__}.child",
            is_present=_seems_present,
            absent=Problem("not_found", f"no NVIDIA driver: {_LIBRARY} not found", INSTALL),
            messages="NVRM and Xid",
        )
        super().__init__(host, driver, timeouts, watched)


def _seems_present(host: Host) -> bool:
    return any(map(os.path.exists, ("/dev/nvidiactl", host.proc("driver/nvidia")))) or has_library(_LIBRARY)
