"""Which resolver names a cgroup, and which of several cgroups of one process names it."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence

from ...records import HOST, UNKNOWN_RUNTIME, Workload
from . import batch, container, kubernetes, lxc, machine, run, slurm, systemd

PathResolver = Callable[[str], Workload | None]
"""Maps a cgroup path (below the hierarchy's root, without the controller) to its workload, None without a match."""

PATHS: tuple[PathResolver, ...] = (
    kubernetes.resolve,
    slurm.resolve,
    container.resolve,
    batch.resolve,
    lxc.resolve,
    machine.resolve,
    run.resolve,
    systemd.resolve,
)
"""In order of precedence (pod, job, container, machine, run, unit): the first resolver that matches a path names it."""

SLURM = "slurm"
"""In place of a unit in `path_resolvers`: the jobs of Slurm, whose units differ between its versions."""

_JOBS = frozenset(("slurm", "pbs", "htcondor", "yarn", "nomad"))
_RANKS = {"kubernetes": 1, UNKNOWN_RUNTIME: 3, "run": 3, "systemd": 4, "host": 5}
"""Job, pod, container, unit: the lowest names a process that is in several."""


def path_resolvers(split: Collection[str]) -> tuple[PathResolver, ...]:
    """`PATHS`, with the units ``split`` as one row for each group in them, and `SLURM` as one for each job step."""
    units = set(split) - {SLURM}
    paths = (*PATHS[:-1], systemd.split_resolver(units), PATHS[-1]) if units else PATHS
    return tuple([slurm.resolve_step if each is slurm.resolve and SLURM in split else each for each in paths])


def by_path(paths: Sequence[str], resolvers: Sequence[PathResolver] = PATHS) -> Workload:
    """Workload of a group; of several paths, that of the strongest. `HOST` if no resolver matches."""
    found = [next((owner for resolve in resolvers if (owner := resolve(path))), HOST) for path in paths]
    return found[0] if len(found) == 1 else min(found, key=_rank)


def _rank(owner: Workload) -> tuple[int, bool]:
    return 0 if owner.runtime in _JOBS else _RANKS.get(owner.runtime, 2), not owner.container
