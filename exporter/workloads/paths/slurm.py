"""Slurm jobs, as its cgroup/v1 and cgroup/v2 plugins lay them out (https://slurm.schedmd.com/cgroup_v2.html)."""

from __future__ import annotations

import re

from ...records import Workload

# "/slurm/uid_1000/job_7" and "/system.slice/slurmstepd.scope/job_7"; with several slurmd on one machine the node's
# name is part of the component before the user or the job.
_JOB = re.compile(r"(?:^|/)(?:slurm(?:_[^/]+)?/uid_([0-9]+)|(?:[^/]+_)?slurmstepd\.scope)/(job_[0-9]+)(?=/|\Z)")


def resolve(path: str) -> Workload | None:
    """One row per job: its steps and tasks are not told apart, and a task of an array is a job of its own.

    The user is the number that cgroup/v1 has in its paths, because no file of the host knows a name for it where
    users come from LDAP; cgroup/v2 tells none.
    """
    job = _JOB.search(path)
    if job is None:
        return None
    user = job[1] or ""
    return Workload(container=job[2], runtime="slurm", owner_kind="User" if user else "", owner_name=user)
