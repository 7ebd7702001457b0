"""Families of what GPUs did: joules of models by activity, and joules of GPUs that their container did not use."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator

from ...records import Place, Workload
from ...snapshot import Snapshot
from .families import MODEL, Family, Sample


def _of_models(snapshot: Snapshot) -> Iterator[Sample]:
    for row in MODEL.unique(snapshot):
        for activity, joules in row.activities.items():
            yield (*MODEL.values(row.owner), activity), joules


def _unused(snapshot: Snapshot) -> Iterator[Sample]:
    """Of accounts that differ in their runtime only, the sum."""
    found: defaultdict[Place, float] = defaultdict(float)
    for row in snapshot.energy.containers:
        if row.activities and isinstance(row.owner, Workload):
            found[row.owner.place] += row.activities["idle"]
    yield from found.items()


ACTIVITY: tuple[Family, ...] = (
    Family(
        "energy_model_activity_joules_total",
        "counter",
        "GPU energy of a model by what its card (or MIG instance) did, in joules: idle (the model did nothing on it), "
        "throttled, compute_bound, memory_bound, underused (little used), host_bound (little used, and the model keeps "
        "a CPU core busy), mixed, unknown (not enough facts, or energy from before an upgrade to the first version "
        "that keeps it). The sum is energy_model_joules_total with component=gpu.",
        (*MODEL.labels, "activity"),
        _of_models,
    ),
    Family(
        "energy_container_gpu_unused_joules_total",
        "counter",
        "Energy of GPUs that a container held, or that are allocated to it, while it did nothing on them, in joules: "
        "part of its energy_container_joules_total with component=gpu.",
        ("namespace", "pod", "container"),
        _unused,
    ),
)
"""Families in the order of the exposition."""
