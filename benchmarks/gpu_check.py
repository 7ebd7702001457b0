"""``python -m benchmarks.gpu_check``: measure a real NVIDIA card, and record what its driver says.

Shows how often its sensors move and whether they agree, how long the driver's calls take, what the exporter charges two
processes alone and together, and two regions of one, and whether it slows a loop of matrix products down. Needs an
NVIDIA driver, no toolkit.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from operator import attrgetter
from pathlib import Path
from statistics import fmean, median, stdev
from typing import Any

from prometheus_client.parser import text_string_to_metric_families

from exporter.records import Unavailable
from exporter.sources.nvml.driver import POWER_INSTANT_MILLIWATTS, PROCESS_USE_CALLS, Driver
from exporter.sources.nvml.library import DriverError
from tests.support import record_host

from . import gpu_regions
from .gpu_sensors import Cadence, Sample, cadence, call_seconds, counted, integral, watch
from .native import CannotMeasure
from .service import Service
from .table import quantile, show

SQUARE_WAVES = (0.02, 0.1, 0.5, 1.0)
"""Periods in seconds; half of each is busy."""


@dataclass(frozen=True, slots=True)
class Card:
    """The card under test."""

    driver: Driver
    handle: Any
    index: int
    uuid: str
    name: str


@dataclass(frozen=True, slots=True)
class Plan:
    """How long to measure: seconds of each load and before it, rounds of the slowdown and seconds of each."""

    seconds: float
    settle: float
    rounds: int
    round_seconds: float

    @property
    def long(self) -> float:
        """Until clocks, temperature and the exporter's idle watts are steady."""
        return 5 * self.settle


class Load:
    """A process that makes matrix products on the card."""

    def __init__(self, card: Card) -> None:
        """Start it. Raises `CannotMeasure`."""
        self._process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.gpu_load"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=os.environ | {"CUDA_VISIBLE_DEVICES": card.uuid},
        )
        self.pid = self._process.pid
        assert self._process.stdout
        assert self._process.stderr
        if self._process.stdout.readline() != "ready\n":
            raise CannotMeasure(f"no load: {self._process.stderr.read().strip()}")

    def begin(self, seconds: float, duty: float = 1.0, period: float = 1.0) -> None:
        """Let it work; `end` waits."""
        assert self._process.stdin
        self._process.stdin.write(f"{seconds} {duty} {period}\n")
        self._process.stdin.flush()

    def end(self) -> float:
        """Products per second of what it did. Raises `CannotMeasure`."""
        assert self._process.stdout
        assert self._process.stderr
        answer = self._process.stdout.readline().split()
        if len(answer) != 2:
            raise CannotMeasure(f"the load ended: {self._process.stderr.read().strip()}")
        return float(answer[0]) / float(answer[1])

    def close(self) -> None:
        """End it, whatever it is at."""
        self._process.terminate()
        self._process.communicate()


@contextlib.contextmanager
def load(card: Card) -> Iterator[Load]:
    """A load, and its end."""
    made = Load(card)
    try:
        yield made
    finally:
        made.close()


# --- sensors -----------------------------------------------------------------------------------------------------


def sensors(card: Card, plan: Plan) -> None:
    """Cadence and agreement over idle, steady and square-wave load."""
    rows = [_sensor_row("idle", watch(card.driver, card.handle, plan.seconds))]
    waves = [(f"{1e3 * period:g} ms, half busy", 0.5, period) for period in SQUARE_WAVES]
    with load(card) as one:
        for name, duty, period in [("steady", 1.0, 1.0), *waves]:
            one.begin(2 * plan.settle + plan.seconds, duty, period)
            time.sleep(plan.settle)
            rows.append(_sensor_row(name, watch(card.driver, card.handle, plan.seconds)))
            one.end()
    show(
        "Sensors: time between two moves (median, 90 %), and joules of the gauges over those of the counter",
        ("load", "reads", "counter moves", "power moves", "counter W", "momentary / counter", "averaged / counter"),
        rows,
    )


def _sensor_row(name: str, samples: Sequence[Sample]) -> list[str]:
    energy, seconds = counted(samples), samples[-1].at - samples[0].at
    return [
        name,
        f"{len(samples)}",
        _moves(cadence(samples, attrgetter("joules"))),
        _moves(cadence(samples, attrgetter("watts"))),
        "-" if energy is None else f"{energy / seconds:.1f}",
        ratio(integral(samples, attrgetter("watts")), energy),
        ratio(integral(samples, attrgetter("average_watts")), energy),
    ]


