"""Names of Slurm jobs as their users call them, from the environment of a task."""

from __future__ import annotations

import pytest

from exporter.records import GroupKey, Process
from exporter.workloads.namer import WorkloadNamer
from exporter.workloads.paths.precedence import path_resolvers
from tests.workloads.conftest import WrittenProc

JOB = GroupKey("/slurm/uid_1001/job_3/step_0/task_0", 5)

# Slurm 22.05.8, task of an array.
TASK = {
    "SLURM_JOB_ID": "3",
    "SLURM_JOB_NAME": "train-llama",
    "SLURM_JOB_USER": "alice",
    "SLURM_JOB_UID": "1001",
    "SLURM_JOB_PARTITION": "gpu",
    "SLURM_JOB_ACCOUNT": "nlp",
    "SLURM_ARRAY_JOB_ID": "2",
    "SLURM_ARRAY_TASK_ID": "1",
    "SECRET": "x",
}


def task(proc: WrittenProc) -> Process:
    return proc.add(7, ["python", "train.py"], environ=TASK)


def test_a_job_gets_its_user_and_labels_and_keeps_its_key(proc: WrittenProc) -> None:
    namer = WorkloadNamer(host=proc.host)
    before = namer.workload(JOB)
    assert namer.model(JOB, proc.add(6, ["slurmstepd"])) is None
    assert namer.renamed() == set()
    namer.model(JOB, task(proc))
    assert namer.renamed() == {JOB}
    after = namer.workload(JOB)
    assert after.key == before.key
    assert (before.owner_kind, before.owner_name) == ("User", "1001")
    assert before.labels == (("slurm_job_id", "3"),), "its path has it: no permission is needed"
    assert (after.owner_kind, after.owner_name) == ("User", "alice")
    assert dict(after.labels) == {
        "slurm_job_id": "3",
        "slurm_job_name": "train-llama",
        "slurm_partition": "gpu",
        "slurm_account": "nlp",
        "slurm_array_task": "2_1",
    }
    assert namer.workload(JOB._replace(path="/slurm/uid_1001/job_3/step_1")).owner_name == "alice"
    namer.forget(JOB)
    namer.forget(JOB._replace(path="/slurm/uid_1001/job_3/step_1"))
    assert namer.workload(JOB) == before


def test_a_job_known_by_its_sluid_shows_its_number(proc: WrittenProc) -> None:
    namer = WorkloadNamer(host=proc.host)
    group = GroupKey("/system.slice/slurmstepd.scope/s5K1KKYAYG5D00/step_0", 5)
    namer.workload(group)
    namer.model(group, task(proc))
    found = namer.workload(group)
    assert (found.container, found.owner_name) == ("s5K1KKYAYG5D00", "alice")
    assert dict(found.labels)["slurm_job_id"] == "3"


@pytest.mark.parametrize(
    ("path", "step"),
    [("/slurm/uid_1001/job_3/step_batch", "3.batch"), ("/system.slice/slurmstepd.scope/s5K1KKYAYG5D00/step_0", "3.0")],
)
def test_a_step_has_its_id_and_the_names_of_its_job(proc: WrittenProc, path: str, step: str) -> None:
    namer = WorkloadNamer(host=proc.host, paths=path_resolvers(["slurm"]))
    group = GroupKey(path, 5)
    namer.workload(group)
    namer.model(group, task(proc))
    labels = dict(namer.workload(group).labels)
    assert (labels["slurm_step_id"], labels["slurm_job_id"], labels["slurm_job_name"]) == (step, "3", "train-llama")


@pytest.mark.parametrize("changes", [{"SLURM_JOB_ID": "4"}, {"SLURM_JOB_ID": ""}, {"SLURM_JOB_UID": "0"}])
def test_the_environment_of_another_job_names_nothing(proc: WrittenProc, changes: dict[str, str]) -> None:
    namer = WorkloadNamer(host=proc.host)
    before = namer.workload(JOB)
    namer.model(JOB, proc.add(7, ["python"], environ=TASK | changes))
    assert namer.renamed() == set()
    assert namer.workload(JOB) == before


def test_a_job_whose_environment_is_hidden_is_read_a_few_times_only(proc: WrittenProc) -> None:
    namer = WorkloadNamer(host=proc.host)
    namer.workload(JOB)
    for pid in range(10, 20):
        namer.model(JOB, proc.add(pid, ["python"]))
    namer.model(JOB, task(proc))
    assert namer.workload(JOB).owner_name == "1001"
