"""DRM client statistics in /proc/PID/fdinfo/FD (Documentation/gpu/drm-usage-stats.rst), and busy seconds from them."""

from __future__ import annotations

from typing import NamedTuple

_SHADERS = frozenset({"gfx", "compute", "render", "rcs", "ccs"})
"""Engine classes that feed the same execution units: graphics and compute of amdgpu, i915 and xe."""

_UNITS = {b"KiB": 1024, b"MiB": 1024**2, b"GiB": 1024**3}

_VRAM = ("drm-memory-vram", "drm-resident-vram", "drm-resident-local")
"""Memory on the card, by the names of amdgpu (old and new), xe and i915."""


class Stats(NamedTuple):
    """One client as reported in its fdinfo; the mappings are by engine class.

    ``busy`` counts nanoseconds, or GPU cycles if ``clock`` has the class: then ``clock`` is the cycle counter that also
    advances while the engine is idle (xe). ``capacity`` is the number of engines of a class if not 1.
    """

    client: int
    address: str
    busy: dict[str, int]
    clock: dict[str, int]
    capacity: dict[str, int]
    vram_bytes: int


def parse_fdinfo(raw: bytes) -> Stats | None:
    """Parse an fdinfo file; None if it has no DRM client. Malformed lines are ignored."""
    client: int | None = None
    address = ""
    busy: dict[str, int] = {}
    clock: dict[str, int] = {}
    capacity: dict[str, int] = {}
    memory: dict[str, int] = {}
    for line in raw.split(b"\n"):
        if not line.startswith(b"drm-"):
            continue
        name, _, rest = line.partition(b":")
        words = rest.split()
        key = name.strip().decode("ascii", "replace")
        if key == "drm-pdev" and words:
            address = words[0].decode("ascii", "replace").lower()
            continue
        if not words or not words[0].isdigit() or len(words[0]) > 20:
            continue
        value = int(words[0])
        if key == "drm-client-id":
            client = value
        elif key.startswith("drm-engine-capacity-"):
            capacity[key[20:]] = max(1, value)
        elif key.startswith("drm-engine-"):
            busy[key[11:]] = value
        elif key.startswith("drm-cycles-"):
            busy.setdefault(key[11:], value)
        elif key.startswith("drm-total-cycles-"):
            clock[key[17:]] = value
        elif key.startswith(_VRAM):
            memory[key] = value * _UNITS.get(words[1] if len(words) > 1 else b"", 1)
    if client is None:
        return None
    return Stats(client, address, busy, clock, capacity, max(memory.values(), default=0))


class Engines:
    """The engine counters of one client as last seen; `advance` turns them into busy seconds.

    A value below the largest one seen is ignored until it exceeds that, as the kernel documentation demands: drivers
    may step back temporarily. ``hertz`` is the rate of the card's cycle counters, learned from all its clients and used
    where there is no clock yet, or where the clock wraps (xe's has 36 bits: an hour).
    """

    def __init__(self, stats: Stats, hertz: dict[str, float], *, from_zero: bool) -> None:
        self._busy = dict.fromkeys(stats.busy, 0) if from_zero else dict(stats.busy)
        self._clock = dict(stats.clock)
        self._hertz = hertz

    def advance(self, stats: Stats, elapsed: float) -> float:
        """Seconds the client was busy in the last ``elapsed`` seconds, at most ``elapsed``.

        Each engine of a class counts 1/capacity. Graphics and compute run on the same units, so they are added. Copy
        and video engines run in parallel to them, so only the busiest one counts, and only if it was busier: adding all
        would charge a player twice for a second in which it decodes and draws.
        """
        shaders = beside = 0.0
        for name, value in stats.busy.items():
            seconds = self._seconds(name, value, stats.clock.get(name), elapsed) / stats.capacity.get(name, 1)
            if name in _SHADERS:
                shaders += seconds
            else:
                beside = max(beside, seconds)
        return min(elapsed, max(shaders, beside))

    def _seconds(self, name: str, value: int, clock: int | None, elapsed: float) -> float:
        before = self._busy.get(name, 0 if clock is None else value)
        delta = max(0, value - before)
        self._busy[name] = max(value, before)
        if clock is None:
            return delta * 1e-9
        cycles = clock - self._clock.get(name, clock)
        self._clock[name] = clock
        if cycles > 0 and elapsed > 0:
            self._hertz[name] = cycles / elapsed
        hertz = self._hertz.get(name, 0.0)
        return delta / hertz if hertz else 0.0
