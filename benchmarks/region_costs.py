"""What regions cost program and exporter, and joules of regions of known CPU time, with real processes and socket."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import psutil

from exporter.host import Host, boot_seconds
from exporter.sources.nvml.process import NvmlProcess
from tests.support.live import Exporter, Meter, Scrape
from tests.support.nvml import control
from tests.support.nvml.control import FakeDriver, Gpu
from tests.support.repository import REPOSITORY

from .gpus import DELAYS
from .service import cpu_seconds
from .table import show, verdict

_ROUNDS = 1000
_RUNS = 1000
_PROGRAMS = 4
_RATES = (10_000, 100_000)
_SETTLE_SECONDS = 3.0
_SECONDS = 9.0
_TRUTH_SECONDS = 60.0
CLIENT_GOAL_MICROSECONDS = 2.0
ABSENT_GOAL_MICROSECONDS = 0.3
EXPORTER_GOAL_PERCENT = 2.0
JOULES_GOAL_PERCENT = 5.0
CARD_GOAL_PERCENT = 1.0

_COUNTER = "nvmlDeviceGetTotalEnergyConsumption"
_CARDS = (1, 8)
_CARD_SECONDS = 3.0
_CARD_WARM_SECONDS = 1.5

_SHAPES = {
    "one region again and again": "with a: pass",
    "by name": "with region('a'): pass",
    "one within the other": "with a:\n  with b: pass",
    "decorated": "work()",
}
_REGIONS = {"one within the other": 2}

_STOPWATCH = """
import time
from exporter.regions import region
a, b = region('a'), region('b')
@region('c')
def work(): pass
def bare(): pass
class Nothing:
    __slots__ = ()
    def __enter__(self): return self
    def __exit__(self, *_): pass
nothing = Nothing()
def empty():
    for _ in range({runs}): {empty}
def full():
    for _ in range({runs}):
        {body}
def statement():
    for _ in range({runs}):
        with nothing: pass
def measure(function):
    began = time.perf_counter_ns(); function()
    return time.perf_counter_ns() - began
until = time.monotonic() + 1.2  # until it is known that these regions are short
while time.monotonic() < until: full()
found = [[measure(each) for each in (empty, full, statement)] for _ in range({rounds})]
print([min(each) / {runs} for each in zip(*found)])
"""

_STEADY = """
import json, sys, time
from exporter.regions import region, step
a, b = region('forward'), region('backward')
each, until, runs = float(sys.argv[1]), time.monotonic() + float(sys.argv[2]), 0
due = time.monotonic()
while due < until:
    for _ in range(50):
        with a: pass
        with b: pass
    runs += 100
    due += 100 / each
    time.sleep(max(0.0, due - time.monotonic()))
print(runs)
"""

_KNOWN = """
import json, os, signal, sys, time
from exporter.regions import region
used, stopped = {}, []
signal.signal(signal.SIGTERM, lambda *_: stopped.append(1))
def compute(name, seconds):
    began = time.thread_time()
    with region(name):
        while time.thread_time() < began + seconds: pass
    used[name] = used.get(name, 0.0) + time.thread_time() - began
child = os.fork()
who = 'parent' if child else 'child'
while not stopped:
    compute(who + ' a', 0.012)
    compute(who + ' b', 0.004)
    time.sleep(0.008)
if child:
    os.kill(child, signal.SIGTERM)
    os.waitpid(child, 0)
