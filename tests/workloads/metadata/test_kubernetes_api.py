"""Metadata of pods from a server with the list and watch of the Kubernetes API, and with the failures of real ones."""

from __future__ import annotations

import json
import logging
import ssl
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import trustme

from exporter.host import Host
from exporter.network.http_client import HttpClient
from exporter.records import Workload
from exporter.workloads.metadata.container_metadata import ContainerMetadata
from exporter.workloads.metadata.kubernetes_api import API_FIXES, KUBELET_FIXES, ApiServer, Kubelet
from exporter.workloads.metadata.provider import BackgroundProvider
from tests.support.fake_kubernetes_api import FakeApiServer, Pod, container_id, make_pod, uid
from tests.support.patience import patience, wait_for

NODE = "node-1"


def workload(number: int = 1, *, pod: int | None = None) -> Workload:
    """A workload as its cgroup path describes it."""
    return Workload(
        pod="", runtime="kubernetes", container_id=container_id(number), pod_uid=uid(number if pod is None else pod)
    )


class Watcher:
    """A provider and its server."""

    def __init__(self, server: FakeApiServer, client: HttpClient | None = None) -> None:
        self.server = server
        client = client or HttpClient(server.url, API_FIXES)
        self.provider = BackgroundProvider(ApiServer(client, NODE), Host(), retry_first_seconds=0.02)

    def find(self, number: int = 1) -> ContainerMetadata | None:
        return self.provider.find(workload(number))

    def knows(self, number: int = 1) -> bool:
        metadata = self.find(number)
        return metadata is not None and metadata.container == "main"

    def up(self) -> bool:
        return self.provider.health().up

    def reason(self) -> str | None:
        return self.provider.health().reason

    def watching(self) -> None:
        """Wait until the watch is open."""
        self.provider.health()
        wait_for(lambda: self.server.watching)


@pytest.fixture
def server() -> Iterator[FakeApiServer]:
    with FakeApiServer() as server:
        server.add(make_pod(1))
        yield server


@pytest.fixture
def watcher(server: FakeApiServer) -> Iterator[Watcher]:
    watcher = Watcher(server)
    yield watcher
    watcher.provider.close()


class TestListAndWatch:
    def test_nothing_is_requested_before_the_first_call(self, server: FakeApiServer, watcher: Watcher) -> None:
        time.sleep(0.05)
        assert server.requests == []
        assert watcher.find() is None
        wait_for(watcher.knows)

    def test_the_pods_of_this_node_and_no_others(self, server: FakeApiServer, watcher: Watcher) -> None:
        server.add(make_pod(2, node="node-2"))
        watcher.watching()
        server.add(make_pod(3, node="node-2"))
        server.add(make_pod(4))
        wait_for(lambda: watcher.knows(4))
        assert watcher.knows(1)
        assert watcher.find(2) is None
        assert watcher.find(3) is None
        assert {request.query["fieldSelector"] for request in server.requests} == {f"spec.nodeName={NODE}"}

    def test_only_the_three_verbs_on_pods_are_used(self, server: FakeApiServer, watcher: Watcher) -> None:
        watcher.watching()
        assert {request.path for request in server.requests} == {"/api/v1/pods"}

    def test_the_first_list_is_served_from_the_cache(self, server: FakeApiServer, watcher: Watcher) -> None:
        watcher.watching()
        assert server.requests[0].query["resourceVersion"] == "0"

    def test_pages(self, server: FakeApiServer, watcher: Watcher) -> None:
        server.page_size = 7
        for number in range(2, 31):
            server.add(make_pod(number))
        wait_for(lambda: all(watcher.knows(number) for number in range(1, 31)))
        assert len([request for request in server.requests if "continue" in request.query]) == 4
        assert len(watcher.provider.changed()) == 60

    def test_a_pod_is_expected_until_it_is_known(self, server: FakeApiServer, watcher: Watcher) -> None:
        watcher.watching()
        wait_for(watcher.knows)
        assert not watcher.provider.expects(workload(1))
        assert watcher.provider.expects(workload(2))
        pending = make_pod(2, change=lambda pod: pod["status"].pop("containerStatuses"))
        server.add(pending)
        wait_for(lambda: watcher.find(2))
        assert watcher.find(2) == ContainerMetadata(
            namespace="team-nlp",
            pod="pod-2",
            pod_uid=uid(2),
            labels={"app": "pod-2", "team": "nlp"},
            annotations={"cni.projectcalico.org/podIP": "10.0.2.7/32"},
        )
        assert watcher.provider.expects(workload(2))
        watcher.provider.changed()
        server.add(make_pod(2))
        wait_for(lambda: watcher.knows(2))
        assert watcher.provider.changed() == {container_id(2)}

    def test_other_runtimes_are_ignored(self, watcher: Watcher) -> None:
        docker = workload()._replace(runtime="docker")
        watcher.watching()
        wait_for(watcher.knows)
        assert watcher.provider.find(docker) is None
        assert not watcher.provider.expects(docker)
        assert not watcher.provider.expects(Workload(runtime="host"))

    def test_changed_labels_are_reported(self, server: FakeApiServer, watcher: Watcher) -> None:
        watcher.watching()
        wait_for(watcher.knows)
        watcher.provider.changed()
        server.add(make_pod(1, change=lambda pod: pod["metadata"]["labels"].update(team="vision")))
        wait_for(lambda: (metadata := watcher.find()) and metadata.labels["team"] == "vision")
        assert watcher.provider.changed() == {uid(1), container_id(1)}

    def test_a_deleted_pod_lingers(self, server: FakeApiServer, watcher: Watcher) -> None:
        """Fault 42: its cgroup may outlive it."""
        watcher.watching()
        server.delete(uid(1))
        server.add(make_pod(2))
        wait_for(lambda: watcher.knows(2))
        assert watcher.knows(1)

    def test_a_restarted_container(self, server: FakeApiServer, watcher: Watcher) -> None:
        """Fault 40: old and new id are the same container."""

        def restart(pod: Pod) -> None:
            status = pod["status"]["containerStatuses"][0]
            status["containerID"] = f"containerd://{container_id(99)}"
            status["lastState"] = {"terminated": {"containerID": f"containerd://{container_id(1)}"}}

        watcher.watching()
        server.add(make_pod(1, change=restart))
        wait_for(lambda: watcher.provider.find(workload(99, pod=1)) == watcher.find(1))


