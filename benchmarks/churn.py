"""Simulated days in minutes: a sampler with its own clock and workloads that come and go; memory must stay flat."""

from __future__ import annotations

import logging
import os
import sys
import tempfile
from collections import deque

from exporter.exposition.metrics.collector import exporter_registry
from exporter.exposition.metrics.render import Renderer
from exporter.exposition.status.history import History
from exporter.host import Host
from exporter.records import CpuUse, Device, EnergyReading, GroupKey, GroupUse, Process, ProcessKey, ProcessUse, Reading
from exporter.sampling.sampler import Sampler
from exporter.workloads.namer import WorkloadNamer

from .groups import container

STEADY = 20
LIFE_TICKS = 10
PACKAGE = Device("package-0", "cpu", "rapl", "measured", "package-0", 8.0)

Member = tuple[GroupKey, Process]


class Churn:
    """A source in which every tick a container with one process starts, and the one of ten ticks ago ends."""

    name = "churn"

    def __init__(self) -> None:
        self._made = 0
        self._steady = [self._make() for _ in range(STEADY)]
        self._brief: deque[Member] = deque()

    def read(self, now: float) -> Reading:
        """One second of use."""
        born = self._make()
        started = [born[0]] if self._brief else [born[0], *(group for group, _ in self._steady)]
        self._brief.append(born)
        gone = [self._brief.popleft()] if len(self._brief) > LIFE_TICKS else []
        uses = tuple(
            GroupUse(group, 0.1 + index * 0.001, (ProcessUse(process, 0.1),))
            for index, (group, process) in enumerate([*self._steady, *self._brief])
        )
        return Reading(
            meters=(EnergyReading(PACKAGE, now, (now * 97.3) % 65_536, 65_536.0),),
            cpu=CpuUse(
                now,
                1.0,
                sum(use.seconds for use in uses) + 0.01,
                uses,
                kernel_seconds=0.01,
                started=tuple(started),
                ended=tuple(group for group, _ in gone),
                exited=tuple(process.key for _, process in gone),
            ),
        )

    def close(self) -> None:
        """Nothing to give back."""

    def _make(self) -> Member:
        self._made += 1
        number = self._made
        return GroupKey(f"/{container(number)}", number), Process(ProcessKey(number % 32768, number), "python3")


def resident_mib() -> float:
    """Resident memory of this process."""
    with open("/proc/self/statm", encoding="ascii") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20


def main(ticks: int) -> None:
    """Run; prints ``tick MiB series`` at a tenth and at the quarters, and the conservation error at the end."""
    logging.disable(logging.CRITICAL)
    now = 1000.0
    with tempfile.TemporaryDirectory() as empty:
        host = Host(sysfs=empty, clock=lambda: now, wall=lambda: 1.7e9 + now)
        history, renderer = History(), Renderer(exporter_registry())
        sampler = Sampler([Churn()], WorkloadNamer(), host, observers=(history.observe,))
        marks = {ticks // 10, ticks // 4, ticks // 2, ticks * 3 // 4, ticks}
        for tick in range(1, ticks + 1):
            now += 1.0
            snapshot = sampler.tick()
            if tick % 15 == 0 or tick in marks:
                body = renderer.body(snapshot)
            if tick in marks:
                print(tick, f"{resident_mib():.2f}", body.count(b"\n"), flush=True)
        print(f"{snapshot.energy.conservation_error_ratio:.2e}")
        sampler.close()


if __name__ == "__main__":
    main(int(sys.argv[1]))
