"""Families of the regions of programs."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from ...snapshot import Snapshot
from .families import Family, Sample

_OWNER = ("region", "model_name", "namespace")
_COMPONENTS = ("cpu", "dram", "gpu", "platform", "other")


def _joules(snapshot: Snapshot) -> Iterator[Sample]:
    for row in snapshot.regions.counts:
        if row.kind in _COMPONENTS:
            yield (row.region, *row.owner, row.kind), row.total


def _of(kind: str) -> Callable[[Snapshot], Iterator[Sample]]:
    def samples(snapshot: Snapshot) -> Iterator[Sample]:
        for row in snapshot.regions.counts:
            if row.kind == kind:
                yield (row.region, *row.owner), row.total

    return samples


def _units(snapshot: Snapshot) -> Iterator[Sample]:
    for row in snapshot.regions.counts:
        kind, found, unit = row.kind.partition("/")
        if found and kind == "units":
            yield (row.region, *row.owner, unit), row.total


def _watts(snapshot: Snapshot) -> Iterator[Sample]:
    for row in snapshot.regions.watts:
        yield (row.region, *row.owner, row.component), row.watts


def _low(snapshot: Snapshot) -> Iterator[Sample]:
    for row in snapshot.regions.watts:
        yield (row.region, *row.owner, row.component), row.low_watts


def _high(snapshot: Snapshot) -> Iterator[Sample]:
    for row in snapshot.regions.watts:
        yield (row.region, *row.owner, row.component), row.high_watts


def _info(snapshot: Snapshot) -> Iterator[Sample]:
    for row in snapshot.regions.watts:
        yield (row.region, *row.owner, row.component, row.method), 1


def _programs(snapshot: Snapshot) -> Iterator[Sample]:
    if snapshot.regions.counts or snapshot.regions.rejected:
        yield (), snapshot.regions.programs


def _lost(snapshot: Snapshot) -> Iterator[Sample]:
    if snapshot.regions.counts or snapshot.regions.rejected:
        yield (), snapshot.regions.lost


def _rejected(snapshot: Snapshot) -> Iterator[Sample]:
    yield from (((reason,), count) for reason, count in snapshot.regions.rejected.items())


REGIONS: tuple[Family, ...] = (
    Family(
        "energy_region_joules_total",
        "counter",
        "Joules of the processes that report regions, by the innermost region they were in: a part of the joules of "
        "those processes, never to be added to them.",
        (*_OWNER, "component"),
        _joules,
    ),
    Family(
        "energy_region_seconds_total",
        "counter",
        "Time in which a region was the innermost one, added over threads and tasks.",
        _OWNER,
        _of("seconds"),
    ),
    Family(
        "energy_region_gpu_seconds_total",
        "counter",
        "Time in which a device worked for a region, where the program measures it by events of its device.",
        _OWNER,
        _of("gpu_seconds"),
    ),
    Family("energy_region_runs_total", "counter", "Runs of a region that ended.", _OWNER, _of("runs")),
    Family(
        "energy_region_units_total",
        "counter",
        "What the program counted in a region, such as tokens or samples.",
        (*_OWNER, "unit"),
        _units,
    ),
    Family(
        "energy_region_watts",
        "gauge",
        "Estimated power of a process while a region is the innermost one.",
        (*_OWNER, "component"),
        _watts,
    ),
    Family(
        "energy_region_low_watts",
        "gauge",
        "Lower end of the 90 % interval of energy_region_watts.",
        (*_OWNER, "component"),
        _low,
    ),
    Family(
        "energy_region_high_watts",
        "gauge",
        "Upper end of the 90 % interval of energy_region_watts.",
        (*_OWNER, "component"),
        _high,
    ),
    Family(
        "energy_region_info",
        "gauge",
        "Always 1; how the watts of a region are known: window (it fills whole readings), regression, or "
        "not_identifiable (too little data, or always in one proportion to another one, with which it shares them).",
        (*_OWNER, "component", "method"),
        _info,
    ),
    Family("energy_region_programs", "gauge", "Processes that report regions.", (), _programs),
    Family(
        "energy_region_runs_lost_total",
        "counter",
        "Runs of regions that programs could not record or send.",
        (),
        _lost,
    ),
    Family(
        "energy_region_messages_rejected_total",
        "counter",
        "Messages of programs that were ignored: too_large, not_json, malformed, newer_version, clock, rate; and "
        "connections: too_many_clients, no_process (its pid namespace cannot be seen).",
        ("reason",),
        _rejected,
    ),
)
"""Families in the order of the exposition."""
