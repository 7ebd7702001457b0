"""The exporter's own ``process_*`` metrics, named as every client library names them.

prometheus_client's collector opens three files and builds six families for each scrape; that was half of
what a scrape of a thousand series cost.
"""

from __future__ import annotations

import contextlib
import math
import os
import time
from collections.abc import Iterator

from .families import Family, Kind

try:
    import resource
except ImportError:  # not Unix
    resource = None  # type: ignore[assignment]

_FAMILIES: tuple[tuple[str, Kind, str], ...] = (
    ("process_virtual_memory_bytes", "gauge", "Virtual memory size in bytes."),
    ("process_resident_memory_bytes", "gauge", "Resident memory size in bytes."),
    ("process_start_time_seconds", "gauge", "Start time of the process since unix epoch in seconds."),
    ("process_cpu_seconds_total", "counter", "Total user and system CPU time spent in seconds."),
    ("process_open_fds", "gauge", "Number of open file descriptors."),
    ("process_max_fds", "gauge", "Maximum number of open file descriptors."),
)


class OwnProcess:
    """Reads this process; what the system does not tell is left out. ``proc`` is where its /proc is mounted."""

    def __init__(self, proc: str = "/proc") -> None:
        self._self = f"{proc}/self"
        self._started = _start_time(proc)
        self._page = os.sysconf("SC_PAGE_SIZE")
        self._prefixes = {False: _prefixes(openmetrics=False), True: _prefixes(openmetrics=True)}

    def body(self, *, openmetrics: bool = False) -> bytes:
        """The lines of all of them with their headers, in the format asked for."""
        prefixes = self._prefixes[openmetrics]
        return b"".join([b"%s%.14g\n" % (prefixes[name], value) for name, value in self._values()])

    def _values(self) -> Iterator[tuple[str, float]]:
        with contextlib.suppress(OSError, ValueError, IndexError):
            with open(f"{self._self}/statm", "rb", buffering=0) as file:
                sizes = file.read().split()
            yield "process_virtual_memory_bytes", int(sizes[0]) * self._page
            yield "process_resident_memory_bytes", int(sizes[1]) * self._page
        if self._started is not None:
            yield "process_start_time_seconds", self._started
        yield "process_cpu_seconds_total", time.process_time()
        with contextlib.suppress(OSError):
            # One of them is the listing's own.
            yield "process_open_fds", len(os.listdir(f"{self._self}/fd")) - 1
        if resource is not None:
            most = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
            yield "process_max_fds", math.inf if most == resource.RLIM_INFINITY else most


def _prefixes(*, openmetrics: bool) -> dict[str, bytes]:
    families = [Family(name, kind, text, (), lambda _: ()) for name, kind, text in _FAMILIES]
    return {family.name: family.header(openmetrics=openmetrics) + f"{family.name} ".encode() for family in families}


def _start_time(proc: str) -> float | None:
    """Unix seconds, from the boot time and field 22 of /proc/self/stat (proc_pid_stat(5))."""
    try:
        with open(f"{proc}/self/stat", "rb") as file:
            ticks = int(file.read().rpartition(b")")[2].split()[19])
        with open(f"{proc}/stat", "rb") as file:
            boot = next(int(line.split()[1]) for line in file if line.startswith(b"btime "))
    except (OSError, ValueError, IndexError, StopIteration):
        return None
    return boot + ticks / os.sysconf("SC_CLK_TCK")