def _moves(found: Cadence | None) -> str:
    return "-" if found is None else f"{1e3 * found.median_seconds:.0f} ms, {1e3 * found.long_seconds:.0f} ms"


def ratio(part: float | None, whole: float | None) -> str:
    """One over the other, as it is shown; "-" where either is unknown."""
    return "-" if part is None or not whole else f"{part / whole:.3f}"


# --- calls -------------------------------------------------------------------------------------------------------


def _utilization(driver: Driver, call: str, handle: Any) -> object:
    with contextlib.suppress(DriverError):  # a card may have only one of these calls
        return driver.utilization(call, handle, time.time() - 1.0)
    return None


def calls(card: Card) -> None:
    """How long the calls take that the exporter makes, with the card busy."""
    driver, handle = card.driver, card.handle
    asked: dict[str, Callable[[], Any]] = {
        "nvmlDeviceGetFieldValues, 1 field": lambda: driver.fields(handle, [POWER_INSTANT_MILLIWATTS]),
        "nvmlDeviceGetTotalEnergyConsumption": lambda: driver.energy_joules(handle),
        **{call: partial(_utilization, driver, call, handle) for call in PROCESS_USE_CALLS},
        "process lists, all three": lambda: driver.pids(handle),
        "nvmlDeviceGetMemoryInfo": lambda: driver.memory_bytes(handle),
        "nvmlDeviceGetUtilizationRates": lambda: driver.utilization_ratio(handle),
        "nvmlDeviceGetTemperature": lambda: driver.temperature_celsius(handle),
        "nvmlDeviceGetClockInfo, both": lambda: driver.clock_hertz(handle),
    }
    with load(card) as one:
        one.begin(60.0)
        taken = {name: call_seconds(call) for name, call in asked.items()}
    show(
        "Calls: milliseconds of each, with the card busy",
        ("call", "median", "p99", "worst"),
        [
            (name, f"{1e3 * median(found):.3f}", f"{1e3 * quantile(found, 0.99):.3f}", f"{1e3 * max(found):.3f}")
            for name, found in taken.items()
            if found
        ],
    )


# --- attribution -------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Bill:
    """Joules of one scrape: of the card, and by pid and mode."""

    card: float
    processes: dict[tuple[int, str], float]
    conservation_error: float


def read_bill(scrape: str, uuid: str) -> Bill:
    """The GPU part of a scrape; the GPU part of a process is of all cards, of which the loads use but one."""
    card = error = 0.0
    processes: dict[tuple[int, str], float] = {}
    for family in text_string_to_metric_families(scrape):
        for sample in family.samples:
            labels = sample.labels
            if sample.name == "energy_device_joules_total" and labels["device"] == uuid:
                card = sample.value
            elif sample.name == "energy_process_joules_total" and labels["component"] == "gpu":
                processes[int(labels["pid"]), labels["mode"]] = sample.value
            elif sample.name == "energy_conservation_error_ratio":
                error = sample.value
    return Bill(card, processes, error)


def attribution(card: Card, plan: Plan) -> None:
    """Two processes alone and together: what each is charged."""
    rows, seconds = [], plan.seconds
    with Service.started("--sample.interval=1s") as exporter:
        time.sleep(plan.long)
        with load(card) as first, load(card) as second:
            for name, duties in {"A alone": (1.0, 0.0), "B alone": (0.0, 0.5), "both": (1.0, 0.5)}.items():
                time.sleep(plan.settle)
                before = read_bill(exporter.scrape().decode(), card.uuid)
                for one, duty in zip((first, second), duties, strict=True):
                    one.begin(seconds, duty, 0.2)
                rates = [one.end() for one in (first, second)]
                time.sleep(plan.settle)
                after = read_bill(exporter.scrape().decode(), card.uuid)
                used = [
                    after.processes.get((one.pid, "active"), 0.0) - before.processes.get((one.pid, "active"), 0.0)
                    for one in (first, second)
                ]
                rows.append(
                    (
                        name,
                        f"{after.card - before.card:.0f}",
                        *[f"{joules:.0f}" for joules in used],
                        *[f"{rate:.0f}" for rate in rates],
                        *[ratio(joules, rate * seconds) for joules, rate in zip(used, rates, strict=True)],
                        f"{after.conservation_error:.1e}",
                    )
                )
    show(
        f"Attribution over {seconds:g} s: A always busy, B half of each 0.2 s",
        ("", "card J", "A active J", "B active J", "A per s", "B per s", "A J each", "B J each", "conservation error"),
        rows,
    )
    print("Together they share the card's caches and clocks, so what each is charged alone is no truth for that.")