with open(sys.argv[1] + who, 'w') as file: json.dump([os.getpid(), used], file)
"""


def main() -> None:
    """Print three tables, each as soon as it is measured: about two minutes."""
    for part in (_client, _load):
        with tempfile.TemporaryDirectory() as folder:
            part(Path(folder))
    _fast_reads()


def joules() -> None:
    """Print one table, of a minute in which two processes are in regions of known CPU time."""
    with tempfile.TemporaryDirectory() as folder:
        _known(Path(folder))


@contextmanager
def _exporter(folder: Path, meter: Meter | None = None) -> Iterator[tuple[Exporter, Path]]:
    path = folder / "regions.sock"
    own = meter or Meter(folder / "sys")
    flags = ("--path.sysfs", str(folder / "sys"), "--path.cgroupfs", "/sys/fs/cgroup", "--sample.interval", "1s")
    state = ("--regions.socket", str(path), "--state.file", str(folder / "state"))
    meters = ("--attribution.cpu-scope", "machine", "--idle.watts", "package-0=0")  # the written meter has one power
    exporter = Exporter(*flags, *state, *meters)
    try:
        exporter.scrape()
        yield exporter, path
    finally:
        exporter.end()
        if meter is None:
            own.stop()


def _python(text: str, path: Path, *arguments: str) -> subprocess.Popen[str]:
    environment = os.environ | {"PYTHONPATH": str(REPOSITORY), "AI_ENERGY_REGIONS_SOCKET": str(path)}
    return subprocess.Popen(
        [sys.executable, "-c", text, *arguments], env=environment, stdout=subprocess.PIPE, text=True
    )


def _client(folder: Path) -> None:
    rows = []
    with _exporter(folder) as (_, path):
        for name, code in _SHAPES.items():
            regions = _REGIONS.get(name, 1)
            present, ratio = _microseconds(code, path, regions)
            absent, _ = _microseconds(code, folder / "absent.sock", regions)
            met = present <= CLIENT_GOAL_MICROSECONDS and absent <= ABSENT_GOAL_MICROSECONDS
            rows.append((name, f"{present:.2f}", f"{ratio:.1f}", f"{absent:.2f}", verdict(met)))
    goals = f"≤ {CLIENT_GOAL_MICROSECONDS}, ≤ {ABSENT_GOAL_MICROSECONDS}"
    head = ("region", "µs", "x an empty `with`", "without a socket, µs", goals)
    show(f"Client: net of the loop, least of {_ROUNDS} rounds of {_RUNS} runs", head, rows)


def _microseconds(code: str, path: Path, regions: int) -> tuple[float, float]:
    """What one region costs, and how many times an empty ``with`` statement of the same process that is."""
    body = code.replace("\n", "\n        ")
    bare = "bare()" if "work" in code else "pass"
    text = _STOPWATCH.format(runs=_RUNS, rounds=_ROUNDS, body=body, empty=bare)
    empty, full, statement = json.loads(_python(text, path).communicate()[0])
    each = (full - empty) / regions
    return each / 1e3, each / (statement - empty)


def _load(folder: Path) -> None:
    rows = []
    with _exporter(folder) as (exporter, path):
        time.sleep(_SETTLE_SECONDS)
        idle = _cpu_percent(exporter, _SECONDS)
        counted = lost = rejected = 0.0
        for wanted in _RATES:
            length = _SECONDS + 2 * _SETTLE_SECONDS
            began = time.monotonic()
            programs = [_python(_STEADY, path, str(wanted / _PROGRAMS), str(length)) for _ in range(_PROGRAMS)]
            time.sleep(_SETTLE_SECONDS)
            busy = _cpu_percent(exporter, _SECONDS)
            entered = sum(int(program.communicate()[0]) for program in programs)
            rate = entered / (time.monotonic() - began)
            before = counted, lost, rejected
            counted, lost, rejected = _settled(exporter)
            since = [now - then for now, then in zip((counted, lost, rejected), before, strict=True)]
            numbers = " / ".join(f"{number:,.0f}" for number in (entered, *since))
            met = verdict(busy - idle <= EXPORTER_GOAL_PERCENT and entered == since[0] + since[1])
            rows.append((f"{rate:,.0f}", f"{idle:.2f}", f"{busy:.2f}", f"{busy - idle:.2f}", numbers, met))
    head = (
        "regions a second",
        "exporter before, % of a core",
        "during",
        "difference",
        "entered / counted / lost / rejected messages",
        f"≤ {EXPORTER_GOAL_PERCENT:g} %",
    )
    show(f"Exporter: {_PROGRAMS} programs", head, rows)


def _settled(exporter: Exporter) -> tuple[float, float, float]:
    """Runs that were counted and lost, and messages that were rejected, once all programs have ended."""
    until = time.monotonic() + 4.0 * _SETTLE_SECONDS
    while True:
        scrape = exporter.scrape()
        if not scrape.total("energy_region_programs") or time.monotonic() > until:
            counted, lost = scrape.total("energy_region_runs_total"), scrape.total("energy_region_runs_lost_total")
            return counted, lost, scrape.total("energy_region_messages_rejected_total")
        time.sleep(1.0)


def _cpu_percent(exporter: Exporter, seconds: float) -> float:
    before, began = cpu_seconds(exporter.process.pid), time.monotonic()
    time.sleep(seconds)
    return 100.0 * (cpu_seconds(exporter.process.pid) - before) / (time.monotonic() - began)


def _fast_reads() -> None:
    """CPU time of the child that calls the driver: without and with cards whose counters are read more often."""
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        library = control.build(Path(folder))
        for count in _CARDS:
            for busy in ({}, {"FAKE_NVML_BUSY": "1"}):
                with FakeDriver(library) as driver, _environment(driver.environment() | busy):
                    for function, seconds in DELAYS.items():
                        driver.delay(function, seconds=seconds)
                    gpus = [driver.add_gpu() for _ in range(count)]
                    off, _ = _child_percent(driver, gpus, ())
                    on, calls = _child_percent(driver, gpus, [gpu.uuid for gpu in gpus])
                card = (on - off) / count
                row = (f"{off:.2f}", f"{on:.2f}", f"{calls / count:.1f}", f"{card:.2f}")
                rows.append((f"{count}", "computes" if busy else "waits", *row, verdict(card <= CARD_GOAL_PERCENT)))
    head = (
        "cards",
        f"the driver, {1e3 * DELAYS[_COUNTER]:g} ms a read",
        "child before, % of a core",
        "during",
        "reads a second of a card",
        "a card, %",
        f"≤ {CARD_GOAL_PERCENT:g} %",
    )
    show("Counters of cards on which regions are active", head, rows)


def _child_percent(driver: FakeDriver, gpus: list[Gpu], watched: Collection[str]) -> tuple[float, float]:
    """CPU time of the child in percent of one core, and calls a second for the counters of all cards."""
    source = NvmlProcess(Host(), watched=lambda: watched)
    clock = time.monotonic
    try:
        for warming in (True, False):
            child = psutil.Process().children()[-1] if not warming else None
            used, began, calls = _cpu_seconds(child), clock(), driver.calls(_COUNTER)
            until = began + (_CARD_WARM_SECONDS if warming else _CARD_SECONDS)
            due = began
            while due < until:
                source.read(boot_seconds())
                due += 1.0
                while clock() < due:
                    for gpu in gpus:
                        gpu.energy_joules += 50.0
                    time.sleep(0.1)
        passed = clock() - began
        return 100.0 * (_cpu_seconds(child) - used) / passed, (driver.calls(_COUNTER) - calls) / passed
    finally:
        source.close()


def _cpu_seconds(process: psutil.Process | None) -> float:
    return 0.0 if process is None else cpu_seconds(process.pid)


@contextmanager
def _environment(values: Mapping[str, str]) -> Iterator[None]:
    before = dict(os.environ)
    os.environ.update(values)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


def _known(folder: Path) -> None:
    meter = Meter(folder / "sys")
    rows: list[tuple[str, ...]] = []
    result = folder / "used."
    try:
        with _exporter(folder, meter) as (exporter, path):
            program = _python(_KNOWN, path, str(result))
            time.sleep(_TRUTH_SECONDS / 2)
        with _exporter(folder, meter) as (exporter, _):
            time.sleep(_TRUTH_SECONDS / 2 + _SETTLE_SECONDS)
            program.terminate()
            program.communicate()
            time.sleep(3.0)
            scrape = exporter.scrape()
            for who in ("parent", "child"):
                rows += _compare(scrape, who, *json.loads(Path(f"{result}{who}").read_text()))
    finally:
        meter.stop()
    head = ("region", "CPU s", "joules of the regions by CPU time", "joules of the region", "error %", "≤ 5 %")
    show("Known CPU time: a fork, and a restart of the exporter after half a minute; 1 s ticks", head, rows)


def _compare(scrape: Scrape, who: str, pid: int, used: dict[str, float]) -> list[tuple[str, ...]]:
    """Joules of regions beside those of the process, less its start and the time without an exporter."""
    joules = {name: scrape.total("energy_region_joules_total", region=name, component="cpu") for name in used}
    whole = sum(joules.values())
    process = scrape.total("energy_process_joules_total", pid=str(pid), component="cpu")
    found: list[tuple[str, ...]] = []
    for name, seconds in used.items():
        expected = whole * seconds / sum(used.values())
        error = 100.0 * (joules[name] / expected - 1.0)
        met = verdict(abs(error) <= JOULES_GOAL_PERCENT)
        found.append((name, f"{seconds:.2f}", f"{expected:.1f}", f"{joules[name]:.1f}", f"{error:+.1f}", met))
    share = whole / process
    found.append((f"{who}: both of the process", "", f"{process:.1f}", f"{whole:.1f}", f"{100 * (share - 1):+.1f}", ""))
    return found
