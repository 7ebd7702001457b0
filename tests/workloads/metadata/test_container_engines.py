"""Names of containers from Docker's and Podman's sockets."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from exporter.host import Host
from exporter.records import Workload
from exporter.workloads.metadata.container_engines import DOCKER, PODMAN, Dialect, Engine, read_container
from exporter.workloads.metadata.container_metadata import Facts
from exporter.workloads.metadata.http_client import Channel
from exporter.workloads.metadata.provider import FeedDirectory
from tests.support.fake_engine import FakeEngine
from tests.support.patience import wait_for

A, B = "a" * 64, "b" * 64
POD = "c" * 64


def make_directory(path: Path | str, dialect: Dialect) -> FeedDirectory:
    asked, events = (Channel(f"unix://{path}", dialect.fixes) for _ in range(2))
    return FeedDirectory(Engine(asked, events, dialect), Host(), retry_first_seconds=0.02)


def container(container_id: str, runtime: str = "docker", pod: str = "") -> Workload:
    return Workload(container=container_id[:12], runtime=runtime, container_id=container_id, pod_uid=pod)


@pytest.fixture
def docker(tmp_path: Path) -> Iterator[FakeEngine]:
    with FakeEngine(tmp_path / "docker.sock") as engine:
        yield engine


@pytest.fixture
def directory(docker: FakeEngine) -> Iterator[FeedDirectory]:
    directory = make_directory(docker.path, DOCKER)
    yield directory
    directory.close()


class TestDocker:
    def name(self, directory: FeedDirectory, container_id: str = A) -> str | None:
        facts = directory.find(container(container_id))
        return None if facts is None else facts.container

    def listening(self, docker: FakeEngine, directory: FeedDirectory) -> None:
        wait_for(lambda: directory.health().up)
        wait_for(lambda: docker.listening)

    def test_a_container_that_runs_already(self, docker: FakeEngine, directory: FeedDirectory) -> None:
        labels = {"com.docker.compose.project": "ml", "com.docker.compose.service": "llm"}
        docker.run(A, "ml-llm-1", Labels=labels, Env=["MODEL=Qwen/Qwen2.5", "EMPTY=", "ODD"])
        wait_for(lambda: self.name(directory))
        assert directory.find(container(A)) == Facts(
            container="ml-llm-1",
            image="demo/llm:v1",
            labels=labels,
            command=("python", "-m", "vllm"),
            environment={"MODEL": "Qwen/Qwen2.5", "EMPTY": ""},
        )
        assert directory.changed() == {A}
        assert directory.health().name == "docker"

    def test_one_that_starts_later(self, docker: FakeEngine, directory: FeedDirectory) -> None:
        self.listening(docker, directory)
        assert directory.expects(container(A))
        docker.run(A, "web")
        wait_for(lambda: self.name(directory) == "web")
        assert not directory.expects(container(A))

    def test_others_are_not_its_business(self, docker: FakeEngine, directory: FeedDirectory) -> None:
        docker.run(A, "web")
        wait_for(lambda: self.name(directory))
        assert directory.find(container(A, "kubernetes")) is None
        assert not directory.expects(container(B, "podman"))

    def test_a_new_name(self, docker: FakeEngine, directory: FeedDirectory) -> None:
        docker.run(A, "old")
        self.listening(docker, directory)
        wait_for(lambda: self.name(directory))
        directory.changed()
        docker.rename(A, "new")
        wait_for(lambda: self.name(directory) == "new")
        assert directory.changed() == {A}

    def test_one_that_is_gone_lingers(self, docker: FakeEngine, directory: FeedDirectory) -> None:
        """Fault 42: its last use is booked after it ended."""
        docker.run(A, "job")
        self.listening(docker, directory)
        docker.remove(A)
        docker.run(B, "next")
        wait_for(lambda: self.name(directory, B))
        assert self.name(directory) == "job"

    def test_one_that_is_gone_before_it_is_asked_about(self, docker: FakeEngine, directory: FeedDirectory) -> None:
        self.listening(docker, directory)
        docker.say(b'{"Action":"start","Actor":{"ID":"%s"}}\n' % (b"d" * 64))
        docker.run(A, "web")
        wait_for(lambda: self.name(directory))
        assert sum(directory.health().failures.values()) == 0

    def test_events_that_were_lost_are_made_up_for(self, docker: FakeEngine, directory: FeedDirectory) -> None:
        self.listening(docker, directory)
        docker.run(A, "web", silent=True)
        docker.hang_up()
        wait_for(lambda: self.name(directory))

    def test_garbage_among_the_events(self, docker: FakeEngine, directory: FeedDirectory) -> None:
        """Fault 49."""
        self.listening(docker, directory)
        docker.say(b"garbage\n")
        wait_for(lambda: directory.health().failures["implausible"] == 1)
        docker.run(A, "web")
        wait_for(lambda: self.name(directory))

    def test_events_without_a_container(self, docker: FakeEngine, directory: FeedDirectory) -> None:
        self.listening(docker, directory)
        docker.say(b'{"Action":"prune","Actor":{"ID":""}}\n')
        docker.run(A, "web")
        wait_for(lambda: self.name(directory))
        assert sum(directory.health().failures.values()) == 0

    def test_an_engine_that_stops_and_starts(self, docker: FakeEngine, directory: FeedDirectory) -> None:
        """Fault 49: what was known stays, and the way out is told."""
        docker.run(A, "web")
        self.listening(docker, directory)
        wait_for(lambda: self.name(directory))
        docker.close()
        wait_for(lambda: directory.health().reason == "not_found")
        assert "systemctl start docker.socket" in directory.health().fix
        assert self.name(directory) == "web"
        os.unlink(docker.path)
        with FakeEngine(Path(docker.path)) as again:
            again.run(B, "next")
            wait_for(lambda: self.name(directory, B))
            wait_for(lambda: directory.health().up)

    def test_only_reads(self, docker: FakeEngine, directory: FeedDirectory) -> None:
        docker.run(A, "web")
        wait_for(lambda: self.name(directory))
        assert {method for method, _ in docker.requests} == {"GET"}

    def test_a_socket_of_something_else(self, docker: FakeEngine, directory: FeedDirectory) -> None:
        docker.status = 404
        wait_for(lambda: directory.health().reason == "not_found")
        assert "must be the socket of docker" in directory.health().fix

    def test_a_socket_that_is_not_ours_to_use(self, docker: FakeEngine, directory: FeedDirectory) -> None:
        docker.status = 403
        wait_for(lambda: directory.health().reason == "permission")


class TestPodman:
    @pytest.fixture
    def podman(self, tmp_path: Path) -> Iterator[FakeEngine]:
        with FakeEngine(tmp_path / "podman.sock", podman=True) as engine:
            yield engine

    @pytest.fixture
    def directory(self, podman: FakeEngine) -> Iterator[FeedDirectory]:
        directory = make_directory(podman.path, PODMAN)
        yield directory
        directory.close()

    def test_pods_have_their_names(self, podman: FakeEngine, directory: FeedDirectory) -> None:
        podman.make_pod(POD, "team-pod")
        podman.run(A, "vllm", pod=POD)
        podman.run(B, "alone")
        wait_for(lambda: directory.health().up)
        inside = directory.find(container(A, "podman", POD))
        assert inside is not None
        assert (inside.pod, inside.container, inside.pod_uid, inside.image) == (
            "team-pod",
            "vllm",
            POD,
            "localhost/demo/llm:v1",
        )
        alone = directory.find(container(B, "podman"))
        assert alone is not None
        assert (alone.pod, alone.container, alone.pod_uid) == ("", "alone", "")
        whole = directory.find(Workload(runtime="podman", pod_uid=POD))
        assert whole == Facts(pod="team-pod", pod_uid=POD, labels={"team": "nlp"})

    def test_a_pod_that_is_made_later(self, podman: FakeEngine, directory: FeedDirectory) -> None:
        wait_for(lambda: directory.health().up)
        wait_for(lambda: podman.listening)
        podman.make_pod(POD, "late")
        podman.run(A, "vllm", pod=POD)
        wait_for(lambda: (facts := directory.find(container(A, "podman"))) and facts.pod == "late")
        assert directory.changed() == {A, POD}
        assert directory.find(Workload(runtime="podman", pod_uid=POD)) is not None


@pytest.mark.parametrize("wrong", [None, 7, "x", [None, 7], {"a": 7}])
@pytest.mark.parametrize("field", ["Name", "ImageName", "Path", "Args", "Config", "Env", "Labels", "Image"])
def test_fields_of_another_kind_are_unknown(field: str, wrong: object) -> None:
    """Fault 49."""
    told: dict[str, object] = {"Name": "/web", "Config": {"Image": "x", "Labels": {}, "Env": [], field: wrong}}
    if field not in ("Env", "Labels", "Image"):
        told[field] = wrong
    assert isinstance(read_container(told), Facts)


def test_long_texts_are_left_out() -> None:
    """Fault 45."""
    facts = read_container({"Name": "/web", "Args": ["x" * 2**20], "Config": {"Env": ["A=" + "x" * 2**20]}})
    assert len(facts.command[0]) == 4096
    assert facts.environment == {}
