"""What rendering a scrape costs, against `prometheus_client.generate_latest` over the very same samples, in turns."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Iterable
from dataclasses import replace
from functools import partial
from statistics import median

from prometheus_client import Metric, generate_latest
from prometheus_client.registry import Collector

from exporter.exposition.metrics.collector import EnergyCollector, exporter_registry
from exporter.exposition.metrics.render import Renderer
from exporter.records import Component, Mode, ProcessOwner, Workload
from exporter.snapshot import AccountRow, NodeEnergy, Snapshot

from .groups import container_label
from .table import show, verdict

SIZES = (1_000, 10_000, 50_000)
GOAL = 12.0

_CELLS: tuple[tuple[Component, Mode], ...] = (("cpu", "active"), ("dram", "active"))
_METERED: tuple[Component, ...] = ("cpu", "dram")
_BUSY: tuple[Component, ...] = ("cpu",)
_PER_CONTAINER = 6
_PER_PROCESS = 5


class Fleet:
    """Owners of about ``series`` series, three fifths of containers' and the rest of processes'."""

    def __init__(self, series: int) -> None:
        self._containers = [
            Workload("team", f"pod-{n}", container_label(n), "kubernetes", container_label(n) * 5, f"uid-{n}", "app:1")
            for n in range(series * 3 // 5 // _PER_CONTAINER)
        ]
        self._processes = [
            ProcessOwner(1000 + n, "python3", "team", f"pod-{n % 100}", "worker")
            for n in range(series * 2 // 5 // _PER_PROCESS)
        ]

    def snapshot(self, tick: int) -> Snapshot:
        """How they stand after a tick in which every value changed; as in the ledger, owners stay the same objects."""
        return Snapshot(
            sequence=tick,
            taken_at=1.7e9 + tick,
            monotonic_at=float(tick),
            interval_seconds=1.0,
            energy=NodeEnergy(
                containers=tuple(_row(1 + n, owner, tick) for n, owner in enumerate(self._containers)),
                processes=tuple(_row(1_000_001 + n, owner, tick) for n, owner in enumerate(self._processes)),
            ),
        )


def _row(serial: int, owner: Workload | ProcessOwner, tick: int) -> AccountRow:
    watts = 1.0 + (serial * 7919 + tick * 104729) % 100_003 / 977
    joules = serial * 3.3 + tick * watts
    return AccountRow(serial, owner, _CELLS, (joules, joules / 9), _METERED, (watts, watts / 9), _BUSY, (watts / 200,))


class _Prepared(Collector):
    """Gives prometheus_client its families ready made: only its formatting is timed."""

    def __init__(self) -> None:
        self._families: list[Metric] = []

    def prepare(self, snapshot: Snapshot) -> None:
        self._families = list(EnergyCollector(lambda: snapshot).collect())

    def collect(self) -> Iterable[Metric]:
        return self._families


def _seconds(call: Callable[[], object]) -> float:
    """CPU seconds of a call; without the garbage collector, which would walk the prepared families on our account."""
    gc.collect()
    gc.disable()
    began = time.process_time()
    call()
    seconds = time.process_time() - began
    gc.enable()
    return seconds


def main(rounds: int = 9) -> None:
    """Print the table."""
    rows = []
    for series in SIZES:
        renderer, fleet = Renderer(exporter_registry()), Fleet(series)
        prepared, registry = _Prepared(), exporter_registry()  # the renderer shows the latter too
        registry.register(prepared)
        lines = renderer.body(fleet.snapshot(0)).count(b"\n")
        changed, unchanged, theirs = [], [], []
        # A small body takes less than a millisecond, in which anything may come between.
        for tick in range(1, rounds * min(10, SIZES[-1] // series) + 1):
            snapshot = fleet.snapshot(tick)
            same = replace(snapshot, sequence=tick + 1)
            prepared.prepare(snapshot)
            changed.append(_seconds(partial(renderer.body, snapshot)))
            theirs.append(_seconds(partial(generate_latest, registry)))
            unchanged.append(_seconds(partial(renderer.body, same)))
        ratio = median(theirs) / median(changed)
        rows.append(
            (
                f"{series:,}",
                f"{lines:,}",
                f"{median(changed) * 1e3:.2f}",
                f"{median(unchanged) * 1e3:.2f}",
                f"{median(theirs) * 1e3:.1f}",
                f"{ratio:.1f}",
                f"{median(theirs) / median(unchanged):.0f}",
                verdict(ratio >= GOAL),
            )
        )
    show(
        f"Rendering: CPU milliseconds per scrape, median of {rounds} or more "
        f"(goal: {GOAL:g} x faster than prometheus_client with every value changed)",
        ("series", "lines", "all changed", "none changed", "generate_latest", "x faster", "x, none changed", "goal"),
        rows,
    )
