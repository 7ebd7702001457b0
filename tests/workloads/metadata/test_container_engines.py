"""Container metadata from the sockets of Docker and Podman."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from exporter.host import Host
from exporter.network.http_client import HttpClient
from exporter.records import Workload
from exporter.workloads.metadata.container_engines import DOCKER, PODMAN, Engine, EngineApi, read_container
from exporter.workloads.metadata.container_metadata import ContainerMetadata
from exporter.workloads.metadata.provider import BackgroundProvider
from tests.support.fake_engine import FakeEngine
from tests.support.patience import wait_for

A, B = "a" * 64, "b" * 64
POD = "c" * 64


def make_provider(path: Path | str, api: EngineApi) -> BackgroundProvider:
    queries, events = (HttpClient(f"unix://{path}", api.fixes) for _ in range(2))
    return BackgroundProvider(Engine(queries, events, api), Host(), retry_first_seconds=0.02)


def container(container_id: str, runtime: str = "docker", pod: str = "") -> Workload:
    return Workload(container=container_id[:12], runtime=runtime, container_id=container_id, pod_uid=pod)


@pytest.fixture
def docker(tmp_path: Path) -> Iterator[FakeEngine]:
    with FakeEngine(tmp_path / "docker.sock") as engine:
        yield engine


@pytest.fixture
def provider(docker: FakeEngine) -> Iterator[BackgroundProvider]:
    provider = make_provider(docker.path, DOCKER)
    yield provider
    provider.close()


class TestDocker:
    def name(self, provider: BackgroundProvider, container_id: str = A) -> str | None:
        metadata = provider.find(container(container_id))
        return None if metadata is None else metadata.container

    def subscribed(self, docker: FakeEngine, provider: BackgroundProvider) -> None:
        wait_for(lambda: provider.health().up)
        wait_for(lambda: docker.subscribers)

    def test_a_container_that_already_runs(self, docker: FakeEngine, provider: BackgroundProvider) -> None:
        labels = {"com.docker.compose.project": "ml", "com.docker.compose.service": "llm"}
        docker.run(A, "ml-llm-1", Labels=labels, Env=["MODEL=Qwen/Qwen2.5", "EMPTY=", "ODD"])
        wait_for(lambda: self.name(provider))
        assert provider.find(container(A)) == ContainerMetadata(
            container="ml-llm-1",
            image="demo/llm:v1",
            labels=labels,
            command=("python", "-m", "vllm"),
            environment={"MODEL": "Qwen/Qwen2.5", "EMPTY": ""},
        )
        assert provider.changed() == {A}
        assert provider.health().name == "docker"

    def test_one_that_starts_later(self, docker: FakeEngine, provider: BackgroundProvider) -> None:
        self.subscribed(docker, provider)
        assert provider.expects(container(A))
        docker.run(A, "web")
        wait_for(lambda: self.name(provider) == "web")
        assert not provider.expects(container(A))

    def test_other_runtimes_are_ignored(self, docker: FakeEngine, provider: BackgroundProvider) -> None:
        docker.run(A, "web")
        wait_for(lambda: self.name(provider))
        assert provider.find(container(A, "kubernetes")) is None
        assert not provider.expects(container(B, "podman"))

    @pytest.mark.parametrize("runtime", ["containerd", "unknown", "kata"])
    def test_the_engine_that_knows_the_id_names_it(
        self, docker: FakeEngine, provider: BackgroundProvider, runtime: str
    ) -> None:
        """``docker run --cgroup-parent /default``: the path looks like that of a namespace of containerd."""
        docker.run(A, "web")
        wait_for(lambda: self.name(provider))
        found = provider.find(container(A, runtime))
        assert found is not None
        assert (found.container, found.runtime) == ("web", "docker")
        assert provider.find(container(B, runtime)) is None

    def test_a_new_name(self, docker: FakeEngine, provider: BackgroundProvider) -> None:
        docker.run(A, "old")
        self.subscribed(docker, provider)
        wait_for(lambda: self.name(provider))
        provider.changed()
        docker.rename(A, "new")
        wait_for(lambda: self.name(provider) == "new")
        assert provider.changed() == {A}

    def test_a_removed_container_lingers(self, docker: FakeEngine, provider: BackgroundProvider) -> None:
        """Fault 42: its last usage is attributed after it ended."""
        docker.run(A, "job")
        self.subscribed(docker, provider)
        docker.remove(A)
        docker.run(B, "next")
        wait_for(lambda: self.name(provider, B))
        assert self.name(provider) == "job"

    def test_one_that_is_removed_before_it_is_inspected(self, docker: FakeEngine, provider: BackgroundProvider) -> None:
        self.subscribed(docker, provider)
        docker.send(b'{"Action":"start","Actor":{"ID":"%s"}}\n' % (b"d" * 64))
        docker.run(A, "web")
        wait_for(lambda: self.name(provider))
        assert sum(provider.health().failures.values()) == 0

    def test_lost_events_are_covered_by_the_next_list(self, docker: FakeEngine, provider: BackgroundProvider) -> None:
        self.subscribed(docker, provider)
        docker.run(A, "web", silent=True)
        docker.disconnect()
        wait_for(lambda: self.name(provider))

    def test_garbage_among_the_events(self, docker: FakeEngine, provider: BackgroundProvider) -> None:
        """Fault 49."""
        self.subscribed(docker, provider)
        docker.send(b"garbage\n")
        wait_for(lambda: provider.health().failures["implausible"] == 1)
        docker.run(A, "web")
        wait_for(lambda: self.name(provider))

    def test_events_without_a_container(self, docker: FakeEngine, provider: BackgroundProvider) -> None:
        self.subscribed(docker, provider)
        docker.send(b'{"Action":"prune","Actor":{"ID":""}}\n')
        docker.run(A, "web")
        wait_for(lambda: self.name(provider))
        assert sum(provider.health().failures.values()) == 0

    def test_an_engine_that_stops_and_starts(self, docker: FakeEngine, provider: BackgroundProvider) -> None:
        """Fault 49: metadata stays, and the health has the fix."""
        docker.run(A, "web")
        self.subscribed(docker, provider)
        wait_for(lambda: self.name(provider))
        docker.close()
        wait_for(lambda: provider.health().reason == "not_found")
        assert "systemctl start docker.socket" in provider.health().fix
        assert self.name(provider) == "web"
        os.unlink(docker.path)
        with FakeEngine(Path(docker.path)) as restarted:
            restarted.run(B, "next")
            wait_for(lambda: self.name(provider, B))
            wait_for(lambda: provider.health().up)

    def test_only_reads(self, docker: FakeEngine, provider: BackgroundProvider) -> None:
        docker.run(A, "web")
        wait_for(lambda: self.name(provider))
        assert {method for method, _ in docker.requests} == {"GET"}

    def test_a_socket_of_something_else(self, docker: FakeEngine, provider: BackgroundProvider) -> None:
        docker.status = 404
        wait_for(lambda: provider.health().reason == "not_found")
        assert "must name the API socket of docker" in provider.health().fix

    def test_a_socket_without_permission(self, docker: FakeEngine, provider: BackgroundProvider) -> None:
        docker.status = 403
        wait_for(lambda: provider.health().reason == "permission")


class TestPodman:
    @pytest.fixture
    def podman(self, tmp_path: Path) -> Iterator[FakeEngine]:
        with FakeEngine(tmp_path / "podman.sock", podman=True) as engine:
            yield engine

    @pytest.fixture
    def provider(self, podman: FakeEngine) -> Iterator[BackgroundProvider]:
        provider = make_provider(podman.path, PODMAN)
        yield provider
        provider.close()

    def test_containers_have_the_name_of_their_pod(self, podman: FakeEngine, provider: BackgroundProvider) -> None:
        podman.make_pod(POD, "team-pod")
        podman.run(A, "vllm", pod=POD)
        podman.run(B, "alone")
        wait_for(lambda: provider.health().up)
        inside = provider.find(container(A, "podman", POD))
        assert inside is not None
        assert (inside.pod, inside.container, inside.pod_uid, inside.image) == (
            "team-pod",
            "vllm",
            POD,
            "localhost/demo/llm:v1",
        )
        alone = provider.find(container(B, "podman"))
        assert alone is not None
        assert (alone.pod, alone.container, alone.pod_uid) == ("", "alone", "")
        whole = provider.find(Workload(runtime="podman", pod_uid=POD))
        assert whole == ContainerMetadata(pod="team-pod", pod_uid=POD, labels={"team": "nlp"})

    def test_a_pod_that_is_created_later(self, podman: FakeEngine, provider: BackgroundProvider) -> None:
        wait_for(lambda: provider.health().up)
        wait_for(lambda: podman.subscribers)
        podman.make_pod(POD, "late")
        podman.run(A, "vllm", pod=POD)
        wait_for(lambda: (metadata := provider.find(container(A, "podman"))) and metadata.pod == "late")
        assert provider.changed() == {A, POD}
        assert provider.find(Workload(runtime="podman", pod_uid=POD)) is not None


@pytest.mark.parametrize("wrong", [None, 7, "x", [None, 7], {"a": 7}])
@pytest.mark.parametrize("field", ["Name", "ImageName", "Path", "Args", "Config", "Env", "Labels", "Image"])
def test_fields_of_another_type_are_unknown(field: str, wrong: object) -> None:
    """Fault 49."""
    inspected: dict[str, object] = {"Name": "/web", "Config": {"Image": "x", "Labels": {}, "Env": [], field: wrong}}
    if field not in ("Env", "Labels", "Image"):
        inspected[field] = wrong
    assert isinstance(read_container(inspected), ContainerMetadata)


def test_long_texts_are_left_out() -> None:
    """Fault 45."""
    metadata = read_container({"Name": "/web", "Args": ["x" * 2**20], "Config": {"Env": ["A=" + "x" * 2**20]}})
    assert len(metadata.command[0]) == 4096
    assert metadata.environment == {}
