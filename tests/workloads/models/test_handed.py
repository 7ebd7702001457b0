"""Work that is handed to processes which the model's own processes did not start."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from exporter.records import HOST, GroupKey, Model, Process, Workload
from exporter.workloads.models.handed import worker_kind
from exporter.workloads.models.resolver import WORKER_RECHECK_SECONDS, Models

GROUP = GroupKey("/a", 1)
OTHER_GROUP = GroupKey("/b", 2)
DOCKER = Workload("", "", "node", "docker")
POD = Workload("t", "ray-worker-0", "ray-worker", "kubernetes")
CONTAINER_B = "/kubepods.slice/cri-containerd-" + "b" * 64 + ".scope"
RAYLET = ["/usr/lib/python3/ray/core/src/ray/raylet/raylet", "--raylet_socket_name=/tmp/ray/s"]
RAY_START = ["/usr/bin/python3", "/usr/local/bin/ray", "start", "--block", "--head", "--port=6379"]
WORKER = ["ray::RayWorkerWrapper.execute_method"]
LLAMA = [
    "/usr/bin/python3",
    "/usr/local/bin/vllm",
    "serve",
    "meta-llama/Llama-3.1-405B-Instruct",
    "-tp",
    "8",
    "-pp",
    "2",
]
LLAMA_MODEL = Model("meta-llama/Llama-3.1-405B-Instruct", "", "inference", "command")


def names(
    models: Models, processes: Sequence[Process], workload: Workload = DOCKER, group: GroupKey = GROUP
) -> list[str | None]:
    """Model name of each process, None without one."""
    found = [models.resolve(process, group, workload) for process in processes]
    return [model.model_name if model is not None else None for model in found]


def cluster(proc: Any) -> None:
    """``ray start`` as the container's first process, with its raylet."""
    proc.add(10, RAY_START, comm="ray")
    proc.add(11, RAYLET, parent=10)


class TestOneModel:
    def test_workers_of_ray_belong_to_the_server_that_was_started_beside_it(self, proc: Any) -> None:
        """vllm-project/vllm#13521, #14186: run_cluster.sh starts Ray, and vllm serve is exec'ed into the container."""
        cluster(proc)
        server = proc.add(12, LLAMA, parent=1)
        engine = proc.add(13, ["VLLM::EngineCore"], parent=12)
        worker = proc.add(14, WORKER, parent=11)
        child = proc.add(15, ["/usr/local/cuda/bin/nvcc", "x.cu"], parent=14)
        models = Models(proc.host)
        found = [models.resolve(one, GROUP, DOCKER) for one in (server, engine, worker, child)]
        assert found == [LLAMA_MODEL] * 4

    def test_workers_of_a_replica_of_ray_serve(self, proc: Any) -> None:
        """ray-project/ray#51242: a replica and its workers are all children of the raylet."""
        cluster(proc)
        replica = proc.add(12, ["ray::ServeReplica:llm:LLMServer:qwen-0_5b"], parent=11)
        worker = proc.add(13, WORKER, parent=11)
        router = proc.add(14, ["ray::ServeReplica:llm:LLMRouter"], parent=11)
        assert names(Models(proc.host), [replica, worker, router], POD) == ["qwen-0_5b", "qwen-0_5b", None]

    @pytest.mark.parametrize(
        "words",
        [
            ["python3", "-m", "mpi4py.futures.server"],
            ["python3", "-m", "distributed.cli.dask_worker", "tcp://h:8786"],
            ["/opt/venv/bin/dask", "worker", "tcp://h:8786"],
            ["python3", "-m", "dask", "worker", "tcp://h:8786"],
            ["python3", "-m", "pyspark.daemon"],
            ["java", "-cp", "x", "org.apache.spark.executor.CoarseGrainedExecutorBackend", "--cores", "1"],
            ["VLLM::Worker_TP0"],
            ["sglang::scheduler_TP0"],
        ],
    )
    def test_workers_of_other_runtimes(self, proc: Any, words: list[str]) -> None:
        server = proc.add(12, LLAMA)
        worker = proc.add(14, words, parent=proc.add(11, ["orted"]).key.pid)
        assert names(Models(proc.host), [server, worker]) == [LLAMA_MODEL.model_name] * 2

    def test_a_model_that_starts_after_its_workers(self, proc: Any) -> None:
        cluster(proc)
        worker = proc.add(14, WORKER, parent=11)
        models = Models(proc.host)
        assert names(models, [worker], group=OTHER_GROUP) == [None]
        assert models.changed() == set()
        assert names(models, [proc.add(15, LLAMA)]) == [LLAMA_MODEL.model_name]
        assert models.changed() == {OTHER_GROUP}
        assert names(models, [worker], group=OTHER_GROUP) == [LLAMA_MODEL.model_name]

    def test_an_idle_worker_is_read_again(self, proc: Any, clock: Any) -> None:
        """Ray starts workers before there is work: their title says what they work on, once they do."""
        cluster(proc)
        server, worker = proc.add(12, LLAMA), proc.add(14, ["ray::IDLE"], parent=11)
        models = Models(proc.host)
        assert names(models, [server, worker]) == [LLAMA_MODEL.model_name, None]
        clock.now += WORKER_RECHECK_SECONDS
        assert models.changed() == set()
        proc.add(14, WORKER, parent=11)
        clock.now += WORKER_RECHECK_SECONDS
        assert models.changed() == {GROUP}
        assert names(models, [worker]) == [LLAMA_MODEL.model_name]
        clock.now += WORKER_RECHECK_SECONDS
        assert models.changed() == set()

    def test_a_model_that_ends_takes_its_name_with_it(self, proc: Any, clock: Any) -> None:
        cluster(proc)
        server, worker = proc.add(12, LLAMA), proc.add(14, WORKER, parent=11)
        models = Models(proc.host)
        names(models, [server, worker])
        (proc.root / "12/stat").unlink()
        (proc.root / "12/cmdline").unlink()
        clock.now += WORKER_RECHECK_SECONDS
        assert models.changed() == {GROUP}
        assert names(models, [worker]) == [None]


