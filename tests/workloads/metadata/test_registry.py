"""The metadata providers of a machine, and that unused ones cost nothing."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from exporter.host import Host
from exporter.records import Workload
from exporter.workloads.metadata.registry import MetadataOptions, metadata_providers, node_name
from tests.support.fake_engine import FakeEngine
from tests.support.fake_kubernetes_api import FakeApiServer, container_id, make_pod, uid
from tests.support.patience import patience, wait_for

CLUSTER = {"KUBERNETES_SERVICE_HOST": "127.0.0.1", "KUBERNETES_SERVICE_PORT": "1"}
NO_ENGINES = {"docker_socket": "off", "podman_socket": "off"}


def names(options: MetadataOptions, environ: dict[str, str]) -> list[str]:
    found = metadata_providers(options, Host(), environ)
    for provider in found:
        provider.close()
    return [provider.health().name for provider in found]


@pytest.mark.parametrize(
    ("kubernetes", "environ", "expected"),
    [
        ("auto", {}, []),
        ("auto", CLUSTER, ["kubernetes"]),
        ("off", CLUSTER, []),
        ("api", {}, ["kubernetes"]),
        ("kubelet", {}, ["kubernetes"]),
    ],
)
def test_kubernetes_only_in_a_cluster_or_if_configured(
    kubernetes: str, environ: dict[str, str], expected: list[str]
) -> None:
    assert names(MetadataOptions(kubernetes=kubernetes, **NO_ENGINES), environ) == expected


def test_configured_engines_in_order_of_precedence() -> None:
    options = MetadataOptions(docker_socket="/nowhere/a", podman_socket="/nowhere/b")
    assert names(options, CLUSTER) == ["kubernetes", "docker", "podman"]


def test_a_configured_socket_that_is_missing_is_reported() -> None:
    (provider,) = metadata_providers(
        MetadataOptions(docker_socket="/nowhere/docker.sock", podman_socket="off"), Host(), {}
    )
    wait_for(lambda: provider.health().reason)
    assert provider.health().reason == "not_found"
    provider.close()


@pytest.mark.parametrize(
    ("setting", "variable", "expected"),
    [("configured", "variable", "configured"), ("", "variable", "variable")],
)
def test_the_node_s_name(setting: str, variable: str, expected: str) -> None:
    assert node_name(MetadataOptions(node_name=setting), {"NODE_NAME": variable}) == expected


def test_the_node_s_name_defaults_to_the_hostname() -> None:
    assert node_name(MetadataOptions(), {}) == Path("/proc/sys/kernel/hostname").read_text().strip()


def test_a_configured_server_and_node_are_used() -> None:
    with FakeApiServer() as server:
        server.add(make_pod(1, node="gpu-7"))
        options = MetadataOptions("api", node_name="gpu-7", url=server.url, **NO_ENGINES)
        (provider,) = metadata_providers(options, Host(), {})
        workload = Workload(runtime="kubernetes", container_id=container_id(1), pod_uid=uid(1))
        metadata = wait_for(lambda: provider.find(workload))
        provider.close()
    assert metadata is not None
    assert (metadata.namespace, metadata.pod, metadata.container) == ("team-nlp", "pod-1", "main")


@pytest.mark.parametrize(
    ("host", "url"), [("10.96.0.1", "https://10.96.0.1:443"), ("fd00::1", "https://[fd00::1]:443")]
)
def test_the_address_from_the_environment_of_the_pod(host: str, url: str, tmp_path: Path) -> None:
    """Without a CA nothing is sent, but the message has the address."""
    environ = {"KUBERNETES_SERVICE_HOST": host, "KUBERNETES_SERVICE_PORT": "443"}
    (provider,) = metadata_providers(MetadataOptions(credentials=str(tmp_path), **NO_ENGINES), Host(), environ)
    wait_for(lambda: provider.health().reason)
    health = provider.health()
    provider.close()
    assert health.message == f"{url}: {tmp_path}/ca.crt: No such file or directory"


def test_an_engine_s_socket_is_used(tmp_path: Path) -> None:
    with FakeEngine(tmp_path / "docker.sock") as engine:
        engine.run("a" * 64, "web")
        (provider,) = metadata_providers(
            MetadataOptions("off", docker_socket=engine.path, podman_socket="off"), Host(), {}
        )
        wait_for(lambda: provider.health().up)
        assert provider.changed() == {"a" * 64}
        provider.close()


def test_no_client_is_loaded_outside_of_a_cluster() -> None:
    """An unused client costs no memory."""
    code = (
        "import sys\n"
        "from exporter.host import Host\n"
        "from exporter.workloads.metadata.registry import MetadataOptions, metadata_providers\n"
        "assert metadata_providers(MetadataOptions(docker_socket='off', podman_socket='off'), Host(), {}) == []\n"
        "late = ('http.client', 'ssl', 'exporter.network.http_client')\n"
        "print([name for name in late if name in sys.modules])\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=patience(60)
    )
    assert done.stdout == "[]\n"
