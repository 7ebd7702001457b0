"""What the platform's meter measures beyond its parts, and which of several platform meters is used for it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ..records import Device, EnergyReading, PowerReading, Problem
from .meters import Delta

_WINDOW_SECONDS = 30.0
"""Meters of a platform are averages of up to some seconds, so a shorter time below the parts says nothing."""

_BELOW_RATIO = 0.95
_DEBT_SECONDS = 5.0
_PEAK_DECAY = 0.98

_WITH_JOULES = ("ok", "wrap", "gap")


@dataclass(slots=True)
class _Candidate:
    """One way to measure the platform: its meter, or those of its sockets."""

    device: Device
    parts_since: float  # joules of the parts since it was last read
    trusted: bool = True
    silent: bool = False
    whole: float = 0.0
    parts: float = 0.0
    seconds: float = 0.0

    def reset(self) -> None:
        """It has a reading after a silence: discard the comparison so far."""
        self.trusted, self.silent = True, False
        self.whole = self.parts = self.seconds = 0.0

    def observe(self, joules: float, parts: float, seconds: float) -> None:
        """Compare it with its parts over whole windows."""
        self.whole += joules
        self.parts += parts
        self.seconds += seconds
        if self.seconds >= _WINDOW_SECONDS:
            self.trusted = self.whole >= _BELOW_RATIO * self.parts
            self.whole = self.parts = self.seconds = 0.0


class Platform:
    """Joules of the platform beyond its parts, from the first meter that is not below them.

    A meter that reads less than its parts does not measure the platform: it stays visible as a device, and the next
    one is used. What the parts exceed the whole by in one tick, because meters are not read at the same instant, is
    subtracted in the next; that debt is limited to some seconds of the parts' power. A power gauge at 0 while the parts
    use energy is no reading.
    """

    def __init__(self) -> None:
        self._candidates: dict[tuple[str, ...], _Candidate] = {}
        self._debt = 0.0
        self._parts_before = 0.0  # joules in all ticks so far
        self._peak_watts = 0.0
        self.used: tuple[str, ...] = ()

    def beyond(
        self,
        choices: Sequence[Sequence[Device]],
        deltas: Mapping[str, Delta],
        readings: Mapping[str, EnergyReading | PowerReading],
        parts: float,
        seconds: float,
    ) -> float | None:
        """Joules beyond the ``parts`` of a tick of ``seconds``; None where no platform was measured.

        ``choices`` are the meters of the platform, the preferred first.
        """
        if seconds > 0:
            self._peak_watts = max(parts / seconds, self._peak_watts * _PEAK_DECAY)
        found: float | None = None
        used: tuple[str, ...] = ()
        known = {tuple(device.id for device in choice): choice for choice in choices}
        self._candidates = {
            key: self._candidates.get(key) or _Candidate(choice[0], self._parts_before) for key, choice in known.items()
        }
        for key, candidate in self._candidates.items():
            candidate.device = known[key][0]
            read = [deltas[id_] for id_ in key if id_ in deltas]
            if parts > 0 and read and all(_is_silent(readings.get(delta.device.id)) for delta in read):
                candidate.observe(0.0, parts, seconds)
                candidate.parts_since, candidate.silent = 0.0, True
                continue
            if candidate.silent and read:
                candidate.reset()
            whole = [delta for delta in read if delta.event in _WITH_JOULES]
            joules = sum(delta.joules for delta in whole) - candidate.parts_since
            if any(delta.event == "gap" for delta in whole):  # a lower bound
                joules = max(0.0, joules)
            elif whole:
                candidate.observe(joules, parts, seconds)
            plausible = any(delta.event != "implausible" for delta in read)
            candidate.parts_since = 0.0 if plausible else candidate.parts_since + parts
            if not used and candidate.trusted:
                used, found = key, joules if whole else None
        self._parts_before += parts
        if used != self.used:
            self._debt, self.used = 0.0, used
        if found is None:
            return None
        self._debt += found - parts
        beyond = max(0.0, self._debt)
        self._debt = max(min(0.0, self._debt), -self._peak_watts * _DEBT_SECONDS)
        return beyond

    def problems(self) -> Mapping[str, Problem]:
        """Source → the platform meter of it that would be used, were it not below its parts."""
        found: dict[str, Problem] = {}
        for key, candidate in self._candidates.items():
            if key == self.used:
                break
            if not candidate.trusted:
                problem = Problem(
                    "implausible",
                    f"{candidate.device.id}: less than the meters of CPU, memory and GPUs that it should include",
                    'nothing to do: it is shown, and not used for energy_node_*{component="other"}',
                )
                found.setdefault(candidate.device.source, problem)
        return found


def _is_silent(reading: EnergyReading | PowerReading | None) -> bool:
    return isinstance(reading, PowerReading) and reading.watts == 0
