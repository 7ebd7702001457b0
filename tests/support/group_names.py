"""A namer for tests of something else."""

from __future__ import annotations

from exporter.records import GroupKey, Model, Process, Workload
from exporter.workloads.protocol import Namer


class GroupNames(Namer):
    """Every group is a container of its own, named by its path; no process works for a model."""

    def workload(self, group: GroupKey) -> Workload:
        return Workload(container=group.path.strip("/"), runtime="docker")

    def model(self, group: GroupKey | None, process: Process) -> Model | None:
        return None
