"""CPU use per process through psutil, for systems without /proc, so that the exporter also runs on other laptops."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ...host import Host
from ...records import CpuUse, GroupKey, GroupUse, Process, ProcessKey, ProcessUse, Reading
from ..cpu.cpu_times import psutil_cpu_times

if TYPE_CHECKING:
    import psutil

_GROUP = GroupKey("/", 0)


class PortableSource:
    """All processes in one group, because other systems have no cgroups; use of exited ones is reported separately."""

    name = "psutil"

    def __init__(self, host: Host) -> None:
        self._host = host
        self._last: dict[ProcessKey, float] | None = None
        self._last_busy = 0.0
        self._last_at = 0.0

    def read(self, now: float) -> Reading:
        """Busy seconds since the last call. Raises `Unavailable`."""
        import psutil  # noqa: PLC0415 - 0.5 MiB that a Linux host never needs

        busy = psutil_cpu_times().busy
        current: dict[ProcessKey, float] = {}
        uses: list[ProcessUse] = []
        last = self._last
        for process in psutil.process_iter():
            found = _read(process)
            if found is None:
                continue
            identity, seconds = found
            current[identity.key] = seconds
            # A new process started since the last read, so all of its CPU time counts.
            used = seconds - last.get(identity.key, 0.0) if last is not None else 0.0
            if used > 0:
                uses.append(ProcessUse(identity, used))
        window, self._last_at = now - self._last_at, now
        spent, self._last_busy = busy - self._last_busy, busy
        self._last = current
        if last is None:
            return Reading(cpu=CpuUse(now, 0.0, 0.0, started=(_GROUP,)))
        explained = sum(use.seconds for use in uses)
        rest = max(0.0, spent - explained)
        groups = (GroupUse(_GROUP, explained, tuple(uses)),) if uses else ()
        exited = tuple(last.keys() - current.keys())
        return Reading(cpu=CpuUse(now, window, explained + rest, groups, 0.0, rest, exited=exited))

    def close(self) -> None:
        """Nothing is kept open."""


def _read(process: psutil.Process) -> tuple[Process, float] | None:
    import psutil  # noqa: PLC0415

    try:
        with process.oneshot():
            times = process.cpu_times()
            key = ProcessKey(process.pid, int(process.create_time() * 100))
            return Process(key, process.name()), times.user + times.system
    except (psutil.Error, OSError):
        return None