class TestOpen:
    """Where the owner cannot be known, the worker has no model."""

    def test_two_models(self, proc: Any, clock: Any) -> None:
        cluster(proc)
        one, worker = proc.add(12, LLAMA), proc.add(14, WORKER, parent=11)
        models = Models(proc.host)
        assert names(models, [one, worker]) == [LLAMA_MODEL.model_name] * 2
        two = proc.add(15, ["vllm", "serve", "google/gemma-3-4b-it"])
        assert names(models, [two]) == ["google/gemma-3-4b-it"]
        assert models.changed() == {GROUP}
        assert names(models, [worker]) == [None]
        (proc.root / "15/stat").unlink()
        clock.now += WORKER_RECHECK_SECONDS
        assert GROUP in models.changed()
        assert names(models, [worker]) == [LLAMA_MODEL.model_name]

    def test_another_container(self, proc: Any) -> None:
        server = proc.add(12, LLAMA)
        beside = proc.add(14, WORKER, cgroup=CONTAINER_B)
        models = Models(proc.host)
        assert names(models, [server]) == [LLAMA_MODEL.model_name]
        assert names(models, [beside], Workload("", "", "ray", "docker")) == [None]
        assert names(models, [beside]) == [None], "the same name, but another cgroup"

    @pytest.mark.parametrize("workload", [HOST, Workload(container="user-1000.slice", runtime="systemd")])
    def test_a_row_that_collects_unrelated_work(self, proc: Any, workload: Workload) -> None:
        server, worker = proc.add(12, LLAMA, cgroup="/"), proc.add(14, WORKER, cgroup="/")
        assert names(Models(proc.host), [server, worker], workload) == [LLAMA_MODEL.model_name, None]

    def test_no_model(self, proc: Any) -> None:
        cluster(proc)
        assert names(Models(proc.host), [proc.add(14, WORKER, parent=11)]) == [None]

    @pytest.mark.parametrize(
        "title", ["ray::IDLE", "ray::IDLE_SpillWorker", "ray::DashboardAgent", "ray::RuntimeEnvAgent", "Puma::Server"]
    )
    def test_titles_of_others(self, proc: Any, title: str) -> None:
        assert names(Models(proc.host), [proc.add(12, LLAMA), proc.add(14, [title])])[1] is None
        assert worker_kind([title]) == ""


class TestJobs:
    """Two models in one container, told apart by Ray's job."""

    def add(self, proc: Any) -> list[Process]:
        """A replica with the job 01, and a driver, which has none, beside it."""
        cluster(proc)
        replica = ["ray::ServeReplica:llm:LLMServer:qwen-0_5b"]
        return [
            proc.add(12, replica, parent=11, environ={"RAY_JOB_ID": "01000000"}),
            proc.add(13, LLAMA, environ={}),
        ]

    @pytest.mark.parametrize(
        ("job", "expected"),
        [
            ("01000000", "qwen-0_5b"),
            ("02000000", LLAMA_MODEL.model_name),
            ("ffffffff", None),
        ],
    )
    def test_the_job_of_a_worker(self, proc: Any, job: str, expected: str | None) -> None:
        """A worker that was started before its job has no job in its environment, for its whole life."""
        worker = proc.add(14, WORKER, parent=11, environ={"RAY_JOB_ID": job})
        assert names(Models(proc.host), [*self.add(proc), worker])[-1] == expected

    def test_an_environment_that_cannot_be_read(self, proc: Any) -> None:
        assert names(Models(proc.host), [*self.add(proc), proc.add(14, WORKER, parent=11)])[-1] is None


def test_memory_is_bounded(proc: Any) -> None:
    """Fault 43."""
    models = Models(proc.host)
    server, worker = proc.add(12, LLAMA), proc.add(14, WORKER)
    for number in range(5000):
        names(models, [server, worker], Workload("", "", f"c{number}", "docker"), GroupKey(f"/{number}", number))
    assert len(models._handed._places) == 4096
