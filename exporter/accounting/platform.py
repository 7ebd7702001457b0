"""What the machine's meter measures beyond its parts, and which of several such meters is used for it.

The rules that docs/containment.md explains.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ..records import Device, EnergyReading, PowerReading, Problem
from .alignment import Alignment, Covered, PartsHistory
from .balance import DUE_PERIODS, SMOOTHING_SECONDS, Balance
from .meters import Delta

_WINDOW_SECONDS = 30.0
"""Meters of a platform are averages of up to some seconds, so a shorter time below the parts says nothing."""

_WINDOW_PERIODS = 30.0
"""The same for a meter with a period: its value may be one period late, and an average over another."""

_FRESH_SECONDS = 60.0
"""A meter that was not read for longer is replaced by the next one, if that is read."""

_UNSAVED_PERIODS = 3.0
"""What was counted before a restart and its meter had not shown, in periods of its power: it is not saved."""

_BELOW_RATIO = 0.95
_DEBT_SECONDS = 5.0
_PEAK_DECAY = 0.98
_STEPS_COMPARED = 10.0

_WITH_JOULES = ("ok", "wrap", "gap")


class _Candidate:
    """One way to measure the platform: its meter, or those of its sockets.

    ``since`` is what the parts used since it was last read, ``measured_since`` those of them that are measured, in
    ``seconds_since``. ``parts_since`` are those without what another meter has counted, ``parts_now`` those of this
    tick. ``balance`` is what it measured beyond the parts and is not counted yet.
    """

    def __init__(self, devices: Sequence[Device], parts_before: float) -> None:
        self.update(devices)
        self.trusted = True
        self.gained: float | None = None
        self.unread_seconds = 0.0
        self.since = self.measured_since = parts_before
        self.seconds_since = 0.0
        self.balance = Balance()
        self.parts_now = self.parts_since = 0.0
        self._alignment: Alignment | None = None
        self._silent = False
        self._whole = self._parts = self._seconds = 0.0

    def update(self, devices: Sequence[Device]) -> None:
        """Its devices, as last read."""
        self.device = devices[0]
        self.period = max(device.period_seconds for device in devices)
        self._step = sum(device.step_joules for device in devices)

    @property
    def fresh(self) -> bool:
        """Whether it was read lately."""
        return self.unread_seconds <= max(_FRESH_SECONDS, DUE_PERIODS * self.period)

    @property
    def contradicts(self) -> str:
        """Why it is not used; "" if nothing speaks against it."""
        if not self.trusted:
            return "less than the meters of CPU, memory and GPUs that it should include"
        if self._alignment is not None and self._alignment.stands_still:
            return "its power stands still, although that of CPU, memory and GPUs in it does not"
        return ""

    @property
    def lag_seconds(self) -> float:
        """How old its values are when they are read."""
        return 0.0 if self._alignment is None else self._alignment.age_seconds

    def read(
        self, deltas: Sequence[Delta], readings: Mapping[str, EnergyReading | PowerReading], history: PartsHistory
    ) -> None:
        """Compare what it measured with the parts; ``gained`` is the difference, None without a reading."""
        self.gained = None
        if not deltas:
            return
        if self.since > 0 and all(_is_silent(readings.get(delta.device.id)) for delta in deltas):
            self._observe(0.0)
            self._forget()
            self._silent = True
            return
        if self._silent:
            self.trusted, self._silent = True, False
            self._whole = self._parts = self._seconds = 0.0
        whole = [delta for delta in deltas if delta.event in _WITH_JOULES]
        if whole:
            joules = sum(delta.joules for delta in whole)
            self.gained = joules - self.since
            if (seconds := max([delta.seconds for delta in whole if delta.event == "gap"], default=None)) is not None:
                unsaved = joules * min(1.0, _UNSAVED_PERIODS * self.period / seconds) if seconds else 0.0
                self.gained = max(0.0, self.gained + self.parts_now - unsaved) - self.parts_now  # a lower bound
            else:
                self._observe(joules)
                if self.period and len(whole) == 1:
                    self._align(whole[0], readings[whole[0].device.id], history)
        if any(delta.event != "implausible" for delta in deltas):
            self._forget()

    def begin(self) -> None:
        """It is used from now on."""
        self.balance.begin(self.lag_seconds)

    def post(self, seconds: float, debt_limit: float) -> float:
        """What is to be counted in a tick of ``seconds``; see `Balance`."""
        if self.gained is not None:
            self.balance.add(self.gained, debt_limit + self._step)
        return self.balance.take(seconds, self.period, self.unread_seconds, self.lag_seconds)

    def _align(self, delta: Delta, reading: EnergyReading | PowerReading, history: PartsHistory) -> None:
        """Compare a value with the parts in the time that it covers, not in the time in which it was read."""
        assert self.gained is not None
        gauge = isinstance(reading, PowerReading)
        if self._alignment is None or self._alignment.gauge != gauge:
            self._alignment = Alignment(gauge=gauge)
        watts = reading.watts if isinstance(reading, PowerReading) else delta.joules / delta.seconds
        aligned = self._alignment.found
        covered = self._alignment.compare(history, reading.at, watts, delta.seconds)
        parts, missed, early = covered or Covered(self.parts_since)
        if self._alignment.found and not aligned:
            self.balance.forget()
        self.gained += early + missed + self.parts_since - parts
        self.balance.observe(delta.joules + missed - parts, delta.seconds, self.period, self._step)

    def _observe(self, joules: float) -> None:
        """Compare it with its parts over whole windows."""
        self._whole += joules
        self._parts += self.measured_since
        self._seconds += self.seconds_since
        window = max(_WINDOW_SECONDS, _WINDOW_PERIODS * self.period)
        if self._seconds >= window and max(self._whole, self._parts) >= _STEPS_COMPARED * self._step:
            self.trusted = self._whole + self._step >= _BELOW_RATIO * self._parts
            self._whole = self._parts = self._seconds = 0.0

    def _forget(self) -> None:
        self.since = self.measured_since = self.seconds_since = self.unread_seconds = self.parts_since = 0.0


class Platform:
    """Joules of the platform beyond its parts, from the first meter that is read and not below them.

    A meter that reads less than its parts does not measure the platform: it stays visible as a device, and the next
    one is used. What the parts exceed the whole by in one tick, because meters are not read at the same instant, is
    subtracted in the next; that debt is limited to some seconds of the parts' power. A power gauge at 0 while the parts
    use energy is no reading. ``watts`` is the power beyond the parts, None where the meter is read at every tick.
    """

    def __init__(self) -> None:
        self._candidates: dict[tuple[str, ...], _Candidate] = {}
        self._history = PartsHistory()
        self._parts_before = 0.0  # joules in all ticks so far
        self._peak_watts = 0.0
        self.used: tuple[str, ...] = ()
        self.watts: float | None = None

    def beyond(
        self,
        choices: Sequence[Sequence[Device]],
        deltas: Mapping[str, Delta],
        readings: Mapping[str, EnergyReading | PowerReading],
        parts: tuple[float, float],
        seconds: float,
    ) -> float | None:
        """Joules beyond the ``parts`` of a tick of ``seconds``; None where no platform was measured.

        ``choices`` are the meters of the platform, the preferred first. ``parts`` are all joules of the tick, and those
        of measured devices among them: an estimate contradicts no meter.
        """
        if seconds > 0:
            self._peak_watts = max(parts[0] / seconds, self._peak_watts * _PEAK_DECAY)
        at = max((r.at for r in readings.values() if r.device.component != "platform"), default=None)
        if at is not None:
            self._history.add(at, parts[0])
        known = {tuple(device.id for device in choice): choice for choice in choices}
        self._candidates = {
            key: self._candidates.get(key) or _Candidate(choice, self._parts_before) for key, choice in known.items()
        }
        for key, candidate in self._candidates.items():
            candidate.update(known[key])
            candidate.parts_now = parts[0]
            candidate.since += parts[0]
            candidate.parts_since += parts[0]
            candidate.measured_since += parts[1]
            candidate.seconds_since += seconds
            candidate.unread_seconds += seconds
            candidate.read([deltas[id_] for id_ in key if id_ in deltas], readings, self._history)
        self._parts_before += parts[0]
        used = self._choose()
        if used != self.used:
            self.used = used
            if used:
                self._candidates[used].begin()
        return self._post(seconds)

    def problems(self) -> Mapping[str, Problem]:
        """Source → the platform meter of it that would be used, were it not below its parts."""
        found: dict[str, Problem] = {}
        for key, candidate in self._candidates.items():
            if key == self.used:
                break
            if candidate.contradicts:
                problem = Problem(
                    "implausible",
                    f"{candidate.device.id}: {candidate.contradicts}",
                    'nothing to do: it is shown, and not used for energy_node_*{component="other"}',
                )
                found.setdefault(candidate.device.source, problem)
        return found

    def _choose(self) -> tuple[str, ...]:
        """The first meter that is trusted and fresh, else the first that is trusted."""
        trusted = [key for key, candidate in self._candidates.items() if not candidate.contradicts]
        return next((key for key in trusted if self._candidates[key].fresh), trusted[0] if trusted else ())

    def _post(self, seconds: float) -> float | None:
        self.watts = None
        if not self.used:
            return None
        candidate = self._candidates[self.used]
        if candidate.gained is None and not candidate.period:
            return None
        most = SMOOTHING_SECONDS if candidate.period else _DEBT_SECONDS
        posted = candidate.post(seconds, self._peak_watts * most)
        for key, other in self._candidates.items():
            if key != self.used:
                other.since += posted  # when it is used again, its joules of now have been counted
        if candidate.period and seconds > 0 and candidate.unread_seconds <= DUE_PERIODS * candidate.period:
            self.watts = posted / seconds
        return posted


def _is_silent(reading: EnergyReading | PowerReading | None) -> bool:
    return isinstance(reading, PowerReading) and reading.watts == 0
