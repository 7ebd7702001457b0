"""Which factors are in force at a time: constants, or hours and weekdays in the time zone of the tariff."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, tzinfo
from typing import TYPE_CHECKING

from ..records import SourceHealth
from .values import Factors

if TYPE_CHECKING:  # loads HTTP and TLS, which only live factors need
    from .live import Live

_MINUTE_SECONDS = 60.0
_DAY_MINUTES = 1440


@dataclass(frozen=True, slots=True)
class Span:
    """A value from one local time of day to another, on some weekdays (Monday is 0); it may pass midnight.

    ``start`` and ``end`` are minutes since midnight; equal ones are the whole day. A span that passes midnight belongs
    to the weekday on which it starts.
    """

    value: float
    weekdays: frozenset[int] = frozenset(range(7))
    start: int = 0
    end: int = 0

    def covers(self, weekday: int, minute: int) -> bool:
        """Whether it is in force at a minute of a weekday."""
        if self.start < self.end:
            return weekday in self.weekdays and self.start <= minute < self.end
        if minute >= self.start:
            return weekday in self.weekdays
        return minute < self.end and (weekday - 1) % 7 in self.weekdays


@dataclass(frozen=True, slots=True)
class Timetable:
    """Values by time of day and weekday; the first span that covers a time is in force.

    ``timezone`` is that of the place, with its daylight saving, and not of the machine.
    """

    spans: tuple[Span, ...]
    timezone: tzinfo = UTC

    def at(self, unix_seconds: float) -> float:
        """The value in force."""
        local = datetime.fromtimestamp(unix_seconds, self.timezone)
        minute = local.hour * 60 + local.minute
        return next(span.value for span in self.spans if span.covers(local.weekday(), minute))

    @property
    def is_constant(self) -> bool:
        """Whether the value never changes."""
        return len({span.value for span in self.spans}) == 1

    @property
    def gap(self) -> tuple[int, int] | None:
        """A weekday and minute that no span covers, None if there is none."""
        for weekday in range(7):
            for minute in range(_DAY_MINUTES):
                if not any(span.covers(weekday, minute) for span in self.spans):
                    return weekday, minute
        return None


class Schedule:
    """The factors of each moment; looked up once a minute, because tariffs change on full minutes.

    ``base`` has what does not change; a timetable of ``intensity`` or ``price`` replaces its value, and what is
    ``lives`` replaces both as long as it is fresh. It starts what is live when it is first called.
    """

    def __init__(
        self,
        base: Factors,
        intensity: Timetable | None = None,
        price: Timetable | None = None,
        lives: Sequence[Live] = (),
    ) -> None:
        self._base = base
        self._intensity = intensity
        self._price = price
        self._lives = lives
        self._looked_up: tuple[float, int] | None = None
        self._factors = base

    def at(self, unix_seconds: float) -> Factors:
        """The factors in force."""
        if self._intensity or self._price or self._lives:
            state = unix_seconds // _MINUTE_SECONDS, sum(live.revision for live in self._lives)
            if state != self._looked_up:
                self._looked_up = state
                self._factors = self._look_up(unix_seconds)
        return self._factors

    def health(self) -> tuple[SourceHealth, ...]:
        """Health of what is live."""
        return tuple(live.health() for live in self._lives)

    def retry(self) -> None:
        """Ask at once what is down."""
        for live in self._lives:
            live.retry()

    def close(self) -> None:
        """Ask no more."""
        for live in self._lives:
            live.close()

    def _look_up(self, now: float) -> Factors:
        factors = self._base
        if self._intensity is not None:
            factors = replace(factors, intensity=self._intensity.at(now))
        if self._price is not None:
            factors = replace(factors, price=self._price.at(now))
        for live in self._lives:
            live.start()
            factors = live.apply(factors, now)
        return factors
