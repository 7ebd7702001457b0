"""Regions that two programs of the simulated node report: a training job, and a model server."""

from __future__ import annotations

from random import Random
from typing import NamedTuple

from ...records import GroupKey, Process
from ...records.regions import OUTSIDE_REGIONS, ProcessRegions, RegionPiece, RegionSpan, RegionUse
from .scenario import GpuLoad, Tenant
from .tenants import TENANTS


class Work(NamedTuple):
    """What a program does while its card is busy: parts of that time, and what it does otherwise.

    ``runs_per_second`` are of busy time. ``counted`` is what a run of ``region`` counts.
    """

    parts: tuple[tuple[str, float], ...]
    otherwise: str
    runs_per_second: float
    region: str
    counted: tuple[str, float]


_WORK = {
    "meta-llama/Llama-3.1-8B": Work(
        (("forward", 0.31), ("backward", 0.58), ("optimizer", 0.11)), "data", 2.4, "optimizer", ("samples", 8.0)
    ),
    "Qwen/Qwen2.5-7B-Instruct": Work(
        (("prefill", 0.28), ("decode", 0.72)), OUTSIDE_REGIONS, 40.0, "decode", ("tokens", 105.0)
    ),
}


class Program:
    """One program that reports regions; reproducible for the same ``seed``."""

    def __init__(self, load: GpuLoad, work: Work, seed: int) -> None:
        self._load = load
        self._work = work
        self._random = Random(seed)
        self._pieces: list[RegionPiece] = []
        self._runs = 0.0

    def step(self, at: float, seconds: float) -> None:
        """Work for ``seconds`` with the load of the card at ``at``, seconds since the start of the simulation."""
        busy = min(1.0, max(0.0, self._load.busy(at)))
        weights = [share * self._random.uniform(0.1, 1.9) for _, share in self._work.parts]
        for (region, _), weight in zip(self._work.parts, weights, strict=True):
            taken = seconds * busy * weight / sum(weights)
            if taken > 0.0:
                self._pieces.append(RegionPiece(taken, ((region, taken),)))
        rest = seconds * (1.0 - busy)
        if rest > 0.0:
            self._pieces.append(RegionPiece(rest, ((self._work.otherwise, rest),)))
        self._runs += seconds * busy * self._work.runs_per_second

    def take(self, process: Process, group: GroupKey, until: float) -> ProcessRegions:
        """Everything since the last call, up to boot time ``until``."""
        pieces, self._pieces = tuple(self._pieces), []
        runs = int(self._runs)
        self._runs -= runs
        times: dict[str, float] = {}
        for piece in pieces:
            for region, taken in piece.times:
                times[region] = times.get(region, 0.0) + taken
        unit, each = self._work.counted
        uses = [
            RegionUse(process, region, seconds, None, runs, {unit: each * runs} if region == self._work.region else {})
            for region, seconds in times.items()
            if region != OUTSIDE_REGIONS
        ]
        span = RegionSpan(until - sum([piece.seconds for piece in pieces]), pieces)
        return ProcessRegions(process, group, tuple(uses), (span,) if pieces else ())


def programs(seed: int) -> dict[Tenant, Program]:
    """Each program that reports regions, by its tenant."""
    found = {}
    for tenant in TENANTS:
        work = None if tenant.model is None else _WORK.get(tenant.model[0])
        load = next((member.gpu for member in tenant.members if member.gpu is not None), None)
        if work is not None and load is not None:
            found[tenant] = Program(load, work, seed)
    return found