class TestWatch:
    def test_resumes_after_its_end_from_its_last_version(self, server: FakeApiServer, watcher: Watcher) -> None:
        watcher.watching()
        server.add(make_pod(2))
        wait_for(lambda: watcher.knows(2))
        server.drop_watches()
        server.add(make_pod(3))
        wait_for(lambda: watcher.knows(3))
        assert len(server.requests_with(watch="")) == 1
        assert server.requests_with(watch="1")[-1].query["resourceVersion"] == "1002"
        assert watcher.up()
        assert sum(watcher.provider.health().failures.values()) == 0

    def test_bookmarks_advance_its_version(self, server: FakeApiServer, watcher: Watcher) -> None:
        watcher.watching()
        server.bookmark()
        wait_for(lambda: server.watching)
        time.sleep(0.05)
        server.drop_watches()
        wait_for(lambda: len(server.requests_with(watch="1")) == 2)
        assert server.requests_with(watch="1")[-1].query["resourceVersion"] == "1002"

    def test_one_without_a_bookmark_lists_again(self, server: FakeApiServer, watcher: Watcher) -> None:
        """etcd was restored from a copy: an API server sends nothing that is older than the version of the watch."""
        watcher.watching()
        server.restore(version=900)
        server.add(make_pod(2))
        time.sleep(1.1)  # one that ends sooner is a failure
        assert not watcher.knows(2)
        server.end_watches()
        wait_for(lambda: watcher.knows(2))
        assert len(server.requests_with(watch="")) == 2
        assert watcher.up()
        assert sum(watcher.provider.health().failures.values()) == 0

    def test_an_incomplete_line_is_requested_again(self, server: FakeApiServer, watcher: Watcher) -> None:
        """Fault 49: the connection breaks in the middle of an event."""
        watcher.watching()
        server.add(make_pod(2))
        wait_for(lambda: watcher.knows(2))
        server.drop_watches(b'{"type":"DELETED","object":{"metadata":{"uid":"' + uid(1).encode())
        server.add(make_pod(3))
        wait_for(lambda: watcher.knows(3))
        assert watcher.knows(1)
        assert len(server.requests_with(watch="")) == 1

    @pytest.mark.parametrize("as_event", [False, True], ids=["status", "event"])
    def test_gone_lists_again(self, server: FakeApiServer, watcher: Watcher, as_event: bool) -> None:
        """410 is the status of the response or an event in it; pods deleted meanwhile are noticed."""
        server.expired_as_event = as_event
        watcher.watching()
        wait_for(watcher.knows)
        server.add(make_pod(2))
        wait_for(lambda: watcher.knows(2))
        server.drop_watches()
        server.delete(uid(1))
        server.add(make_pod(3))
        server.compact()
        wait_for(lambda: watcher.knows(3))
        lists = server.requests_with(watch="")
        assert len(lists) == 2
        assert "resourceVersion" not in lists[1].query  # the cache may be older than the last version
        assert watcher.up()

    def test_an_expired_page_restarts_the_list(self, server: FakeApiServer, watcher: Watcher) -> None:
        server.page_size = 1
        server.add(make_pod(2))
        server.next_responses.append(
            b'HTTP/1.1 200 OK\r\n\r\n{"metadata":{"resourceVersion":"7","continue":"old"},"items":[]}'
        )
        server.next_responses.append(b'HTTP/1.1 410 Gone\r\nContent-Length: 25\r\n\r\n{"message":"page is gone"}')
        wait_for(lambda: watcher.knows(1) and watcher.knows(2))

    def test_one_that_ends_immediately_is_a_failure(self, server: FakeApiServer, watcher: Watcher) -> None:
        listed = {"metadata": {"resourceVersion": "1001"}, "items": [make_pod(1)]}
        server.next_responses.append(b"HTTP/1.1 200 OK\r\n\r\n" + json.dumps(listed).encode())
        server.next_responses.append(b"HTTP/1.1 200 OK\r\n\r\n")
        wait_for(lambda: watcher.provider.health().failures["error"] == 1)
        server.add(make_pod(2))
        wait_for(lambda: watcher.knows(2))
        assert watcher.up()

    def test_another_error_inside_of_it_is_a_failure(self, server: FakeApiServer, watcher: Watcher) -> None:
        watcher.watching()
        server.error(500)
        wait_for(lambda: watcher.provider.health().failures["error"] == 1)
        server.add(make_pod(2))
        wait_for(lambda: watcher.knows(2))
        assert len(server.requests_with(watch="")) == 2

    @pytest.mark.parametrize(
        "line",
        [b"\xff\x00garbage\n", b"[]\n", b'{"type":"ADDED","object":7}\n', b'{"type":"NEW"}\n', b"[" * 100_000 + b"\n"],
        ids=["binary", "list", "number", "unknown", "nested"],
    )
    def test_garbage_in_it_lists_again(self, server: FakeApiServer, watcher: Watcher, line: bytes) -> None:
        """Fault 49: metadata stays, and a new list restores consistency."""
        watcher.watching()
        wait_for(watcher.knows)
        server.send(line)
        wait_for(lambda: watcher.provider.health().failures["implausible"] == 1)
        assert watcher.knows()
        server.add(make_pod(2))
        wait_for(lambda: watcher.knows(2))
        assert len(server.requests_with(watch="")) == 2

    def test_an_object_that_is_not_a_pod_is_skipped(self, server: FakeApiServer, watcher: Watcher) -> None:
        watcher.watching()
        server.send(b'{"type":"ADDED","object":{"metadata":{"resourceVersion":"1001","labels":[]}}}\n')
        server.add(make_pod(2))
        wait_for(lambda: watcher.knows(2))
        assert watcher.up()


