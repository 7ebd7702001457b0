"""Reported state of a source: up or down, why, since when, and with how few log lines."""

from __future__ import annotations

import logging
import threading
import time

import pytest

from exporter.accounting.meters import Delta
from exporter.records import Device, Problem, Reading, Reason, Unavailable
from exporter.sampling.source_runner import SourceRunner
from tests.support.patience import patience, wait_for

WALL = 1.7e9


class Clock:
    """Boot-time seconds that the test advances."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


class Scripted:
    """A source that returns or raises what the test sets; its reads hang while ``goes_on`` is not set."""

    name = "scripted"

    def __init__(self) -> None:
        self.answer: Reading | Exception = Reading()
        self.reads: list[float] = []
        self.closed = False
        self.goes_on = threading.Event()
        self.goes_on.set()

    def read(self, now: float) -> Reading:
        self.reads.append(now)
        answer = self.answer
        self.goes_on.wait(patience())
        if isinstance(answer, Exception):
            raise answer
        return answer

    def close(self) -> None:
        self.closed = True


class Bench:
    """A source, its runner and a clock: one call of ``tick`` is one tick of 1 s."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.source = Scripted()
        self.runner = SourceRunner(self.source, self.clock)

    def tick(self, wait: float = 5.0, seconds: float = 1.0) -> Reading | None:
        self.clock.now += seconds
        self.runner.ask(self.clock.now)
        return self.runner.take(self.clock.now + wait, WALL + self.clock.now)


@pytest.fixture
def bench(caplog: pytest.LogCaptureFixture) -> Bench:
    caplog.set_level(logging.INFO)
    return Bench()


