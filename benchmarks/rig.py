"""A node whose joules are known: real workers in real cgroups drive a written RAPL package that the exporter reads.

The truth comes from the workers' own CPU clocks and ``wait4``; the exporter sees only /proc, cgroups and powercap.
"""

from __future__ import annotations

import contextlib
import mmap
import os
import subprocess
import tempfile
import time
import urllib.request
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from prometheus_client.parser import text_string_to_metric_families

from . import groups
from .native import build
from .service import Service

IDLE_WATTS = 40.0
WATTS_PER_CORE = 50.0
RANGE_MICROJOULES = 1_000_000_000
"""The package's counter wraps after 1000 J, several times a minute."""

CPUS = len(os.sched_getaffinity(0))
CONTAINERS = 4
WORKERS = -(-CPUS // CONTAINERS)
"""Workers per container, so that all containers together can use every CPU."""

SLOTS = 64
PACE = (1.0, 2.0, 3.0)
"""The last slots burn these multiples of half the watts per core: instruction mixes of different hunger."""

HALF_WATTS = WATTS_PER_CORE / 2

MODEL_VARIABLE = "WORKS_FOR"
RULE = f"models: [{{environment: {{{MODEL_VARIABLE}: '(?P<name>.+)'}}, model_name: '${{name}}', phase: training}}]\n"
"""How a program that no command line names, such as a notebook's kernel, gets a model: a rule over its environment."""


class Work(NamedTuple):
    """One worker: its container, the cgroup below the container's, and what it does (see worker.c).

    ``path`` is its cgroup where that is no container of Docker's; ``{0}`` in it is another number in each run.
    ``words`` and ``environment`` are what it looks like as a process, ``model`` the model that it works for. After
    ``share`` of the run it ends, and its cgroup, in which it is alone, is removed; with 1 it is there to the end.
    """

    container: int
    mode: str
    a: float = 0.0
    b: float = 0.0
    below: str = ""
    pace: int | None = None
    path: str = ""
    words: tuple[str, ...] = ()
    environment: tuple[tuple[str, str], ...] = ()
    model: str = ""
    share: float = 1.0

    def group(self, base: int) -> str:
        """Its cgroup in the run that starts to count at ``base``."""
        return self.path.format(base) if self.path else f"{groups.container(base + self.container)}/{self.below}"


@dataclass(frozen=True, slots=True)
class Outcome:
    """What one run of a scenario gave, by container: joules charged, joules true, joules of the ratio model.

    ``models`` has joules charged and true by model; "" is all processes without one, which have no charge. ``residual``
    is Σ devices against Σ accounts, relative. ``load`` is busy CPU seconds over all there were.
    """

    charged: Mapping[int, float]
    truth: Mapping[int, float]
    ratio: Mapping[int, float]
    models: Mapping[str, tuple[float, float]]
    residual: float
    load: float


@dataclass(frozen=True, slots=True)
class Scrape:
    """The values that matter of one scrape."""

    samples: float
    active: Mapping[str, float]
    models: Mapping[str, float]
    residual: float
    idle_watts: float
    wraps: float


@dataclass(slots=True)
class Rig:
    """The node while it runs; `play` runs a scenario on it."""

    worker: str
    page: Path
    root: Path
    slots: mmap.mmap
    meter: subprocess.Popen[str]
    exporter: Service
    interval: float
    sysfs: Path
    base: int = 0
    """Number of the first container of the next run."""

    def busy(self) -> float:
        """CPU time that all workers together have used so far, in seconds."""
        return sum(self._used())

    def scrape(self) -> Scrape:
        """Read the exporter as Prometheus does."""
        with urllib.request.urlopen(self.exporter.url, timeout=10) as answer:
            text = answer.read().decode()
        return _parse(text)

    def quiet(self, ticks: int = 2) -> Scrape:
        """Wait until the exporter sampled ``ticks`` more times in full."""
        first = self.scrape().samples
        while (scrape := self.scrape()).samples <= first + ticks:
            time.sleep(self.interval / 4)
        return scrape

    def play(
        self,
        works: Sequence[Work],
        seconds: float,
        seed: int,
        learning_seconds: float = 0.0,
        settled: Callable[[], object] = lambda: None,
    ) -> Outcome:
        """Run workers in fresh containers from standstill to standstill, and compare.

        Before that, other workers may do the same in these containers for ``learning_seconds``. ``settled`` is called
        when all is counted and the workers still exist.
        """
        base, self.base = self.base, self.base + 1000
        numbers = sorted({work.container for work in works})
        slots = _slots(works)
        if learning_seconds:
            with self._workers(works, slots, base, learning_seconds, seed + 50) as workers:
                self._run(workers, works, slots, learning_seconds, base)
        with self._workers(works, slots, base, seconds, seed) as workers:
            before, used_before = self.quiet(), self._used()
            ratio = self._run(workers, works, slots, seconds, base)
            after, used = self.quiet(), self._used()
            settled()
        truth: defaultdict[int, float] = defaultdict(float)
        of_models: defaultdict[str, float] = defaultdict(float)
        busy = 0.0
        for work, slot in zip(works, slots, strict=True):
            cpu = used[slot] - used_before[slot]
            truth[work.container] += cpu * _watts(slot)
            of_models[work.model] += cpu * _watts(slot)
            busy += cpu
        labels = {number: groups.container_label(base + number) for number in numbers}
        charged = {n: after.active.get(label, 0.0) - before.active.get(label, 0.0) for n, label in labels.items()}
        models = {
            name: (after.models.get(name, 0.0) - before.models.get(name, 0.0), joules)
            for name, joules in of_models.items()
        }
        for top in {Path(work.group(base)).parts[:1] for work in works} - {()}:
            groups.remove(self.root.joinpath(*top))
        return Outcome(charged, truth, ratio, models, after.residual, busy / seconds / CPUS)

    @contextlib.contextmanager
    def _workers(
        self, works: Sequence[Work], slots: Sequence[int], base: int, seconds: float, seed: int
    ) -> Iterator[list[subprocess.Popen[str]]]:
        """Workers that wait in their cgroups for the word to start; they are ended with the context."""
        with contextlib.ExitStack() as stack:
            workers = []
            for index, (work, slot) in enumerate(zip(works, slots, strict=True)):
                group = self.root / work.group(base)
                group.mkdir(parents=True, exist_ok=True)
                looks = (*work.words, "--") if work.words else (self.worker,)
                words = [
                    *looks,
                    self.page,
                    slot,
                    group,
                    work.mode,
                    seconds * work.share,
                    work.a,
                    work.b,
                    seed * 100 + index,
                ]
                command = [str(word) for word in words]
                started = _started(command, executable=self.worker, environment=dict(work.environment))
                workers.append(stack.enter_context(started))
            yield workers

    def _run(
        self, workers: list[subprocess.Popen[str]], works: Sequence[Work], slots: list[int], seconds: float, base: int
    ) -> dict[int, float]:
        """Let the workers run to the end; returns what the ratio model charges, given the true trace tick by tick."""
        charged: defaultdict[int, float] = defaultdict(float)
        for worker in workers:
            assert worker.stdin
            worker.stdin.write("go\n")
            worker.stdin.flush()
        at, joules, used = time.monotonic(), self.joules(), self._used()
        end = at + seconds
        there = list(zip(workers, works, strict=True))
        while at < end:
            time.sleep(self.interval)
            elapsed = time.monotonic() - (end - seconds)
            for worker, work in [*there]:
                if elapsed >= work.share * seconds:
                    assert _said(worker, "done"), "a worker failed"
                    there.remove((worker, work))
                    if work.share < 1.0:
                        worker.kill()
                        worker.wait()
                        self.root.joinpath(work.group(base)).rmdir()
            now, energy, now_used = time.monotonic(), self.joules(), self._used()
            for work, slot in zip(works, slots, strict=True):
                utilization = (now_used[slot] - used[slot]) / (now - at) / CPUS
                charged[work.container] += (energy - joules) * utilization
            at, joules, used = now, energy, now_used
        return dict(charged)

    def _used(self) -> list[float]:
        """CPU seconds by slot."""
        return [int.from_bytes(self.slots[8 * n : 8 * n + 8], "little", signed=True) * 1e-9 for n in range(SLOTS)]

    def joules(self) -> float:
        """True joules of the package so far."""
        assert self.meter.stdin
        assert self.meter.stdout
        self.meter.stdin.write("?\n")
        self.meter.stdin.flush()
        return float(self.meter.stdout.readline())


@contextlib.contextmanager
def rig(interval: float, *flags: str) -> Iterator[Rig]:
    """Set the node up and take it down; ``flags`` are the exporter's. Raises `CannotMeasure`."""
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        root = stack.enter_context(groups.subtree("ai-energy-truth"))
        meter, worker = build("meter", folder), build("worker", folder)
        page = folder / "page"
        page.write_bytes(bytes(4096))
        file = stack.enter_context(page.open("r+b"))
        slots = stack.enter_context(contextlib.closing(mmap.mmap(file.fileno(), 4096)))
        energy = _write_powercap(folder / "sys")
        config = folder / "config.yml"
        config.write_text(RULE)
        watts = [str(_watts(slot)) for slot in range(SLOTS)]
        command = [meter, str(page), str(energy), str(RANGE_MICROJOULES), str(IDLE_WATTS), *watts]
        driver = stack.enter_context(_started(command, ready=False))
        while not energy.read_text():
            time.sleep(0.01)
        exporter = stack.enter_context(
            Service.started(
                f"--path.sysfs={folder / 'sys'}",
                f"--path.cgroupfs={root}",
                "--attribution.cpu-scope=machine",
                f"--sample.interval={interval}s",
                "--no-source.hwmon",
                f"--config.file={config}",
                *flags,
            )
        )
        yield Rig(worker, page, root, slots, driver, exporter, interval, folder / "sys")


def _write_powercap(sysfs: Path) -> Path:
    zone, cpu = sysfs / "class/powercap/intel-rapl:0", sysfs / "devices/system/cpu"
    zone.mkdir(parents=True)
    cpu.mkdir(parents=True)
    (zone / "name").write_text("package-0\n")
    (zone / "max_energy_range_uj").write_text(f"{RANGE_MICROJOULES}\n")
    (zone / "constraint_0_max_power_uw").write_text("150000000\n")
    (zone / "energy_uj").write_text("")
    (cpu / "online").write_text(f"0-{CPUS - 1}\n")
    return zone / "energy_uj"


def _watts(slot: int) -> float:
    """Watts per core of whoever reports in this slot."""
    pace = slot - (SLOTS - len(PACE))
    return WATTS_PER_CORE if pace < 0 else HALF_WATTS * PACE[pace]


def _slots(works: Sequence[Work]) -> list[int]:
    """A slot for each worker: by its pace, else the next one."""
    return [n if work.pace is None else SLOTS - len(PACE) + work.pace for n, work in enumerate(works)]


@contextlib.contextmanager
def _started(
    command: list[str],
    *,
    ready: bool = True,
    executable: str | None = None,
    environment: Mapping[str, str] | None = None,
) -> Iterator[subprocess.Popen[str]]:
    with subprocess.Popen(
        command, executable=executable, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        try:
            if ready and not _said(process, "ready"):
                raise RuntimeError(f"{command[0]} ended at once")
            yield process
        finally:
            process.kill()


def _said(process: subprocess.Popen[str], word: str) -> bool:
    """Wait for the next line a process prints."""
    assert process.stdout
    return process.stdout.readline() == f"{word}\n"


def _parse(text: str) -> Scrape:
    active: defaultdict[str, float] = defaultdict(float)
    models: defaultdict[str, float] = defaultdict(float)
    given = booked = samples = idle = wraps = 0.0
    for family in text_string_to_metric_families(text):
        for name, labels, value, *_ in family.samples:
            match name:
                case "energy_samples_total":
                    samples = value
                case "energy_node_joules_total":
                    given += value
                case "energy_container_joules_total":
                    booked += value
                    if labels["mode"] == "active":
                        active[labels["container"]] += value
                case "energy_model_joules_total":
                    if labels["mode"] == "active":
                        models[labels["model_name"]] += value
                case "energy_unattributed_joules_total" | "energy_retired_joules_total":
                    booked += value
                case "energy_device_idle_watts":
                    idle = value
                case "energy_meter_wraps_total":
                    wraps += value
    return Scrape(samples, active, models, abs(given - booked) / (given or 1.0), idle, wraps)