# --- slowdown ----------------------------------------------------------------------------------------------------


def slowdown(card: Card, plan: Plan) -> None:
    """Products a second with the exporter and without, in the order on, off, off, on."""
    rates: dict[bool, list[float]] = {True: [], False: []}
    with load(card) as one:
        one.begin(plan.long)
        one.end()
        for with_exporter in itertools.islice(itertools.cycle((True, False, False, True)), 2 * plan.rounds):
            with contextlib.ExitStack() as stack:
                if with_exporter:
                    stack.enter_context(Service.started("--sample.interval=1s"))
                one.begin(plan.round_seconds)
                rates[with_exporter].append(one.end())
    slower, margin = paired(rates[True], rates[False])
    show(
        f"Slowdown of a loop of matrix products, {plan.rounds} rounds of {plan.round_seconds:g} s each way",
        ("products/s with", "without", "slower by", "95 % interval"),
        [
            (
                f"{fmean(rates[True]):.1f}",
                f"{fmean(rates[False]):.1f}",
                f"{slower:.3%}",
                f"{slower - margin:.3%} to {slower + margin:.3%}",
            )
        ],
    )


def paired(on: Sequence[float], off: Sequence[float]) -> tuple[float, float]:
    """Mean of 1 - on/off over pairs, and half of its 95 % interval (normal approximation)."""
    differences = [1 - one / other for one, other in zip(on, off, strict=True)]
    spread = stdev(differences) if len(differences) > 1 else float("inf")
    return fmean(differences), 1.96 * spread / len(differences) ** 0.5


# --- all of it ---------------------------------------------------------------------------------------------------


def find(index: int) -> Card:
    """The card to test. Raises `CannotMeasure`."""
    driver = Driver()
    try:
        driver.open()
        if index >= driver.count():
            raise CannotMeasure(f"there is no GPU {index}, the driver knows {driver.count()}")
        handle = driver.handle(index)
        card = Card(driver, handle, index, driver.uuid(handle), driver.model(handle))
        if driver.slices(handle):
            raise CannotMeasure(f"GPU {index} is cut by MIG: choose another one (--gpu), or switch MIG off")
        holders = driver.pids(handle)
    except Unavailable as error:
        raise CannotMeasure(f"no NVIDIA GPU to measure: {error.message}. {error.fix}".strip()) from None
    if holders and holders[0]:
        print(f"note: {len(holders[0])} other processes hold this card, and are in all figures")
    return card


def record(card: Card, plan: Plan, out: Path) -> None:
    """Record this machine, with the card at work, in the format of tests/hosts."""
    name = re.sub(r"[^a-z0-9]+", "-", card.name.lower()).strip("-") or "gpu"
    with load(card) as one:
        one.begin(60.0)
        record_host.main([name, "--seconds", f"{min(5.0, plan.seconds)}", "--out", str(out)])


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print, record. Returns the exit status: 1 if there is nothing to measure."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu_check", description=__doc__)
    parser.add_argument("--gpu", type=int, default=0, help="number of the card, as nvidia-smi -L has it (default 0)")
    parser.add_argument("--seconds", type=float, default=20.0, help="of each load (default 20)")
    parser.add_argument("--settle", type=float, default=2.0, help="before each load (default 2)")
    parser.add_argument("--region-seconds", type=float, default=120.0, help="of two regions in turns (default 120)")
    parser.add_argument("--rounds", type=int, default=20, help="with and without the exporter (default 20)")
    parser.add_argument("--round-seconds", type=float, default=3.0, help="of each round (default 3)")
    parser.add_argument("--out", type=Path, default=Path("build/gpu-check"), help="where to record the machine")
    options = parser.parse_args(arguments)
    try:
        card = find(options.gpu)
        print(f"{card.name}, driver {card.driver.version()}")
        plan = Plan(options.seconds, options.settle, options.rounds, options.round_seconds)
        sensors(card, plan)
        calls(card)
        attribution(card, plan)
        gpu_regions.compare(
            card.uuid, lambda: card.driver.energy_joules(card.handle), options.region_seconds, plan.settle
        )
        slowdown(card, plan)
        record(card, plan, options.out)
    except CannotMeasure as reason:
        print(f"not measured: {reason}", file=sys.stderr)
        return 1
    except Unavailable as error:
        print(f"the driver failed: {error.message}. {error.fix}", file=sys.stderr)
        return 1
    card.driver.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
