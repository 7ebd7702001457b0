"""Turn raw readings into joules since the last reading, whatever the counter did in between."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Literal, NamedTuple

from ..records import Device, EnergyReading, PowerReading

JITTER_JOULES = 1.0
"""A counter may step back this far without being called reset: sensors re-read a torn register (fault 5)."""

SLACK_SECONDS = 0.1
"""Counters move in steps of up to 100 ms, so a short interval may show that much more than its own joules."""

GAP_SECONDS = 10.0
"""Power is not integrated across a longer silence than this: nobody knows what happened in it."""

Event = Literal["first", "ok", "wrap", "reset", "implausible", "gap"]


class Point(NamedTuple):
    """A counter's value at a boot time, in joules and seconds."""

    joules: float
    at: float


class Delta(NamedTuple):
    """Joules a device used in the ``seconds`` since its last good reading.

    ``event`` says how sure that is. With ``gap`` the joules are a lower bound for time nobody watched:
    they belong to the device but to no workload. ``first``, ``reset`` and ``implausible`` carry 0 J.
    """

    device: Device
    joules: float
    seconds: float
    event: Event


def advance(since: Point, to: Point, wraps_at: float | None, max_watts: float) -> tuple[float, Event] | None:
    """Joules from one counter value to a later one, or None if no plausible power explains them.

    A decrease is a wrap only if the range is known and the implied power stays below ``max_watts``; a step
    back of at most `JITTER_JOULES` counts as none. Where the counter could have wrapped more than once,
    the sure lower bound is given as a ``gap``: what it counted since it last passed zero.
    """
    seconds = to.at - since.at
    step = to.joules - since.joules
    ceiling = max_watts * (seconds + SLACK_SECONDS)
    if wraps_at is not None and to.joules > wraps_at:
        return None
    if wraps_at is not None and seconds * max_watts >= wraps_at:
        return (step if step >= 0 else to.joules), "gap"
    if step >= 0:
        return (step, "ok") if step <= ceiling else None
    if step >= -JITTER_JOULES:
        return 0.0, "ok"
    if wraps_at is not None and 0 <= step + wraps_at <= ceiling:
        return step + wraps_at, "wrap"
    return None


class EnergyMeter:
    """One cumulative counter: keeps the last trusted value, and beside it one that nobody believes yet.

    A value that does not follow from the trusted one is held as a suspect and books nothing. If the next
    reading follows from the trusted value, the suspect was a glitch and no joule is lost (faults 4, 18);
    if it follows from the suspect, the counter was reset (fault 3).
    """

    def __init__(self, last: Point | None = None) -> None:
        self.last = last
        self.wraps = 0
        self.resets = 0
        self.idle_reads = 0
        self._suspect: Point | None = None
        self._resumed = last is not None

    def feed(self, reading: EnergyReading) -> Delta:
        """Take a reading and say how many joules it adds. After `__init__` with a point, the first is a gap."""
        device, point = reading.device, Point(reading.joules, reading.at)
        if self.last is None:
            self.last = point
            return Delta(device, 0.0, 0.0, "first")
        if not (math.isfinite(point.joules) and point.joules >= 0) or point.at <= self.last.at:
            return Delta(device, 0.0, 0.0, "implausible")
        since = self.last
        found = advance(since, point, reading.wraps_at, device.max_watts)
        if found is None and self._suspect is not None:
            since = self._suspect
            found = advance(since, point, reading.wraps_at, device.max_watts)
        if found is None:
            fell = point.joules < self.last.joules
            self.resets += fell
            self._suspect = point
            return Delta(device, 0.0, 0.0, "reset" if fell else "implausible")
        joules, event = found
        self._suspect = None
        self.wraps += event == "wrap" or (event == "gap" and point.joules < since.joules)
        self.idle_reads = self.idle_reads + 1 if joules == 0 else 0
        # A step back keeps the high-water mark, so that what was booked once is not booked again.
        stepped_back = event == "ok" and point.joules < since.joules
        self.last = Point(since.joules, point.at) if stepped_back else point
        if self._resumed:
            self._resumed = False
            event = "gap"
        return Delta(device, joules, point.at - since.at, event)


class PowerMeter:
    """A power gauge integrated by the trapezoid rule, never across more than `GAP_SECONDS`."""

    def __init__(self) -> None:
        self.wraps = 0
        self.resets = 0
        self.idle_reads = 0
        self._last: PowerReading | None = None

    def feed(self, reading: PowerReading) -> Delta:
        """Take a reading and say how many joules the time since the last one adds."""
        device, last = reading.device, self._last
        if not 0 <= reading.watts <= device.max_watts:
            return Delta(device, 0.0, 0.0, "implausible")
        if last is not None and reading.at <= last.at:
            return Delta(device, 0.0, 0.0, "implausible")
        self._last = reading
        if last is None:
            return Delta(device, 0.0, 0.0, "first")
        seconds = reading.at - last.at
        if seconds > GAP_SECONDS:
            return Delta(device, 0.0, 0.0, "gap")
        return Delta(device, (last.watts + reading.watts) / 2 * seconds, seconds, "ok")


class Meters:
    """All devices' meters, by device id; a device that vanishes keeps its meter for when it returns."""

    def __init__(self, points: Mapping[str, Point] | None = None) -> None:
        self._meters: dict[str, EnergyMeter | PowerMeter] = {
            device: EnergyMeter(point) for device, point in (points or {}).items()
        }

    def feed(self, readings: Iterable[EnergyReading | PowerReading]) -> list[Delta]:
        """Joules since the last time, one entry per reading."""
        deltas = []
        for reading in readings:
            meter = self._meters.get(reading.device.id)
            if isinstance(reading, EnergyReading):
                if not isinstance(meter, EnergyMeter):
                    meter = self._meters[reading.device.id] = EnergyMeter()
                deltas.append(meter.feed(reading))
            else:
                if not isinstance(meter, PowerMeter):
                    meter = self._meters[reading.device.id] = PowerMeter()
                deltas.append(meter.feed(reading))
        return deltas

    def forget(self, device: str) -> None:
        """Have a device begin anew when it is read again."""
        self._meters.pop(device, None)

    def counts(self, device: str) -> tuple[int, int, int]:
        """Wraps and resets so far, and how many readings in a row did not move."""
        meter = self._meters[device]
        return meter.wraps, meter.resets, meter.idle_reads

    def points(self) -> dict[str, Point]:
        """Last trusted counter values, for the checkpoint."""
        return {
            device: meter.last
            for device, meter in self._meters.items()
            if isinstance(meter, EnergyMeter) and meter.last is not None
        }
