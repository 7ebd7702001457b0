"""Windows as users write them, in calendar days of a zone, and in parts."""

from __future__ import annotations

from datetime import UTC, datetime
from itertools import pairwise
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from exporter.analysis.window import DAY_SECONDS, Window, parse

BERLIN = ZoneInfo("Europe/Berlin")
NOW = datetime(2026, 11, 3, 12, 0, 0, tzinfo=UTC).timestamp()


def iso(window: Window) -> tuple[str, str]:
    """Its ends in UTC, to the minute."""
    start, end = (datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%dT%H:%M") for at in (window.start, window.end))
    return start, end


@pytest.mark.parametrize(
    ("since", "until", "expected"),
    [
        ("7d", "", ("2026-10-27T12:00", "2026-11-03T12:00")),
        ("90m", "", ("2026-11-03T10:30", "2026-11-03T12:00")),
        ("1d", "2d", ("2026-10-31T12:00", "2026-11-01T12:00")),
        ("2026-11-01", "", ("2026-10-31T23:00", "2026-11-03T12:00")),
        ("2026-11-01T06:30", "2026-11-02", ("2026-11-01T05:30", "2026-11-01T23:00")),
        ("2026-11-01T06:30Z", "", ("2026-11-01T06:30", "2026-11-03T12:00")),
        ("month", "", ("2026-10-31T23:00", "2026-11-03T12:00")),
        ("last-month", "", ("2026-09-30T22:00", "2026-10-31T23:00")),
    ],
)
def test_forms(since: str, until: str, expected: tuple[str, str]) -> None:
    """In the zone of the user; October has an hour of summer time more."""
    assert iso(parse(since, until, NOW, BERLIN)) == expected


def test_days_of_a_change_of_the_clock() -> None:
    """25 hours on the day on which summer time ends."""
    window = parse("2026-10-24", "2026-10-27", NOW, BERLIN)
    assert [day.seconds / 3600 for day in window.days(BERLIN)] == [24, 25, 24]


@given(start=st.integers(0, 2**31), seconds=st.integers(60, 10**7), part=st.integers(60, int(DAY_SECONDS)))
def test_parts_are_the_window(start: int, seconds: int, part: int) -> None:
    """Without gaps or overlaps, none longer than allowed."""
    window = Window(float(start), float(start + seconds))
    for parts, most in ((window.parts(part), part), (window.days(BERLIN), 25 * 3600)):
        assert (parts[0].start, parts[-1].end) == (window.start, window.end)
        assert all(one.end == following.start for one, following in pairwise(parts))
        assert all(0 < each.seconds <= most for each in parts)
