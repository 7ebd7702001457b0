"""Availability of sources and providers: health, failure counts, log lines, and retry delays."""

from __future__ import annotations

import logging

import pytest

from exporter.availability.tracker import AvailabilityTracker, Backoff
from exporter.records import Reason, SourceHealth, Unavailable

WALL = 1.7e9


@pytest.fixture
def log(caplog: pytest.LogCaptureFixture) -> logging.Logger:
    caplog.set_level(logging.INFO)
    return logging.getLogger("tracker-test")


@pytest.fixture
def tracker(log: logging.Logger) -> AvailabilityTracker:
    return AvailabilityTracker("rapl", "source", log)


def counts(tracker: AvailabilityTracker) -> dict[Reason, int]:
    return {reason: number for reason, number in tracker.health().failures.items() if number}


def test_it_is_not_up_before_the_first_success(tracker: AvailabilityTracker) -> None:
    assert tracker.up is None
    zeros = {"not_found": 0, "permission": 0, "driver": 0, "timeout": 0, "implausible": 0, "error": 0}
    assert tracker.health() == SourceHealth("rapl", False, None, "", "", zeros, 0.0, 0.0)  # type: ignore[arg-type]


def test_a_failure_has_its_reason_until_the_next_success(tracker: AvailabilityTracker) -> None:
    tracker.failed(Unavailable("permission", "denied", "run as root"))
    health = tracker.health()
    assert (health.up, health.reason, health.message, health.fix) == (False, "permission", "denied", "run as root")
    tracker.add_read_seconds(0.25)
    tracker.add_read_seconds(0.5)
    tracker.succeeded(WALL)
    after = tracker.health()
    assert (after.up, after.reason, after.message, after.fix) == (True, None, "", "")
    assert (after.last_success, after.read_seconds) == (WALL, 0.75)
    assert counts(tracker) == {"permission": 1}


def test_health_is_a_value_that_later_failures_do_not_change(tracker: AvailabilityTracker) -> None:
    before = tracker.health()
    tracker.failed(Unavailable("driver", "EIO"))
    assert (before.reason, before.failures["driver"]) == (None, 0)


def test_one_log_line_for_each_new_reason_and_one_for_the_recovery(
    tracker: AvailabilityTracker, caplog: pytest.LogCaptureFixture
) -> None:
    for reason in ("timeout", "timeout", "driver", "driver"):
        tracker.failed(Unavailable(reason, f"{reason} it was", "wait"))
    tracker.succeeded(WALL)
    tracker.succeeded(WALL + 1)
    assert [(record.levelname, record.message) for record in caplog.records] == [
        ("WARNING", "source is not available"),
        ("WARNING", "source is not available"),
        ("INFO", "source is back"),
    ]
    fields = vars(caplog.records[0])
    assert (fields["source"], fields["reason"], fields["cause"], fields["fix"]) == (
        *("rapl", "timeout", "timeout it was", "wait"),
    )
    assert counts(tracker) == {"timeout": 2, "driver": 2}


def test_another_exception_is_an_error_with_its_traceback(
    tracker: AvailabilityTracker, caplog: pytest.LogCaptureFixture
) -> None:
    tracker.failed(ZeroDivisionError("oops"))
    assert (tracker.health().reason, tracker.health().message) == ("error", "ZeroDivisionError: oops")
    assert caplog.records[0].exc_info is not None
    assert caplog.records[0].exc_info[0] is ZeroDivisionError


@pytest.mark.parametrize(
    ("optional", "reason", "level"),
    [(True, "not_found", "INFO"), (True, "permission", "WARNING"), (False, "not_found", "WARNING")],
)
def test_the_absence_of_an_optional_one_is_no_warning(
    log: logging.Logger, caplog: pytest.LogCaptureFixture, optional: bool, reason: Reason, level: str
) -> None:
    AvailabilityTracker("rapl", "source", log, optional=optional).failed(Unavailable(reason, "x"))
    assert [record.levelname for record in caplog.records] == [level]


def test_an_optional_one_that_was_up_warns_when_it_vanishes(
    log: logging.Logger, caplog: pytest.LogCaptureFixture
) -> None:
    tracker = AvailabilityTracker("rapl", "source", log, optional=True)
    tracker.succeeded(WALL)
    tracker.failed(Unavailable("not_found", "gone"))
    assert [record.levelname for record in caplog.records] == ["WARNING"]


def test_counted_failures_leave_it_up(tracker: AvailabilityTracker) -> None:
    tracker.succeeded(WALL)
    tracker.count("implausible", 3)
    assert (tracker.health().up, tracker.health().reason, counts(tracker)) == (True, None, {"implausible": 3})


def test_delays_double_to_a_minute_and_restart_after_a_reset() -> None:
    backoff = Backoff()
    assert [backoff.next() for _ in range(8)] == [1, 2, 4, 8, 16, 32, 60, 60]
    backoff.reset()
    assert (backoff.seconds, backoff.next(), backoff.next()) == (1, 1, 2)
    assert Backoff(0.25).next() == 0.25
