"""A program whose steps have three regions of known power, and a meter that shows its joules late."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from random import Random

from exporter.accounting.region_lags import Moment
from exporter.accounting.region_parts import KEPT_SECONDS, CardGrowth, RegionPart
from exporter.accounting.region_times import OUTSIDE, RegionTimes, Times
from exporter.accounting.regions import LATEST_SECONDS, TIME_ERROR_SECONDS, RegionEstimator, divide
from exporter.records import CounterStep
from exporter.sources.nvml.counter_steps import CounterSteps

WATTS = {"forward": 650.0, "load": 250.0, "optimizer": 450.0}
SECONDS = {"forward": 0.030, "load": 0.010, "optimizer": 0.005}

Steps = Iterator[tuple[str, float, float]]
"""Region, seconds and watts, one after the other."""


@dataclass(frozen=True, slots=True)
class Meter:
    """A counter that is read every ``period`` seconds, give or take ``jitter`` of it, and shows what was ``lag`` ago.

    ``clock_error`` is the standard deviation of the times of reads, in seconds, ``step`` the counter's resolution in
    joules.
    """

    period: float
    jitter: float = 0.5
    lag: float = 0.05
    clock_error: float = 2e-4
    step: float = 1e-3


def steps(
    random: Random, watts: dict[str, float] = WATTS, seconds: dict[str, float] = SECONDS, jitter: float = 0.1
) -> Steps:
    """Steps whose regions take ``seconds``, give or take ``jitter`` of them, with 1 % more or less power each time."""
    while True:
        for region, typical in seconds.items():
            yield region, typical * random.uniform(1 - jitter, 1 + jitter), watts[region] * random.gauss(1.0, 0.01)


@dataclass
class Run:
    """What was estimated, and what is true: joules and seconds by region, from the first interval on."""

    estimator: RegionEstimator = field(default_factory=RegionEstimator)
    joules: dict[str, float] = field(default_factory=dict)
    true_joules: dict[str, float] = field(default_factory=dict)
    seconds: Times = field(default_factory=dict)
    by_time: dict[str, float] = field(default_factory=dict)
    metered: float = 0.0

    def error(self, region: str, watts: float) -> float:
        """Relative error of the watts of a region."""
        return self.estimator.watts[region].watts / watts - 1.0

    def time_share_error(self, region: str) -> float:
        """The same if each interval's joules are divided by seconds."""
        return self.by_time[region] / self.true_joules[region] - 1.0


def simulate(random: Random, meter: Meter, duration: float, program: Steps | None = None) -> Run:
    """Let a program run for ``duration`` seconds and estimate the watts of its regions."""
    run, times = Run(RegionEstimator(time_error=max(TIME_ERROR_SECONDS, meter.clock_error))), RegionTimes()
    at, joules = 0.0, 0.0
    moments, energies = [0.0], [0.0]
    times.start(0.0)
    read_at, shown, due = 0.5, 0.0, 0.5
    first = True
    for region, seconds, watts in program or steps(random):
        at += seconds
        joules += seconds * watts
        times.add(seconds, ((region, seconds),))
        moments.append(at)
        energies.append(joules)
        if region != OUTSIDE:
            run.true_joules[region] = run.true_joules.get(region, 0.0) + seconds * watts
        while at >= due:
            now = _shown(moments, energies, due - meter.lag, meter.step)
            end = due + random.gauss(0.0, meter.clock_error)
            if not first:
                start, stop = Moment(read_at), Moment(end)
                run.estimator.observe(times, start, stop, now - shown)
                _post(run, now - shown, run.estimator.seconds(times, start, stop))
            read_at, shown, first = end, now, False
            due += meter.period * (1.0 + random.uniform(-meter.jitter, meter.jitter))
            keep = read_at - LATEST_SECONDS - 0.01
            times.forget(keep)
            index = max(0, bisect_left(moments, keep) - 1)
            del moments[:index], energies[:index]
        if at >= duration:
            return run
    return run


@dataclass(frozen=True, slots=True)
class Card:
    """A counter that steps every ``update`` seconds, about when is not known; ``lag`` as a meter's.

    It is read each second, and with ``fast`` 20 times a second, as the exporter does while regions are active. The rest
    of the card draws ``idle_watts``, which the process is not charged for.
    """

    update: float = 0.1
    lag: float = 0.02
    fast: bool = True
    idle_watts: float = 60.0


def simulate_card(random: Random, card: Card, duration: float, program: Steps) -> Run:
    """Let a program run on a card for ``duration`` seconds and estimate watts of its regions, less the idle ones."""
    part, times = RegionPart("gpu"), RegionTimes()
    run = Run(part.estimator)
    phase = random.random() * card.update
    moments, energies, total = [0.0], [0.0], 0.0
    times.start(0.0)
    at, due, tick_due, tick_last = 0.0, 1.0, 1.0, (0.0, 0.0)
    counter, values = CounterSteps(), list[CounterStep]()
    for region, seconds, watts in program:
        at += seconds
        moments.append(at)
        energies.append(energies[-1] + seconds * (watts + card.idle_watts))
        times.add(seconds, ((region, seconds),))
        run.true_joules[region] = run.true_joules.get(region, 0.0) + seconds * watts
        while at >= due:
            stepped = phase + (due - phase) // card.update * card.update
            shown = _shown(moments, energies, max(moments[0] + 1e-9, stepped - card.lag), 1e-3)
            counter.note(shown, due)
            if due >= tick_due:
                tick_due = due + random.uniform(1.0, 1.5)
                passed, grown = due - tick_last[0], shown - tick_last[1]
                joules = max(0.0, grown - card.idle_watts * passed)
                total += joules
                values += counter.take()
                steps = CardGrowth(grown, passed, 2000.0, tuple(values)) if card.fast else None
                part.read(due, total, steps)
                values, tick_last = values[-1:], (due, shown)
            due = due + 0.05 * random.uniform(0.5, 1.5) if card.fast else tick_due
        while part.waiting and part.hold(times, ended=False):
            joules, found = part.held.pop()
            _post(run, joules, found)
        if not part.waiting:
            keep = tick_last[0] - KEPT_SECONDS
            times.forget(keep)
            index = max(0, bisect_left(moments, keep) - 1)
            del moments[:index], energies[:index]
        if at >= duration:
            break
    return run


def _shown(moments: Sequence[float], energies: Sequence[float], at: float, step: float) -> float:
    index = bisect_left(moments, at)
    ratio = (at - moments[index - 1]) / (moments[index] - moments[index - 1])
    return round((energies[index - 1] + ratio * (energies[index] - energies[index - 1])) / step) * step


def _post(run: Run, joules: float, found: Times) -> None:
    run.metered += joules
    for region, share in divide(joules, found, run.estimator.watts).items():
        run.joules[region] = run.joules.get(region, 0.0) + share
    for region, share in divide(joules, found, {}).items():
        run.by_time[region] = run.by_time.get(region, 0.0) + share
    for region, seconds in found.items():
        run.seconds[region] = run.seconds.get(region, 0.0) + seconds
