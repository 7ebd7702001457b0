"""What the embedded history costs: its size after a simulated year, and the CPU time and memory of its writer."""

from __future__ import annotations

import os
import random
import resource
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from exporter.history.writer import Writer
from exporter.impact.values import Factors, Impact
from exporter.records import Component, Mode, Model, Workload
from exporter.snapshot import AccountRow, ExporterState, ImpactView, NodeEnergy, NodeRow, Snapshot, TokenRow, TokenView

from .table import show, verdict

START = 1_767_225_600.0
"""2026-01-01 00:00 UTC."""

DAYS = 20
GOAL_MIB = 20.0

Cell = tuple[Component, Mode]


class Workstation:
    """Units and containers whose power is spread over four orders of magnitude, models on a GPU, grams and money."""

    def __init__(self, units: int, models: int, seed: int = 1) -> None:
        self._random = random.Random(seed)
        self._units = [
            (Workload(container=f"unit-{n}.service", runtime="systemd"), 40.0 * 0.8**n) for n in range(units)
        ]
        self._models = [Model(f"org/model-{n}-8B", "", "inference") for n in range(models)]
        self._joules: dict[object, dict[Cell, float]] = {}
        self._node: dict[Component, float] = {"cpu": 0.0, "dram": 0.0, "gpu": 0.0}

    def snapshots(self, step: float, count: int) -> Iterator[Snapshot]:
        """One each ``step`` seconds."""
        factors = Factors(300.0, 0.3, 1.0, "EUR")
        for number in range(1, count + 1):
            at = START + number * step
            self._use(step)
            joules = sum(self._node.values())
            rates = factors.rates
            yield Snapshot(
                number,
                at,
                number * step,
                1.0,
                energy=NodeEnergy(
                    nodes=tuple(NodeRow(component, total, None) for component, total in self._node.items()),
                    containers=tuple(self._row(n, owner) for n, (owner, _) in enumerate(self._units)),
                    models=tuple(self._row(1000 + n, model) for n, model in enumerate(self._models)),
                    unattributed=(("cpu", "idle", 8.0 * number * step), ("cpu", "kernel", 0.1 * number * step)),
                    retired=(("cpu", 0.0),),
                ),
                impact=ImpactView(factors, rates, Impact(joules * (rates.grams or 0), joules * (rates.cost or 0))),
                tokens=TokenView(
                    tuple(
                        TokenRow(("", "", ""), model.place, kind, 3.0 * number * step)
                        for model in self._models
                        for kind in ("prompt", "output", "requests")
                    )
                ),
                exporter=ExporterState(counted_since=START, start_time=START),
            )

    def _use(self, step: float) -> None:
        for owner, watts in self._units:
            if self._random.random() < 0.9:
                self._add(owner, "cpu", "active", watts * step * self._random.random())
                self._add(owner, "dram", "active", 0.1 * watts * step * self._random.random())
        for model in self._models:
            modes: tuple[Mode, Mode] = ("active", "idle")
            for mode in modes:
                self._add(model, "gpu", mode, 50 * step * self._random.random())
            self._add(model, "cpu", "active", 5 * step * self._random.random())

    def _add(self, owner: object, component: Component, mode: Mode, joules: float) -> None:
        cells = self._joules.setdefault(owner, {})
        cells[component, mode] = cells.get((component, mode), 0.0) + joules
        self._node[component] += joules

    def _row(self, serial: int, owner: Workload | Model) -> AccountRow:
        cells = self._joules.get(owner, {})
        return AccountRow(serial, owner, tuple(cells), tuple(cells.values()), (), (), (), ())


def main() -> None:
    """Measure machines of three sizes for some days; all days are alike, so a year is as many times the growth."""
    rows = []
    for name, units, models in (("a laptop", 30, 1), ("a workstation", 60, 3), ("a server", 1000, 20)):
        with tempfile.TemporaryDirectory(dir="/dev/shm") as folder:
            path = Path(folder) / "history.db"
            writer = Writer(str(path), "n1", 400 * 86400.0)
            sizes, began = [0], time.process_time()
            for number, snapshot in enumerate(Workstation(units, models).snapshots(3600.0, 24 * DAYS), 1):
                writer.record(snapshot)
                if number % (24 * DAYS // 2) == 0:
                    sizes.append(os.path.getsize(path))
            spent = (time.process_time() - began) / (24 * DAYS)
            writer.close()
        year = (sizes[0] + (sizes[2] - sizes[1]) * 2 * 365 / DAYS) / 2**20
        met = verdict(year <= GOAL_MIB) if units < 100 else ""
        rows.append([name, str(units), str(models), f"{year:.1f} MiB", f"{1000 * spent:.0f} ms", met])
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    show(
        f"The embedded history: at most {GOAL_MIB:.0f} MiB a year on a workstation; peak memory {peak:.0f} MiB",
        ["machine", "units", "models", "a year", "CPU time of a write, and of making its snapshot", ""],
        rows,
    )


if __name__ == "__main__":
    main()
