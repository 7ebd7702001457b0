"""Joules since the last reading: counters that wrap, reset or jump, and power gauges."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Literal, NamedTuple

from ..records import Device, EnergyReading, PowerReading

JITTER_JOULES = 1.0
"""A counter may step back this far without counting as reset: some sensors re-read a torn register."""

SLACK_SECONDS = 0.1
"""Counters are updated every 100 ms at worst, so a short interval may contain that much time more."""

GAP_SECONDS = 10.0
"""Power is not integrated across a longer gap than this, because power in between is unknown."""

Event = Literal["first", "ok", "wrap", "reset", "implausible", "gap"]


class Point(NamedTuple):
    """A counter's value at a boot time, in joules and seconds."""

    joules: float
    at: float


class Delta(NamedTuple):
    """Joules a device used in the ``seconds`` since its last good reading.

    ``event`` says how reliable that is. With ``gap`` the joules are a lower bound for time in which no usage was read:
    they count for the device but for no workload. ``first``, ``reset`` and ``implausible`` carry 0 J.
    """

    device: Device
    joules: float
    seconds: float
    event: Event


def gap_seconds(device: Device) -> float:
    """`GAP_SECONDS`, or two values in a row that are missing where a device has one more rarely."""
    return max(GAP_SECONDS, 3.5 * device.period_seconds)


def advance(
    since: Point, to: Point, wraps_at: float | None, max_watts: float, step_joules: float = 0.0
) -> tuple[float, Event] | None:
    """Joules between two counter values, or None if no plausible power explains them.

    A decrease is a wrap only if the range is known and the implied power stays below ``max_watts``; a step
    back of at most `JITTER_JOULES` counts as 0 J. Where the counter could have wrapped more than once, the result is
    the lower bound as a ``gap``: the joules since it last passed zero. ``step_joules`` is the counter's resolution.
    """
    seconds = to.at - since.at
    step = to.joules - since.joules
    ceiling = max_watts * (seconds + SLACK_SECONDS) + step_joules
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
    """One cumulative counter: keeps the last trusted value and, beside it, a suspect one.

    A value that does not follow from the trusted one becomes the suspect and adds 0 J. If the next reading follows
    from the trusted value, the suspect was a glitch and no joule is lost; if it follows from the suspect, the counter
    was reset.
    """

    def __init__(self, last: Point | None = None) -> None:
        self.last = last
        self.wraps = 0
        self.resets = 0
        self.idle_reads = 0
        self._suspect: Point | None = None
        self._resumed = last is not None
        self._stepped = self._resumed

    def feed(self, reading: EnergyReading) -> Delta:
        """The joules that a reading adds. After `__init__` with a point, the first delta is a gap.

        A counter of coarse steps begins with its first step: before it, only the step it is in is known.
        """
        device, point = reading.device, Point(reading.joules, reading.at)
        if self.last is None or (device.step_joules and not self._stepped and point.joules >= self.last.joules):
            self._stepped = self.last is not None and point.joules > self.last.joules
            self.last = point
            return Delta(device, 0.0, 0.0, "first")
        self._stepped = True
        if not (math.isfinite(point.joules) and point.joules >= 0) or point.at <= self.last.at:
            return Delta(device, 0.0, 0.0, "implausible")
        since = self.last
        found = advance(since, point, reading.wraps_at, device.max_watts, device.step_joules)
        if found is None and self._suspect is not None:
            since = self._suspect
            found = advance(since, point, reading.wraps_at, device.max_watts, device.step_joules)
        if found is None:
            fell = point.joules < self.last.joules
            self.resets += int(fell)
            self._suspect = point
            return Delta(device, 0.0, 0.0, "reset" if fell else "implausible")
        joules, event = found
        self._suspect = None
        if event == "wrap" or (event == "gap" and point.joules < since.joules):
            self.wraps += 1
        self.idle_reads = self.idle_reads + 1 if joules == 0 else 0
        # A step back keeps the high-water mark, so that no joule counts twice.
        stepped_back = event == "ok" and point.joules < since.joules
        self.last = Point(since.joules, point.at) if stepped_back else point
        if self._resumed:
            self._resumed = False
            event = "gap"
        return Delta(device, joules, point.at - since.at, event)


class PowerMeter:
    """A power gauge integrated by the trapezoid rule, never across more than `gap_seconds`."""

    def __init__(self) -> None:
        self.wraps = 0
        self.resets = 0
        self.idle_reads = 0
        self._last: PowerReading | None = None

    def feed(self, reading: PowerReading) -> Delta:
        """The joules of the time since the last reading."""
        device, last = reading.device, self._last
        if not 0 <= reading.watts <= device.max_watts:
            return Delta(device, 0.0, 0.0, "implausible")
        if last is not None and reading.at <= last.at:
            return Delta(device, 0.0, 0.0, "implausible")
        self._last = reading
        if last is None:
            return Delta(device, 0.0, 0.0, "first")
        seconds = reading.at - last.at
        if seconds > gap_seconds(device):
            return Delta(device, 0.0, 0.0, "gap")
        return Delta(device, (last.watts + reading.watts) / 2 * seconds, seconds, "ok")


class Meters:
    """The meters of all devices, by device id; a device that vanishes keeps its meter for its return."""

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
        """Drop a device's meter, so that its next reading is its first."""
        self._meters.pop(device, None)

    def counts(self, device: str) -> tuple[int, int, int]:
        """Wraps and resets so far, and how many readings in a row were unchanged."""
        meter = self._meters[device]
        return meter.wraps, meter.resets, meter.idle_reads

    def points(self) -> dict[str, Point]:
        """Last trusted counter values, for the checkpoint."""
        return {
            device: meter.last
            for device, meter in self._meters.items()
            if isinstance(meter, EnergyMeter) and meter.last is not None
        }
