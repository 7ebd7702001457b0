"""A run beside an exporter takes its samples when that one does."""

from __future__ import annotations

import os

import pytest

from exporter.host import Host
from exporter.runs.consumption import Consumption, RunNamer
from exporter.runs.descendants import Descendants
from exporter.runs.launcher import Ending, Link
from exporter.runs.local_exporter import Page
from exporter.runs.measuring import Measurement
from exporter.sampling.sampler import Sampler, SamplerOptions


class Waiting(Link):
    """A command that ends after some readings; the time that is waited for each passes."""

    def __init__(self, now: float, readings: int) -> None:
        self.now = now
        self.moments: list[float] = []
        self._readings = readings

    def ready(self) -> None: ...

    def wait(self, seconds: float) -> Ending | None:
        self.now += seconds
        self.moments.append(self.now)
        return None if len(self.moments) < self._readings else Ending(0, 0.0, 0.0, 0.0)


@pytest.mark.parametrize(
    ("sampled_at", "interval", "expected"),
    [
        (997.25, 1.0, [1000.25, 1001.25, 1002.25]),
        (1000.0, 1.0, [1001.0, 1002.0, 1003.0]),
        (999.05, 1.0, [1001.05, 1002.05, 1003.05]),  # 0.05 s is no interval
        (997.25, 5.0, [1001.0, 1002.0, 1003.0]),  # its intervals are others
    ],
)
def test_samples_come_when_those_of_the_exporter_do(sampled_at: float, interval: float, expected: list[float]) -> None:
    link = Waiting(1000.0, 3)
    host = Host(clock=lambda: link.now, wall=lambda: link.now)
    consumption = Consumption(Descendants(host, os.getpid(), 0), None, subreaper=True)
    sampler = Sampler([], RunNamer(), host, SamplerOptions(interval_seconds=1.0))
    try:
        Measurement(sampler, [], consumption, host, pace=Page(sampled_at, interval, demo=False)).run(link)
    finally:
        sampler.close()
    assert link.moments == pytest.approx(expected)
