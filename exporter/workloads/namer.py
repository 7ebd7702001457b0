"""The registry of resolvers, and the namer that asks them in order."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from ..records import HOST, GroupKey, Model, Process, Workload
from . import container, kubernetes, lxc, slurm, systemd

WorkloadResolver = Callable[[str], Workload | None]
"""Owner of a cgroup path (below the hierarchy's root, without the controller), None if it is not this one's."""

ModelResolver = Callable[[GroupKey | None, Process], Model | None]
"""Model that a process works for, None if this one cannot tell."""

WORKLOADS: tuple[WorkloadResolver, ...] = (
    kubernetes.resolve,
    slurm.resolve,
    container.resolve,
    lxc.resolve,
    systemd.resolve,
)
"""From the strongest claim to the weakest: pod, job, container, machine, unit; the first that knows a path wins."""


class PathNamer:
    """Names groups by their path alone: no API, no file, no cache, so it is never late, down or out of bounds.

    ``models`` are asked in order; without any, no model is known.
    """

    def __init__(self, workloads: Sequence[WorkloadResolver] = WORKLOADS, models: Sequence[ModelResolver] = ()) -> None:
        self._workloads = tuple(workloads)
        self._models = tuple(models)

    def workload(self, group: GroupKey) -> Workload:
        """Owner of a group; never raises, `HOST` if nobody else owns it."""
        return next((owner for resolve in self._workloads if (owner := resolve(group.path))), HOST)

    def model(self, group: GroupKey | None, process: Process) -> Model | None:
        """Model a process works for, None if it is not known to work for one."""
        return next((model for resolve in self._models if (model := resolve(group, process))), None)