def test_a_source_that_reads_is_up(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    assert not bench.runner.health().up
    reading = Reading(socket_busy_seconds={0: 1.0})
    bench.source.answer = reading
    assert bench.tick() is reading
    health = bench.runner.health()
    assert (health.name, health.up, health.reason, health.message, health.fix) == ("scripted", True, None, "", "")
    assert health.last_success == WALL + 101
    assert set(health.failures.values()) == {0}
    assert set(health.failures) == {"not_found", "permission", "driver", "timeout", "implausible", "error"}
    assert caplog.messages == []


def test_a_failure_is_one_line_when_it_starts_and_one_when_it_ends(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    """Fault 11: with the reason and the remedy, as log fields and as health."""
    bench.tick()
    bench.source.answer = Unavailable("permission", "energy_uj: denied", "run as root")
    for _ in range(30):
        assert bench.tick() is None
    health = bench.runner.health()
    assert (health.up, health.reason, health.message, health.fix) == (
        False,
        "permission",
        "energy_uj: denied",
        "run as root",
    )
    assert health.last_success == WALL + 101
    assert health.failures["permission"] == len(bench.source.reads) - 1
    (record,) = caplog.records
    assert (record.levelno, record.__dict__["reason"], record.__dict__["fix"]) == (
        logging.WARNING,
        "permission",
        "run as root",
    )
    bench.source.answer = Reading()
    for _ in range(60):
        bench.tick()
    assert len(caplog.records) == 2
    assert bench.runner.health().up
    assert bench.runner.health().reason is None
    assert bench.runner.health().failures["permission"] > 0


def test_another_reason_is_another_line(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    reasons: tuple[Reason, ...] = ("not_found", "driver")
    for reason in reasons:
        bench.source.answer = Unavailable(reason, "x")
        for _ in range(3):
            bench.tick(seconds=100)
    assert [record.__dict__["reason"] for record in caplog.records] == list(reasons)


def test_retries_back_off_to_a_minute_and_start_anew(bench: Bench) -> None:
    bench.source.answer = Unavailable("not_found", "gone")
    for _ in range(400):
        bench.tick()
    gaps = [later - earlier for earlier, later in zip(bench.source.reads, bench.source.reads[1:], strict=False)]
    assert gaps[:6] == [1, 2, 4, 8, 16, 32]
    assert set(gaps[6:]) == {60}
    bench.source.answer = Reading()
    for _ in range(61):
        bench.tick()
    assert bench.runner.health().up
    bench.source.answer = Unavailable("not_found", "gone")
    bench.tick()
    reads = len(bench.source.reads)
    bench.tick()
    assert len(bench.source.reads) == reads + 1


def test_a_retry_reads_a_source_that_is_down_at_once_and_starts_its_backoff_anew(bench: Bench) -> None:
    bench.source.answer = Unavailable("permission", "energy_uj: denied")
    for _ in range(400):
        bench.tick()
    asked = bench.clock.now
    bench.runner.retry()
    for _ in range(10):
        bench.tick()
    assert [read - asked for read in bench.source.reads if read > asked] == [1, 2, 4, 8]
    bench.source.answer = Reading()
    bench.runner.retry()
    assert bench.tick() is bench.source.answer


def test_a_retry_leaves_a_source_alone_that_is_up(bench: Bench) -> None:
    """It requested the pause itself, and has nothing new to report."""
    bench.source.answer = Reading(rest_seconds=10.0)
    bench.tick()
    bench.runner.retry()
    for _ in range(9):
        assert bench.tick() is None
    assert len(bench.source.reads) == 1


def test_a_retry_does_not_stack_a_second_read_on_one_that_hangs(bench: Bench) -> None:
    """Fault 15: what hangs in the kernel hangs once, however often an operator asks."""
    bench.source.goes_on.clear()
    for _ in range(5):
        assert bench.tick(wait=0.01) is None
        bench.runner.retry()
    assert len(bench.source.reads) == 1
    late = bench.source.answer
    bench.source.goes_on.set()
    wait_for(lambda: bench.tick() is late, "the late reading")
    assert len(bench.source.reads) == 1


def test_an_unexpected_exception_is_reason_error_with_one_traceback(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    bench.source.answer = ZeroDivisionError("oops")
    for _ in range(10):
        assert bench.tick(seconds=100) is None
    health = bench.runner.health()
    assert (health.up, health.reason, health.message) == (False, "error", "ZeroDivisionError: oops")
    assert health.failures["error"] == 10
    (record,) = caplog.records
    assert record.exc_info is not None
    assert record.exc_info[0] is ZeroDivisionError


def test_a_read_that_hangs_is_one_timeout_and_later_ticks_do_not_wait(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    """Fault 15: the deadline is paid once; what it read in the end is used."""
    bench.tick()
    bench.source.goes_on.clear()
    late = bench.source.answer = Reading(socket_busy_seconds={0: 9.0})
    began = time.monotonic()
    assert bench.tick(wait=0.05) is None
    assert time.monotonic() - began > 0.04
    for _ in range(20):
        assert bench.tick(wait=3600.0) is None  # at once
    health = bench.runner.health()
    assert (health.up, health.reason, health.failures["timeout"]) == (False, "timeout", 1)
    bench.source.goes_on.set()
    assert wait_for(lambda: bench.runner.take(bench.clock.now, WALL), "the late reading") is late
    assert len(bench.source.reads) == 2
    assert bench.runner.health().up
    assert bench.runner.health().read_seconds == 20.0
    assert [record.levelname for record in caplog.records] == ["WARNING", "INFO"]


def test_a_part_that_fails_is_told_once_while_the_rest_is_up(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    """Faults 10, 11, 12: a zone among several."""
    problem = Problem("driver", "dram-0: EIO", "see dmesg")
    bench.source.answer = Reading(problems=(problem,))
    for _ in range(5):
        assert bench.tick() is not None
    health = bench.runner.health()
    assert (health.up, health.reason, health.message, health.fix) == (True, *problem)
    assert health.failures["driver"] == 1
    assert len(caplog.records) == 1
    bench.source.answer = Reading()
    bench.tick()
    assert (bench.runner.health().up, bench.runner.health().reason) == (True, None)
    bench.source.answer = Reading(problems=(problem, Problem("not_found", "core")))
    bench.tick()
    assert len(caplog.records) == 3


def test_a_part_that_stays_failed_counts_once_a_minute(bench: Bench) -> None:
    """As a source that is down does: increase() sees that it lasts, and it drowns nothing else."""
    lasting, passing = Problem("driver", "dram-0: EIO"), Problem("driver", "core-0: EIO")
    for tick in range(600):
        bench.source.answer = Reading(problems=(lasting, passing) if tick in (90, 95) else (lasting,))
        bench.tick()
    assert bench.runner.health().failures["driver"] == 10 + 2


def test_jumps_of_its_devices_are_counted_as_implausible(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    """Fault 18: one line for each device that starts to jump; another source's devices are not its own."""
    own = Device("package-0", "cpu", "scripted", "measured", "", 1.0)
    other = Device("GPU-1", "gpu", "elsewhere", "measured", "", 1.0)
    jump = [Delta(own, 0.0, 0.0, "implausible"), Delta(other, 0.0, 0.0, "implausible")]
    for _ in range(3):
        bench.runner.reject(jump)
    bench.runner.reject([])
    assert bench.runner.health().failures["implausible"] == 3
    assert len(caplog.records) == 1
    bench.runner.reject(jump)
    assert len(caplog.records) == 2


def test_closing_closes_the_source_unless_it_hangs(bench: Bench) -> None:
    bench.tick()
    bench.runner.close()
    assert bench.source.closed
    hanging = Bench()
    hanging.source.goes_on.clear()
    assert hanging.tick(wait=0.01) is None
    hanging.runner.close()
    assert not hanging.source.closed
    hanging.source.goes_on.set()


def test_a_source_with_nothing_to_tell_is_left_alone_for_a_while() -> None:
    """Waking a thread every second costs more than the source's readings are worth."""
    now, reads = [100.0], []

    class Silent:
        name = "silent"

        def read(self, now: float) -> Reading:
            reads.append(now)
            return Reading(rest_seconds=10.0)

        def close(self) -> None: ...

    runner = SourceRunner(Silent(), lambda: now[0])
    for _ in range(25):
        runner.ask(now[0])
        runner.take(now[0] + 5.0, 0.0)
        now[0] += 1.0
    assert reads == [100.0, 110.0, 120.0]
    assert runner.health().up
    runner.close()


def test_close_waits_for_the_read_under_way(bench: Bench) -> None:
    """Fault 33: a clean stop cuts off no call into a driver, unless that is late already."""
    bench.source.goes_on.clear()
    bench.runner.ask(bench.clock.now)
    threading.Timer(0.1, bench.source.goes_on.set).start()
    bench.runner.close()
    assert bench.source.closed


class Received(Scripted):
    """One that programs send to: a read takes what was sent, and hangs before it returns it."""

    def __init__(self) -> None:
        super().__init__()
        self.sent = [Reading(socket_busy_seconds={0: 1.0}), Reading(socket_busy_seconds={0: 2.0})]

    def read(self, now: float) -> Reading:
        self.answer = self.sent.pop(0)
        return super().read(now)

    def rest(self) -> Reading:
        assert self.closed
        return self.sent.pop(0)


@pytest.mark.parametrize("late", [False, True])
def test_what_was_sent_is_taken_at_the_end_also_from_a_read_that_is_late(late: bool) -> None:
    source, clock = Received(), Clock()
    runner = SourceRunner(source, clock)
    sent = list(source.sent)
    source.goes_on.clear()
    runner.ask(clock.now)
    if late:
        assert runner.take(clock.now, WALL) is None
    threading.Timer(0.1, source.goes_on.set).start()
    assert runner.rest() == sent
    assert source.closed


def test_the_end_does_not_wait_for_a_read_that_hangs() -> None:
    source, clock = Received(), Clock()
    runner = SourceRunner(source, clock)
    source.goes_on.clear()
    runner.ask(clock.now)
    assert runner.rest() == []
    assert not source.closed
    source.goes_on.set()


def test_what_was_never_there_is_no_warning(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    """A machine without a GPU logs it once as information; one whose GPU disappeared warns."""
    absent = Unavailable("not_found", "no such driver", "nothing to do without a card")
    bench.source.answer = absent
    for _ in range(30):
        bench.tick()
    bench.source.answer = Reading()
    for _ in range(60):
        bench.tick()
    bench.source.answer = absent
    bench.tick()
    assert [record.levelname for record in caplog.records] == ["INFO", "INFO", "WARNING"]
