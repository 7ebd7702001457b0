"""Slurm jobs, in the layout of its cgroup/v1 and cgroup/v2 plugins (https://slurm.schedmd.com/cgroup_v2.html)."""

from __future__ import annotations

import re

from ...records import Workload

# "/slurm/uid_1000/job_7" and "/system.slice/slurmstepd.scope/job_7"; with several slurmd on one machine, the
# component before the user or the job contains the node's name. Since Slurm 26.05 a job's directory is its SLUID.
_JOB = re.compile(
    r"(?:^|/)(?:slurm(?:_[^/]+)?/uid_([0-9]+)|(?:[^/]+_)?slurmstepd\.scope)/(?!system(?:/|\Z))"
    r"([A-Za-z0-9][A-Za-z0-9_.-]*)(?:/step_([A-Za-z0-9_]+))?(?=/|\Z)"
)
_NUMBERED = re.compile(r"job_([0-9]+)")


def resolve(path: str) -> Workload | None:
    """One row per job: steps and tasks are not distinguished, and each task of a job array is a job.

    The user is the uid in the paths of cgroup/v1, not a name, which no file of the host has when users come from LDAP.
    The paths of cgroup/v2 have no user.
    """
    job = _JOB.search(path)
    return None if job is None else _row(job[2], "", job[1] or "")


def resolve_step(path: str) -> Workload | None:
    """One row per step (``job_7/step_0``, ``job_7/step_batch``); what belongs to no step is the job's."""
    job = _JOB.search(path)
    return None if job is None else _row(job[2], job[3] or "", job[1] or "")


def step_of(row: Workload) -> tuple[str, str]:
    """The job's directory and the step in the container label of a row; the step is "" for a whole job."""
    job, _, step = row.container.partition("/step_")
    return job, step


def number_of(job: str) -> str:
    """The number in the name of a job's directory, "" if that is its SLUID."""
    match = _NUMBERED.fullmatch(job)
    return match[1] if match else ""


def id_labels(number: str, step: str) -> dict[str, str]:
    """Labels with the ids by which users and ``sacct`` call a job and a step: 7 and 7.0."""
    if not number:
        return {}
    return {"slurm_job_id": number} | ({"slurm_step_id": f"{number}.{step}"} if step else {})


def _row(job: str, step: str, user: str) -> Workload:
    return Workload(
        container=f"{job}/step_{step}" if step else job,
        runtime="slurm",
        owner_kind="User" if user else "",
        owner_name=user,
        labels=tuple(sorted(id_labels(number_of(job), step).items())),
    )