class TestTrouble:
    """Fault 49: metadata is late, the tick never waits, and the health has the fix."""

    def test_calls_never_wait_for_a_slow_server(self, server: FakeApiServer, watcher: Watcher) -> None:
        server.list_delay_seconds = 1.0
        assert watcher.find() is None
        assert watcher.provider.expects(workload())
        assert watcher.provider.changed() == set()
        assert not watcher.up()
        wait_for(lambda: server.requests)
        time.sleep(0.2)
        server.may_list.set()
        wait_for(watcher.knows)
        assert watcher.provider.health().read_seconds >= 1.0

    def test_a_server_that_is_down_and_comes_back(
        self, server: FakeApiServer, watcher: Watcher, caplog: pytest.LogCaptureFixture
    ) -> None:
        caplog.set_level(logging.INFO)
        server.status = 503
        wait_for(lambda: watcher.reason() == "error")
        wait_for(lambda: watcher.provider.health().failures["error"] >= 3)
        server.status = None
        wait_for(watcher.up)
        wait_for(watcher.knows)
        health = watcher.provider.health()
        assert (health.name, health.reason, health.message, health.fix) == ("kubernetes", None, "", "")
        assert health.last_success == pytest.approx(time.time(), abs=30)
        assert [record.message for record in caplog.records] == [
            "metadata provider is not available",
            "metadata provider is back",
        ]

    def test_a_closed_port(self) -> None:
        with FakeApiServer() as server:
            pass
        watcher = Watcher(server)
        wait_for(lambda: watcher.reason() == "not_found")
        assert "network policies" in watcher.provider.health().fix
        watcher.provider.close()

    def test_forbidden_names_the_rule(self, server: FakeApiServer, watcher: Watcher) -> None:
        server.status = 403
        wait_for(lambda: watcher.reason() == "permission")
        health = watcher.provider.health()
        assert 'apiGroups: [""], resources: [pods], verbs: [list, watch]' in health.fix
        assert "403: no" in health.message

    def test_a_wrong_node_name_is_reported(self, server: FakeApiServer, watcher: Watcher) -> None:
        server.delete(uid(1))
        wait_for(lambda: watcher.reason() == "not_found")
        assert "NODE_NAME" in watcher.provider.health().fix

    @pytest.mark.parametrize(
        ("response", "reason"),
        [
            (b"HTTP/1.1 200 OK\r\n\r\n<html>login</html>", "implausible"),
            (b"HTTP/1.1 200 OK\r\n\r\n[1]", "implausible"),
            (b'HTTP/1.1 200 OK\r\n\r\n{"metadata":{"resourceVersion":"1"},"items":{}}', "implausible"),
            (b"\x15\x03\x01\x00\x02\x02\x46", "implausible"),
            (b"", "error"),
            (b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n{", "error"),
            (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1000\r\n{", "error"),
            (b"HTTP/1.1 302 Found\r\nLocation: https://elsewhere/\r\nContent-Length: 0\r\n\r\n", "error"),
            (b"HTTP/1.1 500 Oops\r\nContent-Length: 2\r\n\r\n[]", "error"),
        ],
        ids=["html", "list", "items", "tls", "nothing", "short", "chunk", "redirect", "500"],
    )
    def test_garbage_instead_of_a_list(
        self, server: FakeApiServer, watcher: Watcher, response: bytes, reason: str
    ) -> None:
        server.next_responses.append(response)
        wait_for(watcher.knows)
        assert {name: count for name, count in watcher.provider.health().failures.items() if count} == {reason: 1}

    def test_an_endless_list_is_implausible(self, server: FakeApiServer, watcher: Watcher) -> None:
        page = b'HTTP/1.1 200 OK\r\n\r\n{"metadata":{"resourceVersion":"7","continue":"more"},"items":[]}'
        server.next_responses.extend([page] * 3)
        wait_for(lambda: watcher.provider.health().failures["implausible"] == 3)
        wait_for(watcher.knows)

    def test_closing_ends_the_thread_immediately(self, watcher: Watcher) -> None:
        watcher.watching()
        thread = watcher.provider._thread
        assert thread is not None
        watcher.provider.close()
        thread.join(patience(10))
        assert not thread.is_alive()
        assert sum(watcher.provider.health().failures.values()) == 0


class TestCredentials:
    @pytest.fixture
    def authority(self) -> trustme.CA:
        return trustme.CA()

    @pytest.fixture
    def server(self, authority: trustme.CA) -> Iterator[FakeApiServer]:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        authority.issue_cert("127.0.0.1").configure_cert(context)
        with FakeApiServer(context, tokens={"first"}) as server:
            server.add(make_pod(1))
            yield server

    @pytest.fixture
    def folder(self, tmp_path: Path, authority: trustme.CA) -> Path:
        authority.cert_pem.write_to_path(str(tmp_path / "ca.crt"))
        (tmp_path / "token").write_text("first\n")
        return tmp_path

    @pytest.fixture
    def watcher(self, server: FakeApiServer, folder: Path) -> Iterator[Watcher]:
        client = HttpClient(server.url, API_FIXES, token_file=str(folder / "token"), ca_file=str(folder / "ca.crt"))
        watcher = Watcher(server, client)
        yield watcher
        watcher.provider.close()

    def test_with_the_cluster_s_ca_and_a_token(self, watcher: Watcher, server: FakeApiServer) -> None:
        wait_for(watcher.knows)
        watcher.watching()
        assert {request.token for request in server.requests} == {"first"}

    def test_closing_ends_a_watch_over_tls(self, watcher: Watcher) -> None:
        watcher.watching()
        thread = watcher.provider._thread
        assert thread is not None
        watcher.provider.close()
        thread.join(patience(10))
        assert not thread.is_alive()

    def test_a_new_token_is_taken_from_its_file(self, watcher: Watcher, server: FakeApiServer, folder: Path) -> None:
        """Tokens of service accounts live for an hour; the kubelet replaces the file before."""
        watcher.watching()
        (folder / "token").write_text("second")
        server.tokens = {"second"}
        server.drop_watches()
        server.add(make_pod(2))
        wait_for(lambda: watcher.knows(2))
        assert server.requests[-1].token == "second"

    def test_an_expired_token_is_reported_and_read_again(
        self, watcher: Watcher, server: FakeApiServer, folder: Path
    ) -> None:
        server.tokens = {"second"}
        wait_for(lambda: watcher.reason() == "permission")
        assert "token" in watcher.provider.health().fix
        (folder / "token").write_text("second")
        wait_for(watcher.knows)

    def test_another_ca_is_not_trusted(self, watcher: Watcher, server: FakeApiServer, folder: Path) -> None:
        trustme.CA().cert_pem.write_to_path(str(folder / "ca.crt"))
        wait_for(lambda: watcher.reason() == "error")
        health = watcher.provider.health()
        assert "unable to get local issuer" in health.message
        assert "ca.crt" in health.fix
        assert server.requests == []

    def test_a_certificate_for_another_host_is_not_trusted(self, folder: Path, authority: trustme.CA) -> None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        authority.issue_cert("elsewhere.example").configure_cert(context)
        with FakeApiServer(context) as server:
            watcher = Watcher(server, HttpClient(server.url, API_FIXES, ca_file=str(folder / "ca.crt")))
            wait_for(lambda: watcher.reason() == "error")
            assert "127.0.0.1" in watcher.provider.health().message
            watcher.provider.close()
            assert server.requests == []

    @pytest.mark.parametrize(("name", "fix"), [("token", "automountServiceAccountToken"), ("ca.crt", "ca.crt")])
    def test_a_missing_file_is_reported(self, watcher: Watcher, folder: Path, name: str, fix: str) -> None:
        (folder / name).unlink()
        wait_for(lambda: watcher.reason() == "not_found")
        health = watcher.provider.health()
        assert name in health.message
        assert fix in health.fix

    def test_an_invalid_token(self, watcher: Watcher, folder: Path) -> None:
        (folder / "token").write_bytes(b"two\nlines\n")
        wait_for(lambda: watcher.reason() == "implausible")

    def test_a_token_is_never_sent_in_the_clear(self, folder: Path) -> None:
        with FakeApiServer() as server:
            server.add(make_pod(1))
            watcher = Watcher(server, HttpClient(server.url, API_FIXES, token_file=str(folder / "token")))
            wait_for(watcher.knows)
            assert {request.token for request in server.requests} == {""}
            watcher.provider.close()


class TestKubelet:
    @pytest.fixture
    def provider(self, server: FakeApiServer) -> Iterator[BackgroundProvider]:
        feed = Kubelet(HttpClient(server.url, KUBELET_FIXES), poll_seconds=0.02)
        provider = BackgroundProvider(feed, Host(), retry_first_seconds=0.02)
        yield provider
        provider.close()

    def test_is_polled(self, server: FakeApiServer, provider: BackgroundProvider) -> None:
        wait_for(lambda: provider.find(workload(1)))
        server.delete(uid(1))
        server.add(make_pod(2))
        wait_for(lambda: provider.find(workload(2)))
        assert provider.find(workload(1)) is not None
        assert {request.path for request in server.requests} == {"/pods"}

    def test_the_fix_for_forbidden_does_not_grant_the_right_to_run_commands(
        self, server: FakeApiServer, provider: BackgroundProvider
    ) -> None:
        server.status = 403
        wait_for(lambda: provider.health().reason == "permission")
        fix = provider.health().fix
        assert "resources: [nodes/pods], verbs: [get]" in fix
        assert "do not grant nodes/proxy" in fix

    def test_garbage(self, server: FakeApiServer, provider: BackgroundProvider) -> None:
        """Fault 49."""
        server.next_responses.append(b'HTTP/1.1 200 OK\r\n\r\n{"items":null}')
        wait_for(lambda: provider.find(workload(1)))
        assert provider.health().failures["implausible"] == 1
