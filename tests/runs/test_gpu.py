"""GPUs of a run: whose processes use them, what they owe, and what a driver does not say."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator

import pytest

from exporter.host import Host
from exporter.impact.values import Factors
from exporter.records import (
    CpuUse,
    Device,
    EnergyReading,
    GpuState,
    GpuUse,
    GroupKey,
    Process,
    ProcessKey,
    Reading,
)
from exporter.runs.consumption import Consumption, Focused, RunNamer
from exporter.runs.descendants import Descendants
from exporter.runs.launcher import Ending, Link
from exporter.runs.measuring import Measurement, Result
from exporter.runs.summary import Run, as_json, line, quality, remarks
from exporter.sampling.sampler import Sampler, SamplerOptions
from tests.support.cgroups import start_ticks

CARD = Device("GPU-1", "gpu", "nvml", "measured", "card", 1.0, max_watts=1000.0)
OTHER = Process(ProcessKey(1, 1), "init")
RUNNING_SECONDS = 4.0


class Cards:
    """A card at 300 W, of which 100 W are idle power; the run has it to itself, then shares it."""

    name = "nvml"

    def __init__(self, own: Process, *, reported: bool) -> None:
        self._own = own
        self._reported = reported
        self.reads = 0

    def read(self, now: float) -> Reading:
        joules = 300.0 * self.reads
        uses = [GpuUse(CARD.id, None, self._own, 0.5, reported=self._reported)]
        if self.reads >= 2:
            uses.append(GpuUse(CARD.id, GroupKey("/other", 7), OTHER, 0.5))
        self.reads += 1
        state = GpuState(CARD.id, "0", utilization_ratio=0.9, window_seconds=1.0)
        return Reading(
            meters=(EnergyReading(CARD, float(self.reads), joules, None),), gpu_uses=tuple(uses), gpus=(state,)
        )

    def close(self) -> None: ...


class Busy:
    """CPUs that were busy for two seconds in each one."""

    name = "cgroups"

    def read(self, now: float) -> Reading:
        return Reading(cpu=CpuUse(now, 1.0, 2.0))

    def close(self) -> None: ...


class Scripted(Link):
    """A command that ends after two more readings."""

    def __init__(self) -> None:
        self.left = 2

    def ready(self) -> None: ...

    def wait(self, seconds: float) -> Ending | None:
        self.left -= 1
        return None if self.left else Ending(0, 0.0, RUNNING_SECONDS, 0.0)


class Constant:
    """360 g of CO2e and 0.36 EUR for each kWh."""

    def at(self, unix_seconds: float) -> Factors:
        return Factors(intensity=360.0, price=0.36, currency="EUR")

    def health(self) -> tuple[()]:
        return ()

    def retry(self) -> None: ...

    def close(self) -> None: ...


@pytest.fixture
def child() -> Iterator[Process]:
    """A process that is below this one."""
    process = subprocess.Popen([sys.executable, "-S", "-c", "input()"], stdin=subprocess.PIPE)
    yield Process(ProcessKey(process.pid, start_ticks(process.pid)), "python")
    process.communicate(b"\n")


def measure(child: Process, *, reported: bool = True) -> Result:
    """Three readings: the card is the run's own in one second, and shared in the next."""
    host = Host()
    consumption = Consumption(Descendants(host, os.getpid(), 0), None, subreaper=True)
    sources = [Focused(Cards(child, reported=reported), consumption), Focused(Busy(), consumption)]
    options = SamplerOptions(interval_seconds=60.0, source_timeout_seconds=60.0, idle_watts={CARD.id: 100.0})
    sampler = Sampler(sources, RunNamer(), host, options, factors=Constant())
    try:
        return Measurement(sampler, sources, consumption, host).run(Scripted())
    finally:
        sampler.close()


def test_active_joules_go_by_use_and_idle_joules_by_holding(child: Process) -> None:
    result = measure(child)
    assert result.joules["gpu", "active"] == pytest.approx(200.0 + 100.0)
    assert result.joules["gpu", "idle"] == pytest.approx(100.0 + 50.0)
    assert result.idle_ratio == pytest.approx(150.0 / 450.0)
    assert result.gpu_seconds == pytest.approx(1.5)
    assert result.mean_watts == pytest.approx(450.0 / RUNNING_SECONDS)
    assert result.impact is not None
    assert result.impact.grams == pytest.approx(450.0 * 360 / 3.6e6)
    assert result.impact.cost == pytest.approx(450.0 * 0.36 / 3.6e6)
    assert quality(result) == "measured"
    assert "gpu 450 J" in line(result)
    assert "45 mg CO2e" in line(result)


def test_gpu_seconds_that_a_driver_does_not_report_are_unknown(child: Process) -> None:
    result = measure(child, reported=False)
    assert result.gpu_seconds is None
    assert "GPU s" not in line(result)
    assert '"gpu_seconds": null' in as_json(Run("1", "n", ["true"], "h", 0.0, "v"), result)


def test_what_still_runs_is_said(child: Process) -> None:
    assert " still run" in list(remarks(measure(child)))[-1]
