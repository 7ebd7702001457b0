"""Busy and total CPU seconds of this machine since boot, from /proc/stat or, on systems without /proc, from psutil.

Busy is user + nice + system + irq + softirq time. Guest time is already part of user (proc_stat(5)); time stolen by the
hypervisor and time spent waiting for I/O consume no CPU here.
"""

from __future__ import annotations

from typing import NamedTuple

from ...records import Unavailable

_COLUMNS = 8
"""user nice system idle iowait irq softirq steal; kernels before 2.6.11 write fewer, but never fewer than four."""


class CpuTimes(NamedTuple):
    """CPU seconds since boot; ``interrupts`` (handlers) is part of ``busy``, ``by_cpu`` is busy time by CPU number."""

    busy: float
    total: float
    interrupts: float
    by_cpu: dict[int, float]


def parse_cpu_times(raw: bytes, hertz: int) -> CpuTimes:
    """Parse the ``cpu`` lines at the start of /proc/stat, in ticks of 1/``hertz`` s. Raises `Unavailable`."""
    by_cpu: dict[int, float] = {}
    busy = total = interrupts = None
    padding: tuple[int, ...] = ()
    for line in raw.split(b"\n"):
        if not line.startswith(b"cpu"):
            break
        name, *fields = line.split()
        try:
            if name == b"cpu":
                if not all(map(bytes.isdigit, fields)) or len(fields) < 4:
                    break
                padding = (0,) * (_COLUMNS - len(fields))
            ticks = (*map(int, fields[:_COLUMNS]), *padding)
            user, nice, system, idle, iowait, irq, softirq, steal = ticks
            seconds = (user + nice + system + irq + softirq) / hertz
            if name == b"cpu":
                whole = seconds + (idle + iowait + steal) / hertz
                if total is None or whole > total:  # lxcfs may write a second line, the first all zeros
                    busy, total, interrupts = seconds, whole, (irq + softirq) / hertz
            else:
                by_cpu[int(name[3:])] = seconds
        except ValueError:
            break
    if busy is None or total is None or interrupts is None:
        raise Unavailable("implausible", f"no line of CPU times: {raw[:48]!r}")
    return CpuTimes(busy, total, interrupts, by_cpu)


def psutil_cpu_times() -> CpuTimes:
    """The same from psutil (macOS, FreeBSD, Windows), without ``by_cpu``. Raises `Unavailable`."""
    import psutil  # noqa: PLC0415 - not needed where there is a /proc

    try:
        fields = psutil.cpu_times()._asdict()
    except (OSError, RuntimeError) as error:
        raise Unavailable("error", f"psutil.cpu_times: {error}") from None
    interrupts = fields.get("irq", 0.0) + fields.get("softirq", 0.0)
    busy = fields["user"] + fields["system"] + fields.get("nice", 0.0) + interrupts
    return CpuTimes(busy, busy + fields["idle"] + fields.get("iowait", 0.0), interrupts, {})
