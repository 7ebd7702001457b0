"""What NVIDIA GPUs add to a tick: a scripted driver library whose calls take as long as real ones, asleep."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from statistics import fmean, median

import psutil

from tests.support.nvml import control
from tests.support.nvml.control import FakeDriver, Gpu

from .native import CannotMeasure
from .service import cpu_seconds
from .table import show, verdict

GOAL = 0.02
"""Most of one core that eight GPUs may cost, read once a second, without the driver's own time."""

WARM_UP = 5
SEVEN = ["1g.10gb"] * 7

DELAYS: Mapping[str, float] = {
    "nvmlDeviceGetFieldValues": 0.4e-3,
    "nvmlDeviceGetTotalEnergyConsumption": 0.4e-3,
    "nvmlDeviceGetMemoryInfo": 0.012e-3,
    "nvmlDeviceGetUtilizationRates": 0.0025e-3,
    "nvmlDeviceGetTemperature": 0.14e-3,
    "nvmlDeviceGetClockInfo": 0.14e-3,
    "nvmlDeviceGetEnforcedPowerLimit": 0.36e-3,
    "nvmlDeviceGetProcessUtilization": 0.5e-3,
    "nvmlDeviceGetComputeRunningProcesses_v3": 4.5e-3,
    "nvmlDeviceGetGraphicsRunningProcesses_v3": 4.5e-3,
    "nvmlDeviceGetMPSComputeRunningProcesses_v3": 4.5e-3,
    "nvmlGpmSampleGet": 1e-3,
    "nvmlGpmMigSampleGet": 1e-3,
    "nvmlDeviceGetMigDeviceHandleByIndex": 1e-3,
}
"""Function → seconds of one call: process lists, memory, utilisation and small queries as measured on an RTX 4090
laptop (flightlessmango/MangoHud #2104), power as on a K40m (gpustat #76). No figure is known for fields, the energy
counter alone, samples of use, GPM and MIG: those are assumed."""


@dataclass(slots=True)
class Node:
    """A scripted node and the exporter that reads it; ``users`` are the pids whose use each card's driver notes.

    What each round cost is in ``cpu`` (seconds of the exporter), ``child`` (of the process it asks the driver in)
    and ``wall``.
    """

    name: str
    driver: FakeDriver
    gpus: list[Gpu]
    users: list[list[int]]
    exporter: subprocess.Popen[str]
    cpu: list[float] = field(default_factory=list)
    child: list[float] = field(default_factory=list)
    wall: list[float] = field(default_factory=list)

    def live(self) -> None:
        """Let a second's worth of energy be burned and use be noted."""
        for gpu, users in zip(self.gpus, self.users, strict=True):
            gpu.energy_joules += 400.0
            for pid in users:
                gpu.sample(pid, 90 // len(users))

    def tick(self) -> None:
        """One tick of the exporter, from standstill to standstill."""
        own, child = self._used()
        assert self.exporter.stdin
        assert self.exporter.stdout
        self.exporter.stdin.write("go\n")
        self.exporter.stdin.flush()
        _, wall = map(float, self.exporter.stdout.readline().split())
        own_after, child_after = self._used()
        self.cpu.append(own_after - own)
        self.child.append(max(0.0, child_after - child))  # a new child begins at 0
        self.wall.append(wall)

    def _used(self) -> tuple[float, float]:
        """CPU seconds so far of the exporter, and of the process it asks the driver in."""
        children = psutil.Process(self.exporter.pid).children()
        return cpu_seconds(self.exporter.pid), sum(cpu_seconds(child.pid) for child in children)


@contextlib.contextmanager
def node(name: str, library: Path, count: int, *, mig: bool = False, tree: Path | None = None) -> Iterator[Node]:
    """A node of so many cards with two processes on each, or with seven MIG instances on each with one.

    The exporter is that of the working directory, or of another ``tree``.
    """
    with contextlib.ExitStack() as stack:
        driver = stack.enter_context(FakeDriver(library))
        for function, seconds in DELAYS.items():
            driver.delay(function, seconds=seconds)
        gpus = [driver.add_gpu(mig=SEVEN if mig else ()) for _ in range(count)]
        holders = [[stack.enter_context(_sleeper()).pid for _ in range(7 if mig else 2)] for _ in gpus]
        for gpu, pids in zip(gpus, holders, strict=True):
            gpu.util_percent = 90
            for place, pid in enumerate(pids):
                (gpu.mig[place] if mig else gpu).process(pid, memory_bytes=1 << 30)
                if mig:
                    gpu.mig[place].gpm(control.GPM_SM_UTIL, 60)
        exporter = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.ticker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=os.environ | (driver.environment() if gpus else {}),
            cwd=tree,
        )
        stack.callback(exporter.communicate)
        yield Node(name, driver, gpus, [[] for _ in gpus] if mig else holders, exporter)


@contextlib.contextmanager
def _sleeper() -> Iterator[subprocess.Popen[bytes]]:
    with subprocess.Popen(["sleep", "infinity"]) as process:
        try:
            yield process
        finally:
            process.kill()


def measure(nodes: list[Node], rounds: int) -> None:
    """Tick all of them once a second, one after the other."""
    due = time.monotonic()
    for _ in range(WARM_UP + rounds):
        for each in nodes:
            time.sleep(max(0.0, due - time.monotonic()))
            each.live()
            each.tick()
            due += 1.0 / len(nodes)
        due = max(due, time.monotonic())


def main(rounds: int = 60) -> None:
    """Print the table."""
    if shutil.which(os.environ.get("CC", "cc")) is None:
        raise CannotMeasure("no C compiler (cc): apt-get install gcc libc6-dev")
    with contextlib.ExitStack() as stack:
        library = control.build(Path(stack.enter_context(tempfile.TemporaryDirectory())))
        nodes = [
            stack.enter_context(node("none", library, 0)),
            stack.enter_context(node("1", library, 1)),
            stack.enter_context(node("8", library, 8)),
            stack.enter_context(node("16", library, 16)),
            stack.enter_context(node("8, cut into 56", library, 8, mig=True)),
        ]
        measure(nodes, rounds)
        shares = {each.name: fmean(total(each)) for each in nodes}
    show(
        f"GPUs: CPU milliseconds of a tick over {rounds} of them, one a second, the driver's own time left out",
        ("GPUs", "exporter", "its child", "both", "mean", "of one core", "for the GPUs", "a tick takes"),
        [
            (
                each.name,
                f"{median(each.cpu[WARM_UP:]) * 1e3:.2f}",
                f"{median(each.child[WARM_UP:]) * 1e3:.2f}",
                f"{median(total(each)) * 1e3:.2f}",
                f"{shares[each.name] * 1e3:.2f}",
                f"{shares[each.name]:.2%}",
                f"{shares[each.name] - shares['none']:.2%}",
                f"{median(each.wall[WARM_UP:]) * 1e3:.0f}",
            )
            for each in nodes
        ],
    )
    print(f"goal: 8 GPUs below {GOAL:.0%} of one core: {verdict(shares['8'] < GOAL)}")


def total(each: Node) -> list[float]:
    """CPU seconds of both processes in each round after the warm-up."""
    return [own + child for own, child in zip(each.cpu[WARM_UP:], each.child[WARM_UP:], strict=True)]
