"""The guard keeps its deadline over calls that hang, fail or are slow: real threads, a real FIFO."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from exporter.sampling.deadline import SPAWN_AFTER_SECONDS, DeadlineCall, WorkerPool
from tests.support.patience import patience


class Fifo:
    """A file whose read hangs until the test writes to it, like a sysfs file of a broken driver."""

    def __init__(self, path: Path) -> None:
        os.mkfifo(path)
        self.path = path
        self.calls = 0

    def read(self, word: str) -> str:
        self.calls += 1
        with self.path.open() as file:
            return word + file.read()

    def write(self, text: str) -> None:
        with self.path.open("w") as file:
            file.write(text)


@pytest.fixture
def fifo(tmp_path: Path) -> Fifo:
    return Fifo(tmp_path / "energy_uj")


@pytest.fixture
def guard(fifo: Fifo) -> Iterator[DeadlineCall[str, str]]:
    made = DeadlineCall("hanging", fifo.read, time.monotonic)
    yield made
    made.stop()


def threads(name: str) -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == name]


def test_a_call_in_time() -> None:
    guard = DeadlineCall[int, int]("quick", lambda number: number + 1, time.monotonic)
    assert threads("quick") == []
    for number in range(3):
        guard.request(number)
        done = guard.take(5)
        assert done is not None
        assert (done.result, done.error) == (number + 1, None)
        assert 0 <= done.seconds < patience(1)
        assert not guard.busy
    assert guard.take(0) is None
    (thread,) = threads("quick")
    guard.stop()
    thread.join(patience())
    assert not thread.is_alive()


def test_a_call_that_hangs_costs_its_deadline_and_one_thread(guard: DeadlineCall[str, str], fifo: Fifo) -> None:
    """Fault 15: no further read starts in the meantime, and its late result is returned."""
    guard.request("first ")
    began = time.monotonic()
    assert guard.take(0.05) is None
    assert time.monotonic() - began > 0.04
    for _ in range(50):
        guard.request("more ")
        assert guard.take(0) is None
        assert guard.busy
    assert len(threads("hanging")) == 1
    assert fifo.calls == 1
    fifo.write("late")
    done = guard.take(patience())
    assert done is not None
    assert done.result == "first late"
    assert done.seconds >= 0.04
    guard.request("second ")
    assert guard.take(0.01) is None
    fifo.write("fresh")
    done = guard.take(patience())
    assert done is not None
    assert done.result == "second fresh"
    assert fifo.calls == 2


def test_a_late_answer_waits_for_the_next_taker(guard: DeadlineCall[str, str], fifo: Fifo) -> None:
    """Fault 15: the delta in it is not lost, and not overtaken by a second call."""
    guard.request("old ")
    assert guard.take(0.01) is None
    fifo.write("delta")
    time.sleep(0.05)
    guard.request("new ")
    done = guard.take(1)
    assert done is not None
    assert (done.result, fifo.calls) == ("old delta", 1)


def test_a_thread_outlives_whatever_is_raised() -> None:
    def fail(error: Exception) -> None:
        raise error

    guard = DeadlineCall("failing", fail, time.monotonic)
    for error in (ValueError("a"), OSError(5, "b"), RecursionError()):
        guard.request(error)
        done = guard.take(5)
        assert done is not None
        assert (done.result, done.error) == (None, error)
    assert len(threads("failing")) == 1
    guard.stop()


def test_a_hung_thread_does_not_keep_the_process_alive(guard: DeadlineCall[str, str], fifo: Fifo) -> None:
    """Faults 15, 33: it is a daemon thread, so the process stops within seconds without waiting for it."""
    guard.request("x")
    assert guard.take(0.01) is None
    guard.stop()
    (thread,) = threads("hanging")
    assert thread.daemon
    fifo.write("")
    thread.join(patience())
    assert not thread.is_alive()


def test_a_crew_does_all_calls_on_one_thread() -> None:
    pool = WorkerPool("pool")
    guards = [
        DeadlineCall[int, int](f"call-{n}", lambda number: threading.get_ident() + 0 * number, time.monotonic, pool)
        for n in range(4)
    ]
    seen = set()
    for number in range(3):
        for guard in guards:
            guard.request(number)
        for guard in guards:
            done = guard.take(patience())
            assert done is not None
            seen.add(done.result)
    assert len(seen) == 1
    (thread,) = threads("pool")
    pool.stop()
    thread.join(patience(5))
    assert not thread.is_alive()


def test_a_call_that_hangs_does_not_hold_up_those_behind_it(fifo: Fifo) -> None:
    """Fault 15: another thread takes what is left, and it goes when the first one is back."""
    pool = WorkerPool("pool")
    hanging = DeadlineCall("hanging", fifo.read, time.monotonic, pool)
    behind = DeadlineCall[int, int]("behind", lambda number: number, time.monotonic, pool)
    for number in range(20):
        hanging.request("x")
        behind.request(number)
        assert hanging.take(0.0 if number else 2 * SPAWN_AFTER_SECONDS) is None
        done = behind.take(5)
        assert done is not None
        assert done.result == number
    assert len(threads("pool")) == 2
    assert fifo.calls == 1
    fifo.write("late")
    deadline = time.monotonic() + patience(5)
    while len(threads("pool")) > 1 and time.monotonic() < deadline:
        time.sleep(0.01)
    assert len(threads("pool")) == 1
    late = hanging.take(5)
    assert late is not None
    assert late.result == "xlate"
    pool.stop()
