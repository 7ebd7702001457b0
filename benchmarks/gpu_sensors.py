"""A card's energy counter and power gauge, read as fast as the driver answers: do they move, and do they agree."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Sequence
from statistics import median
from typing import Any, NamedTuple

from exporter.sources.nvml.driver import ENERGY_MILLIJOULES, POWER_INSTANT_MILLIWATTS, Driver
from exporter.sources.nvml.library import DriverError

from .table import quantile

POWER_AVERAGE_MILLIWATTS = 185
READ_SECONDS = 0.001
"""No sensor known moves more often than every 10 ms."""

MOST_CALLS = 200


class Sample(NamedTuple):
    """One read: seconds of a monotonic clock, then joules so far, watts now and the driver's mean; None is unknown."""

    at: float
    joules: float | None
    watts: float | None
    average_watts: float | None


class Cadence(NamedTuple):
    """How often a sensor moved: how many times, and the median and 90 % quantile of the time between two moves."""

    moves: int
    median_seconds: float
    long_seconds: float


def watch(driver: Driver, handle: Any, seconds: float, clock: Callable[[], float] = time.monotonic) -> list[Sample]:
    """Read all sensors for a while. Raises `DriverError`."""
    samples: list[Sample] = []
    end = clock() + seconds
    while not samples or samples[-1].at < end:
        began = clock()
        values = driver.fields(handle, [ENERGY_MILLIJOULES, POWER_INSTANT_MILLIWATTS, POWER_AVERAGE_MILLIWATTS]).values
        joules, watts, average = (
            None if (value := values.get(field)) is None else value / 1000
            for field in (ENERGY_MILLIJOULES, POWER_INSTANT_MILLIWATTS, POWER_AVERAGE_MILLIWATTS)
        )
        if joules is None:
            joules = _known(lambda: driver.energy_joules(handle))
        if average is None:
            average = _known(lambda: driver.power_watts(handle))
        now = clock()
        samples.append(Sample((began + now) / 2, joules, watts, average))
        time.sleep(max(0.0, began + READ_SECONDS - now))
    return samples


def cadence(samples: Sequence[Sample], sensor: Callable[[Sample], float | None]) -> Cadence | None:
    """How often a sensor moved; None if it did less than three times."""
    moves = [
        after.at
        for before, after in itertools.pairwise(samples)
        if sensor(after) is not None and sensor(before) is not None and sensor(after) != sensor(before)
    ]
    if len(moves) < 3:
        return None
    steps = [after - before for before, after in itertools.pairwise(moves)]
    return Cadence(len(moves), median(steps), quantile(steps, 0.9))


def integral(samples: Sequence[Sample], gauge: Callable[[Sample], float | None]) -> float | None:
    """Joules by the trapezoid rule from the first sample to the last; None where the gauge is not known throughout."""
    watts = [gauge(sample) for sample in samples]
    joules = 0.0
    for (before, after), (low, high) in zip(itertools.pairwise(samples), itertools.pairwise(watts), strict=True):
        if low is None or high is None:
            return None
        joules += (low + high) / 2 * (after.at - before.at)
    return joules


def counted(samples: Sequence[Sample]) -> float | None:
    """Joules by the counter, from its first move to its last, at the mean power between those over the whole time.

    So the result does not depend on where in a step the samples begin and end. None where it is not known or stands.
    """
    moves = [
        (after.at, after.joules)
        for before, after in itertools.pairwise(samples)
        if after.joules is not None and before.joules is not None and after.joules != before.joules
    ]
    if len(moves) < 2:
        return None
    (began, low), (ended, high) = moves[0], moves[-1]
    return (high - low) / (ended - began) * (samples[-1].at - samples[0].at)


def call_seconds(call: Callable[[], Any], calls: int = MOST_CALLS) -> list[float]:
    """How long a call took, each of so many times; empty if it fails."""
    taken = []
    for _ in range(calls):
        began = time.perf_counter()
        try:
            call()
        except DriverError:
            return []
        taken.append(time.perf_counter() - began)
    return taken


def _known(ask: Callable[[], float]) -> float | None:
    try:
        return ask()
    except DriverError as error:
        if error.kind in ("lost", "down"):
            raise
        return None
