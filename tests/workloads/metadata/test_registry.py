"""Which directories a machine has, and that nobody pays for the others."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from exporter.host import Host
from exporter.records import Workload
from exporter.workloads.metadata.registry import NameOptions, directories, node_name
from tests.support.fake_engine import FakeEngine
from tests.support.fake_kubernetes_api import FakeApiServer, container_id, make_pod, uid
from tests.support.patience import patience, wait_for

CLUSTER = {"KUBERNETES_SERVICE_HOST": "127.0.0.1", "KUBERNETES_SERVICE_PORT": "1"}
NO_ENGINES = {"docker_socket": "off", "podman_socket": "off"}


def names(options: NameOptions, environ: dict[str, str]) -> list[str]:
    found = directories(options, Host(), environ)
    for directory in found:
        directory.close()
    return [directory.health().name for directory in found]


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
def test_kubernetes_only_in_a_cluster_or_where_asked_for(
    kubernetes: str, environ: dict[str, str], expected: list[str]
) -> None:
    assert names(NameOptions(kubernetes=kubernetes, **NO_ENGINES), environ) == expected


def test_engines_where_asked_for_in_the_order_of_trust() -> None:
    options = NameOptions(docker_socket="/nowhere/a", podman_socket="/nowhere/b")
    assert names(options, CLUSTER) == ["kubernetes", "docker", "podman"]


def test_a_chosen_socket_that_is_missing_is_told() -> None:
    (directory,) = directories(NameOptions(docker_socket="/nowhere/docker.sock", podman_socket="off"), Host(), {})
    wait_for(lambda: directory.health().reason)
    assert directory.health().reason == "not_found"
    directory.close()


@pytest.mark.parametrize(
    ("setting", "variable", "expected"),
    [("chosen", "told", "chosen"), ("", "told", "told")],
)
def test_the_node_s_name(setting: str, variable: str, expected: str) -> None:
    assert node_name(NameOptions(node_name=setting), {"NODE_NAME": variable}) == expected


def test_the_node_s_name_is_the_machine_s_where_nobody_tells() -> None:
    assert node_name(NameOptions(), {}) == Path("/proc/sys/kernel/hostname").read_text().strip()


def test_a_chosen_server_and_node_are_asked() -> None:
    with FakeApiServer() as server:
        server.add(make_pod(1, node="gpu-7"))
        options = NameOptions("api", node_name="gpu-7", url=server.url, **NO_ENGINES)
        (directory,) = directories(options, Host(), {})
        workload = Workload(runtime="kubernetes", container_id=container_id(1), pod_uid=uid(1))
        facts = wait_for(lambda: directory.find(workload))
        directory.close()
    assert facts is not None
    assert (facts.namespace, facts.pod, facts.container) == ("team-nlp", "pod-1", "main")


@pytest.mark.parametrize(
    ("host", "url"), [("10.96.0.1", "https://10.96.0.1:443"), ("fd00::1", "https://[fd00::1]:443")]
)
def test_the_address_that_kubernetes_tells(host: str, url: str, tmp_path: Path) -> None:
    """Without a token nothing is sent, but the message says who would have been asked."""
    environ = {"KUBERNETES_SERVICE_HOST": host, "KUBERNETES_SERVICE_PORT": "443"}
    (directory,) = directories(NameOptions(credentials=str(tmp_path), **NO_ENGINES), Host(), environ)
    wait_for(lambda: directory.health().reason)
    health = directory.health()
    directory.close()
    assert health.message == f"{url}: {tmp_path}/ca.crt: No such file or directory"


def test_an_engine_s_socket_is_used(tmp_path: Path) -> None:
    with FakeEngine(tmp_path / "docker.sock") as engine:
        engine.run("a" * 64, "web")
        (directory,) = directories(NameOptions("off", docker_socket=engine.path, podman_socket="off"), Host(), {})
        wait_for(lambda: directory.health().up)
        assert directory.changed() == {"a" * 64}
        directory.close()


def test_no_client_is_loaded_outside_of_a_cluster() -> None:
    """What a machine has no use for costs it nothing."""
    code = (
        "import sys\n"
        "from exporter.host import Host\n"
        "from exporter.workloads.metadata.registry import NameOptions, directories\n"
        "assert directories(NameOptions(docker_socket='off', podman_socket='off'), Host(), {}) == []\n"
        "late = ('http.client', 'ssl', 'exporter.workloads.metadata.http_client')\n"
        "print([name for name in late if name in sys.modules])\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=patience(60)
    )
    assert done.stdout == "[]\n"
