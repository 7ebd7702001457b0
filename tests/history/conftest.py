"""A node whose counters are known, and what its history's file has."""

from __future__ import annotations

import json
import sqlite3
from collections import defaultdict
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass, field, replace
from pathlib import Path

from exporter.impact.values import Factors, Impact
from exporter.records import Component, Model, Workload
from exporter.snapshot import AccountRow, ExporterState, ImpactView, NodeEnergy, NodeRow, Snapshot, TokenRow, TokenView

START = 1_793_491_200.0
"""2026-11-01 00:00 UTC."""


@dataclass(frozen=True)
class Node:
    """Counters of a node at a moment; its node joules are those of its containers and the retired ones."""

    at: float = START
    monotonic_at: float = 5000.0
    started: float = START
    counted_since: float | None = START
    joules: Mapping[str, float] = field(default_factory=dict)
    retired: float = 0.0
    more: float = 0.0
    tokens: float = 0.0
    owner: str = ""
    demo: bool = False

    def after(self, seconds: float, *, clock: float = 0.0, **changes: object) -> Node:
        """The same later; the wall clock is set by ``clock`` seconds meanwhile."""
        moved = replace(self, at=self.at + seconds + clock, monotonic_at=self.monotonic_at + seconds)
        return replace(moved, **changes)  # type: ignore[arg-type]

    def restarted(self, seconds: float, *, counts: bool = True, **changes: object) -> Node:
        """Another run, ``seconds`` later, which continues the counters or starts them at 0."""
        at = self.at + seconds
        fresh = {} if counts else {"joules": {}, "retired": 0.0, "more": 0.0, "tokens": 0.0}
        since = self.counted_since if counts else at
        run = replace(self, at=at, monotonic_at=50.0, started=at, counted_since=since, **fresh)  # type: ignore[arg-type]
        return replace(run, **changes)  # type: ignore[arg-type]

    @property
    def snapshot(self) -> Snapshot:
        """Published."""
        rates = Factors(360.0, 0.36, 1.0, "EUR").rates
        component: Component = "cpu"
        total = sum(self.joules.values()) + self.retired + self.more
        rows = tuple(
            AccountRow(
                number,
                Workload(container=name, runtime="docker", owner_name=self.owner),
                ((component, "active"),),
                (joules,),
                (),
                (),
                (),
                (),
            )
            for number, (name, joules) in enumerate(self.joules.items())
        )
        model, owner = Model("m", "", "inference"), Workload(container="m", runtime="docker", owner_name=self.owner)
        models = tuple(row._replace(serial=row.serial + 1000, owner=model) for row in rows if row.owner == owner)
        grams, price = (rates.grams or 0.0) * total, (rates.cost or 0.0) * total
        return Snapshot(
            1,
            self.at,
            self.monotonic_at,
            1.0,
            self.demo,
            NodeEnergy(
                nodes=(NodeRow(component, total, None),),
                containers=rows,
                models=models,
                unattributed=((component, "idle", self.more),),
                retired=((component, self.retired),),
                container_models={row.serial: model for row in rows if row.owner == owner},
            ),
            impact=ImpactView(Factors(360.0, 0.36, 1.0, "EUR"), rates, Impact(grams, price)),
            tokens=TokenView(
                models=(TokenRow(("", "", ""), ("m", "", ""), "output", self.tokens),) if self.tokens else ()
            ),
            exporter=ExporterState(counted_since=self.counted_since, start_time=self.started),
        )


class Kept:
    """What a file has."""

    def __init__(self, path: Path) -> None:
        with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as database:
            self.sound = database.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
            query = (
                "SELECT hour, metric, owners.labels, series.labels, amount, counter FROM growth "
                "JOIN series ON series.id = series JOIN owners ON owners.id = owner"
            )
            self.rows = [
                (hour, metric, dict(json.loads(owner)) | dict(json.loads(labels)), amount, counter)
                for hour, metric, owner, labels, amount, counter in database.execute(query)
            ]
            self.seconds = dict(database.execute("SELECT hour, seconds FROM hours"))
            self.facts = dict(database.execute("SELECT name, value FROM facts"))

    def total(self, metric: str, **labels: str) -> float:
        """Sum of the growth of all hours."""
        return sum(self.by_hour(metric, **labels).values())

    def by_hour(self, metric: str, **labels: str) -> dict[int, float]:
        """Growth by hour since `START`."""
        found: defaultdict[int, float] = defaultdict(float)
        for hour, name, known, amount, _ in self.rows:
            if name == metric and labels.items() <= known.items():
                found[hour - int(START // 3600)] += amount
        return dict(found)


NODE = "energy_node_joules_total"
CONTAINER = "energy_container_joules_total"
