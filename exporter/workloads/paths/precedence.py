"""Which resolver names a cgroup, and which of several cgroups of one process names it."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence

from ...records import HOST, UNKNOWN_RUNTIME, Workload
from . import batch, container, kubernetes, lxc, machine, slurm, systemd

PathResolver = Callable[[str], Workload | None]
"""Maps a cgroup path (below the hierarchy's root, without the controller) to its workload, None without a match."""

PATHS: tuple[PathResolver, ...] = (
    kubernetes.resolve,
    slurm.resolve,
    container.resolve,
    batch.resolve,
    lxc.resolve,
    machine.resolve,
    systemd.resolve,
)
"""In order of precedence (pod, job, container, machine, unit): the first resolver that matches a path names it."""

_JOBS = frozenset(("slurm", "pbs", "htcondor", "yarn", "nomad"))
_RANKS = {"kubernetes": 1, UNKNOWN_RUNTIME: 3, "systemd": 4, "host": 5}
"""Job, pod, container, unit: the lowest names a process that is in several."""


def path_resolvers(split: Collection[str]) -> tuple[PathResolver, ...]:
    """`PATHS`, with the units ``split`` as one row for each group in them."""
    return (*PATHS[:-1], systemd.split_resolver(split), PATHS[-1]) if split else PATHS


def by_path(paths: Sequence[str], resolvers: Sequence[PathResolver] = PATHS) -> Workload:
    """Workload of a group; of several paths, that of the strongest. `HOST` if no resolver matches."""
    found = [next((owner for resolve in resolvers if (owner := resolve(path))), HOST) for path in paths]
    return found[0] if len(found) == 1 else min(found, key=_rank)


def _rank(owner: Workload) -> tuple[int, bool]:
    return 0 if owner.runtime in _JOBS else _RANKS.get(owner.runtime, 2), not owner.container
