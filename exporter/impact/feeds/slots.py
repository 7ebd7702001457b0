"""Values by time: reads them from what a service answers, and finds the one in force; pure."""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Iterable
from datetime import UTC, datetime
from itertools import pairwise
from typing import NamedTuple

from .protocol import Slot

MOST_SLOTS = 2000
"""A week of five-minute values; the newest are kept."""


class Held(NamedTuple):
    """A slot in force; ``late`` if its time is over, and no newer one is known."""

    slot: Slot
    late: bool


def unix_seconds(text: object) -> float | None:
    """Unix time of an ISO 8601 text, UTC if it names no zone; None if it is none."""
    try:
        time = datetime.fromisoformat(text) if isinstance(text, str) else None
        return None if time is None else (time if time.tzinfo else time.replace(tzinfo=UTC)).timestamp()
    except (ValueError, OverflowError, OSError):
        return None


def plausible(value: object, low: float, high: float) -> float | None:
    """A number from ``low`` to ``high``, None for anything else: text, NaN, true, null."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return float(value) if math.isfinite(value) and low <= value <= high else None


def ordered(slots: Iterable[Slot]) -> tuple[Slot, ...]:
    """By start, each start once (the last one given counts), none longer than until the next starts."""
    by_start = {slot.start: slot for slot in slots}
    found = [by_start[start] for start in sorted(by_start)][-MOST_SLOTS:]
    cut = [slot._replace(end=min(slot.end, after.start)) for slot, after in pairwise(found)]
    return (*cut, *found[-1:])


def in_force(slots: tuple[Slot, ...], now: float, max_age_seconds: float) -> Held | None:
    """The slot that holds at a Unix time, else the one before it, for at most ``max_age_seconds`` after its end."""
    at = bisect_right(slots, now, key=lambda slot: slot.start) - 1
    if at < 0 or now >= slots[at].end + max_age_seconds:
        return None
    return Held(slots[at], now >= slots[at].end)


def newest(slots: tuple[Slot, ...], now: float) -> float | None:
    """The start of the last slot that has begun, in Unix seconds."""
    return max((slot.start for slot in slots if slot.start <= now), default=None)
