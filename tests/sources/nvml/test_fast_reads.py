"""Counters that are read between two readings, while programs report regions: which, how often, and what of it."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from itertools import pairwise
from random import Random

import psutil
import pytest

from exporter.host import Host
from exporter.records import CounterStep, EnergyReading, PowerReading, Reading, Unavailable
from exporter.sources.driver_process import Timeouts
from exporter.sources.nvml.counter_steps import CounterSteps
from exporter.sources.nvml.fast_reads import MAX_CPU_RATIO, MAX_TIME_RATIO, PERIOD_SECONDS, FastReads
from exporter.sources.nvml.library import DriverError
from exporter.sources.nvml.process import NvmlProcess
from tests.support.nvml import control
from tests.support.nvml.control import FakeDriver, Gpu
from tests.support.patience import wait_for

COUNTER = "nvmlDeviceGetTotalEnergyConsumption"
SHORT = Timeouts(first=20.0, answer=0.3, start=0.0)
AT_ONCE = Timeouts(start=0.0)


class Bench:
    """Two cards, ``a`` and ``b``, whose calls take ``call_seconds``; the jitter is left out."""

    def __init__(self) -> None:
        self.now = 100.0
        self.call_seconds = 0.0004
        self.joules: dict[str, float | None] = {"a": 1.0, "b": 1.0}
        self.broken = False
        self.calls: list[str] = []
        self.cpu_ratio = 1.0  # part of a call in which it computes
        self.reads = FastReads(
            self._counter, lambda: self.now, lambda: self.cpu_ratio * self.now, lambda low, high: (low + high) / 2
        )

    def _counter(self, card: str) -> float | None:
        self.now += self.call_seconds
        self.calls.append(card)
        if self.broken:
            raise DriverError("failed", "driver", "broken")
        return self.joules[card]

    def read(self, joules: float | None) -> None:
        """The next read, when it is due, of a counter of ``a`` that stands at ``joules``."""
        self.joules["a"] = joules
        wait = self.reads.wait_seconds()
        if wait is not None:
            self.now += wait
            self.reads.read()


@pytest.fixture
def bench() -> Bench:
    return Bench()


class TestSchedule:
    def test_nothing_is_read_while_nothing_is_watched(self, bench: Bench) -> None:
        assert bench.reads.wait_seconds() is None
        bench.reads.watch(["a"])
        assert bench.reads.wait_seconds() is not None
        bench.reads.watch([])
        assert bench.reads.wait_seconds() is None
        assert bench.calls == []

    def test_twenty_times_a_second(self, bench: Bench) -> None:
        bench.reads.watch(["a", "b"])
        for _ in range(100):
            bench.read(1.0)
        assert bench.now == pytest.approx(100.0 + 99 * PERIOD_SECONDS, abs=0.01)
        assert bench.calls == ["a", "b"] * 100

    def test_reads_are_not_periodic(self, bench: Bench) -> None:
        reads = FastReads(lambda _: 1.0, lambda: bench.now)
        reads.watch(["a"])
        waits = set()
        for _ in range(20):
            reads.read()
            waits.add(reads.wait_seconds())
        assert len(waits) == 20
        assert all(wait is not None and 0.02 <= wait <= 0.08 for wait in waits)

    @pytest.mark.parametrize("call_seconds", [0.002, 0.02, 1.0])
    @pytest.mark.parametrize(("cpu_ratio", "limit"), [(1.0, MAX_CPU_RATIO), (0.0, MAX_TIME_RATIO)])
    def test_a_slow_driver_is_read_less_often(
        self, bench: Bench, call_seconds: float, cpu_ratio: float, limit: float
    ) -> None:
        bench.call_seconds, bench.cpu_ratio = call_seconds, cpu_ratio
        bench.reads.watch(["a", "b"])
        for _ in range(20):
            bench.read(1.0)
        assert 20 * call_seconds <= 1.1 * limit * (bench.now - 100.0)


class TestFailures:
    def test_a_card_without_a_counter_is_asked_once(self, bench: Bench) -> None:
        bench.reads.watch(["a"])
        for _ in range(5):
            bench.read(None)
        assert bench.calls == ["a"]
        assert bench.reads.take() == ()

    def test_a_card_that_fails_is_left_alone_until_the_next_reading(self, bench: Bench) -> None:
        bench.reads.watch(["a"])
        bench.read(1.0)
        bench.broken = True
        for joules in (2.0, 3.0, 4.0):
            bench.read(joules)
        assert len(bench.calls) == 2
        bench.reads.watch(["a"])
        bench.read(5.0)
        assert len(bench.calls) == 3


def updates(period: float, jitter: float = 0.0, seconds: float = 60.0) -> tuple[list[CounterStep], list[float]]:
    """Steps of a counter that is updated each ``period``, read 20 times a second, and when it was updated by value."""
    random, steps, updated = Random(5), CounterSteps(), [0.0]
    at = 1.0
    found: list[CounterStep] = []
    while at < seconds:
        while updated[-1] <= at:
            updated.append(len(updated) * period + random.gauss(0.0, jitter))
        steps.note(float(len(updated) - 2), at)
        found += steps.take()
        at += PERIOD_SECONDS * random.uniform(0.5, 1.5)
    return found, updated


class TestSteps:
    @pytest.mark.parametrize(
        ("period", "jitter", "error"), [(0.1, 0.0, 0.004), (0.1, 0.002, 0.005), (0.02, 0.0, 0.008)]
    )
    def test_many_reads_say_when_it_is_updated(self, period: float, jitter: float, error: float) -> None:
        found, updated = updates(period, jitter)
        errors = [(step.after + step.at) / 2 - updated[round(step.joules)] for step in found]
        mean = sum(errors) / len(errors)  # a part of the delay, which is fitted
        assert sum((each - mean) ** 2 for each in errors) / len(errors) < error**2
        assert len(found) > 0.8 * 60.0 / max(period, PERIOD_SECONDS)

    def test_each_value_counts_once_and_in_order(self) -> None:
        found, _ = updates(0.1)
        assert [step.joules for step in found] == sorted({step.joules for step in found})
        assert all(before.at <= after.at and before.after < before.at for before, after in pairwise(found))

    @pytest.mark.parametrize("seed", range(5))
    def test_a_counter_that_is_updated_whenever_it_likes(self, seed: int) -> None:
        """The steps are then as wide as what two reads say, and true."""
        random, steps = Random(seed), CounterSteps()
        at, updated, joules, found = 1.0, [0.0], 0, list[CounterStep]()
        due = 1.0
        while at < 60.0:
            while due <= at:
                updated.append(due)
                joules += 1
                due += random.uniform(0.02, 0.3)
            steps.note(float(joules), at)
            found += steps.take()
            at += PERIOD_SECONDS * random.uniform(0.5, 1.5)
        right = [step for step in found if step.after <= updated[round(step.joules)] <= step.at]
        assert len(right) > 0.8 * len(found) > 0

    def test_an_interruption_is_no_step(self) -> None:
        steps, at = CounterSteps(), 1.0
        for joules in range(100):
            steps.note(float(joules), at)
            at += 0.1
        steps.take()
        steps.interrupt()
        steps.note(500.0, at + 60.0)
        assert steps.take() == ()


class Watched:
    """A source in its child process, and the cards that it is to watch."""

    def __init__(self, timeouts: Timeouts | None) -> None:
        self.cards: list[str] = []
        self.source = NvmlProcess(Host(), timeouts, lambda: self.cards)
        self._host = Host()

    def watch(self, driver: FakeDriver, *cards: str) -> None:
        """Watch cards, and wait until their counters are read."""
        self.cards = list(cards)
        before = driver.calls(COUNTER)
        self.read()
        wait_for(lambda: driver.calls(COUNTER) > before + 1)

    def read(self) -> Reading:
        return self.source.read(self._host.clock())

    def steps(self, gpu: Gpu) -> list[float]:
        """Joules of the steps that the next reading has, once there are any; the counter grows meanwhile."""
        found: list[float] = []

        def arrived() -> bool:
            gpu.energy_joules += 1
            found.extend([step.joules for card in self.read().steps for step in card.steps])
            return bool(found)

        wait_for(arrived)
        return found


@pytest.fixture
def driver(library: object, tmp_path: object, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeDriver]:
    with FakeDriver(library, tmp_path) as made:  # type: ignore[arg-type]
        for name, value in made.environment().items():
            monkeypatch.setenv(name, value)
        yield made


@pytest.fixture
def start(driver: FakeDriver) -> Iterator[Callable[..., Watched]]:
    started: list[Watched] = []

    def start_one(timeouts: Timeouts | None = None) -> Watched:
        started.append(Watched(timeouts))
        return started[-1]

    yield start_one
    driver.release()
    for each in started:
        each.source.close()


class TestChild:
    def test_only_the_watched_card_and_only_while_it_is_watched(
        self, driver: FakeDriver, start: Callable[..., Watched]
    ) -> None:
        gpu, other = driver.add_gpu(), driver.add_gpu()
        watched = start()
        watched.read()
        watched.read()
        assert driver.calls(COUNTER) == 0
        watched.watch(driver, gpu.uuid)
        assert watched.steps(gpu)
        assert driver.calls(COUNTER, gpu=other) == 0
        watched.cards = []
        watched.read()
        before = driver.calls(COUNTER)
        reading = watched.read()
        assert driver.calls(COUNTER) == before
        assert watched.read().steps == ()
        (meter, _) = reading.meters
        assert isinstance(meter, EnergyReading)
        assert meter.joules == gpu.energy_joules, "what is published is the difference of readings, as ever"

    def test_under_mig_it_is_the_card_that_is_read(self, driver: FakeDriver, start: Callable[..., Watched]) -> None:
        gpu = driver.add_gpu(mig=["3g.40gb", "3g.40gb"])
        start().watch(driver, gpu.uuid)

    def test_a_card_with_power_only(self, driver: FakeDriver, start: Callable[..., Watched]) -> None:
        gpu = driver.add_gpu("Tesla P100", architecture=4)
        gpu.energy_joules, gpu.power_watts = None, 180
        watched = start()
        watched.cards = [gpu.uuid]
        watched.read()
        before = driver.calls(COUNTER)
        for _ in range(3):
            reading = watched.read()
            assert isinstance(reading.meters[0], PowerReading)
            assert reading.steps == ()
        assert driver.calls(COUNTER) == before

    def test_a_card_that_is_unknown(self, driver: FakeDriver, start: Callable[..., Watched]) -> None:
        driver.add_gpu()
        watched = start()
        watched.cards = ["GPU-of-another-machine"]
        for _ in range(2):
            assert watched.read().steps == ()

    def test_it_survives_its_child(self, driver: FakeDriver, start: Callable[..., Watched]) -> None:
        gpu = driver.add_gpu()
        watched = start(AT_ONCE)
        watched.watch(driver, gpu.uuid)
        (child,) = [each for each in psutil.Process().children() if "exporter.sources.nvml.child" in each.cmdline()]
        os.kill(child.pid, signal.SIGKILL)
        with pytest.raises(Unavailable):
            watched.read()
        watched.watch(driver, gpu.uuid)

    def test_a_call_that_hangs_ends_the_child_as_in_a_reading(
        self, driver: FakeDriver, start: Callable[..., Watched]
    ) -> None:
        gpu = driver.add_gpu()
        watched = start(SHORT)
        watched.watch(driver, gpu.uuid)
        driver.hang(COUNTER)
        wait_for(lambda: driver.hanging(COUNTER) > 0)
        with pytest.raises(Unavailable) as caught:
            watched.read()
        assert caught.value.reason == "timeout"
        driver.release()
        watched.watch(driver, gpu.uuid)

    def test_a_call_that_fails_is_no_problem_of_the_reading(
        self, driver: FakeDriver, start: Callable[..., Watched]
    ) -> None:
        gpu = driver.add_gpu()
        driver.fail(COUNTER, code=control.UNKNOWN)
        watched = start()
        watched.cards = [gpu.uuid]
        for _ in range(3):
            reading = watched.read()
            assert (len(reading.meters), reading.problems, reading.steps) == (1, (), ())
