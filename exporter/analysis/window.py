"""Time windows: as users write them, in days of a time zone, and in parts that an engine can read at once."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import date, datetime, timedelta, tzinfo

MINUTE_SECONDS = 60.0
DAY_SECONDS = 86400.0
_UNITS = {"m": MINUTE_SECONDS, "h": 3600.0, "d": DAY_SECONDS, "w": 7 * DAY_SECONDS, "y": 365 * DAY_SECONDS}
_DURATION = re.compile(r"(\d{1,6})([mhdwy])")


@dataclass(frozen=True, slots=True)
class Window:
    """From ``start`` up to ``end``, in Unix seconds, whole ones."""

    start: float
    end: float

    @property
    def seconds(self) -> float:
        """Its length."""
        return self.end - self.start

    def parts(self, seconds: float) -> list[Window]:
        """Consecutive windows of ``seconds`` at most."""
        starts = [self.start]
        while starts[-1] + seconds < self.end:
            starts.append(starts[-1] + seconds)
        return [Window(start, end) for start, end in zip(starts, [*starts[1:], self.end], strict=True)]

    def days(self, zone: tzinfo) -> list[Window]:
        """The part of each calendar day of ``zone`` that is in it."""
        days: list[Window] = []
        start = self.start
        while start < self.end:
            end = min(_midnight(datetime.fromtimestamp(start, zone).date() + timedelta(days=1), zone), self.end)
            days.append(Window(start, end))
            start = end
        return days


def parse(since: str, until: str, now: float, zone: tzinfo) -> Window:
    """A window from ``since`` to ``until``, "" for now: durations before the end (``7d``), dates, times, or ``month``.

    ``month`` and ``last-month`` are calendar months of ``zone``. Raises ValueError with a text for the user.
    """
    end = float(int(now)) if not until else _moment(until, now, zone)
    if end > now + 1:
        raise ValueError(f"the end {until} is in the future")
    today = datetime.fromtimestamp(now, zone).date()
    if since in ("month", "last-month"):
        first = today.replace(day=1)
        if since == "month":
            return _window(_midnight(first, zone), end)
        before = (first - timedelta(days=1)).replace(day=1)
        return Window(_midnight(before, zone), _midnight(first, zone))
    found = _DURATION.fullmatch(since)
    return _window(end - int(found[1]) * _UNITS[found[2]] if found else _moment(since, now, zone), end)


def _window(start: float, end: float) -> Window:
    if start > end:
        raise ValueError("the window begins after its end")
    if end - start < MINUTE_SECONDS:
        raise ValueError("the window is shorter than a minute")
    return Window(max(0.0, start), end)


def _moment(text: str, now: float, zone: tzinfo) -> float:
    found = _DURATION.fullmatch(text)
    if found:
        return float(int(now - int(found[1]) * _UNITS[found[2]]))
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise ValueError(
            f"{text!r}: neither a duration (90m, 12h, 7d), a date (2026-11-01), a time, nor month"
        ) from None
    return float(int((moment if moment.tzinfo else moment.replace(tzinfo=zone)).timestamp()))


def _midnight(day: date, zone: tzinfo) -> float:
    return datetime(day.year, day.month, day.day, tzinfo=zone).timestamp()
