"""Slurm jobs, in the layout of its cgroup/v1 and cgroup/v2 plugins (https://slurm.schedmd.com/cgroup_v2.html)."""

from __future__ import annotations

import re

from ...records import Workload

# "/slurm/uid_1000/job_7" and "/system.slice/slurmstepd.scope/job_7"; with several slurmd on one machine, the
# component before the user or the job contains the node's name. Since Slurm 26.05 a job's directory is its SLUID.
_JOB = re.compile(
    r"(?:^|/)(?:slurm(?:_[^/]+)?/uid_([0-9]+)|(?:[^/]+_)?slurmstepd\.scope)/(?!system(?:/|\Z))"
    r"([A-Za-z0-9][A-Za-z0-9_.-]*)(?=/|\Z)"
)


def resolve(path: str) -> Workload | None:
    """One row per job: steps and tasks are not distinguished, and each task of a job array is a job.

    The user is the uid in the paths of cgroup/v1, not a name, which no file of the host has when users come from LDAP.
    The paths of cgroup/v2 have no user.
    """
    job = _JOB.search(path)
    if job is None:
        return None
    user = job[1] or ""
    return Workload(container=job[2], runtime="slurm", owner_kind="User" if user else "", owner_name=user)
