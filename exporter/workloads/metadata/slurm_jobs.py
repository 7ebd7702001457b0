"""What users call a Slurm job: its name, user, partition and array task, from the environment of one of its tasks.

Sources: "OUTPUT ENVIRONMENT VARIABLES" in srun(1) and sbatch(1). No file of the host has a job's name.
"""

from __future__ import annotations

from ...host import Host
from ...records import Workload
from ..paths.slurm import id_labels, number_of, step_of
from ..proc import environment

_ATTEMPTS = 8
"""Processes of a job whose environment is read: slurmstepd has none of the variables, and some may be hidden."""

_LABELS = {
    "SLURM_JOB_NAME": "slurm_job_name",
    "SLURM_JOB_PARTITION": "slurm_partition",
    "SLURM_JOB_ACCOUNT": "slurm_account",
}
_VARIABLES = (
    *("SLURM_JOB_ID", "SLURM_JOB_USER", "SLURM_JOB_UID", "SLURM_ARRAY_JOB_ID", "SLURM_ARRAY_TASK_ID"),
    *_LABELS,
)
_MOST = 4096


class SlurmJobs:
    """Names of jobs by their container label. The tick reads one small file for each of a job's first processes."""

    def __init__(self, host: Host) -> None:
        self._host = host
        self._known: dict[str, Workload] = {}
        self._attempts: dict[str, int] = {}

    def named(self, job: Workload) -> Workload:
        """The job with its user as owner and the rest as labels, as far as they are known. Its key is the same."""
        known = self._known.get(job.container)
        return (
            job
            if known is None
            else job._replace(
                owner_kind=known.owner_kind or job.owner_kind,
                owner_name=known.owner_name or job.owner_name,
                labels=known.labels,
            )
        )

    def learn(self, job: Workload, pid: int) -> bool:
        """Look at a process of the job; True if it has the job's names and they were not known before."""
        attempts = self._attempts.get(job.container, 0)
        if job.container in self._known or attempts >= _ATTEMPTS or len(self._known) >= _MOST:
            return False
        self._attempts[job.container] = attempts + 1
        variables = environment(self._host, pid, _VARIABLES)
        directory, step = step_of(job)
        number = variables.get("SLURM_JOB_ID", "")
        if not number or number_of(directory) not in ("", number):
            return False
        if job.owner_name and variables.get("SLURM_JOB_UID", job.owner_name) != job.owner_name:
            return False
        labels = {label: variables[name] for name, label in _LABELS.items() if variables.get(name)}
        array, task = variables.get("SLURM_ARRAY_JOB_ID"), variables.get("SLURM_ARRAY_TASK_ID")
        if array and task:
            labels["slurm_array_task"] = f"{array}_{task}"
        labels |= id_labels(number, step)
        user = variables.get("SLURM_JOB_USER", "")
        self._known[job.container] = Workload(
            owner_kind="User" if user else "", owner_name=user, labels=tuple(sorted(labels.items()))
        )
        return True

    def forget(self, job: Workload) -> None:
        """The job ended."""
        self._known.pop(job.container, None)
        self._attempts.pop(job.container, None)
