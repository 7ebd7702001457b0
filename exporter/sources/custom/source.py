"""The meters that the operator declares (docs/meters.md)."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from ...host import Host
from ...records import EnergyReading, PowerReading, Problem, Reading, Unavailable
from .meter import Meter
from .poller import Poller

_OVERDUE_PERIODS = 3.5
_HANGS_SECONDS = 5.0


class CustomSource:
    """Publishes the last value of each declared meter; the reading itself is never waited for.

    A counter, and a gauge of the machine, has a reading only when it has a new value. A gauge of a component holds its
    value until the next one, or until three and a half intervals have passed without one.
    """

    name = "custom"

    def __init__(self, host: Host, meters: Sequence[Meter], start: Callable[[Poller], None] = Poller.start) -> None:
        """``start`` is called for each meter at the first read."""
        self._host = host
        self._meters = meters
        self._start = start
        self._pollers: list[Poller] = []
        self._published: dict[str, float] = {}

    def read(self, now: float) -> Reading:
        """The values since the last call. Raises `Unavailable` if every meter fails."""
        if not self._pollers:
            self._pollers = [Poller(meter, self._host) for meter in self._meters]
            for poller in self._pollers:
                self._start(poller)
        meters = [reading for poller in self._pollers if (reading := self._reading(poller, now)) is not None]
        problems = [problem for poller in self._pollers if (problem := _problem(poller, now)) is not None]
        if len(problems) == len(self._pollers) and not meters:
            raise Unavailable(*problems[0])
        pending = any(poller.sample is None and _problem(poller, now) is None for poller in self._pollers)
        return Reading(meters=tuple(meters), problems=tuple(problems), pending=pending)

    def close(self) -> None:
        """End the threads and the commands; the next read starts them again."""
        for poller in self._pollers:
            poller.stop()
        self._pollers, self._published = [], {}

    def _reading(self, poller: Poller, now: float) -> EnergyReading | PowerReading | None:
        sample, meter = poller.sample, poller.meter
        if sample is None:
            return None
        is_new = self._published.get(meter.name) != sample.at
        self._published[meter.name] = sample.at
        if meter.holds:
            overdue = now - sample.at > max(1.0, _OVERDUE_PERIODS * meter.interval_seconds)
            return None if overdue else PowerReading(poller.device, now, sample.value)
        if not is_new:
            return None
        if meter.counter:
            return EnergyReading(poller.device, sample.at, sample.value, meter.wraps_at)
        return PowerReading(poller.device, sample.at, sample.value)


def _problem(poller: Poller, now: float) -> Problem | None:
    """Why it has no newer value; also that a read does not end, as of a file on a server that is gone."""
    began, meter = poller.began, poller.meter
    if began is not None and now - began > _HANGS_SECONDS + meter.timeout_seconds:
        what = f"{meter.what}: it has been read for {now - began:.0f} s, without an end"
        return Problem("timeout", what, "a pipe, or a file system that does not answer?")
    return poller.problem
