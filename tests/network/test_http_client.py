"""GET requests to servers that are slow, never end a response, or send invalid data."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Generator
from pathlib import Path

import pytest

from exporter.network.http_client import MAX_LINE_BYTES, MAX_RESPONSE_BYTES, HttpClient, HttpStatusError
from exporter.records import Unavailable
from tests.support.patience import patience

HEAD = b"HTTP/1.1 200 OK\r\n\r\n"


class Scripted:
    """Accepts connections and sends ``parts``, with a pause after each; then holds or ends the connection."""

    def __init__(self, *parts: bytes, pause_seconds: float = 0.0, hold: bool = False, times: int = 1) -> None:
        self._parts = parts * times
        self._pause_seconds = pause_seconds
        self._hold = hold
        self._over = threading.Event()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        self.requests: list[bytes] = []
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def _serve(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                peer, _ = self._listener.accept()
                with peer, contextlib.suppress(OSError):
                    self.requests.append(peer.recv(65536))
                    for part in self._parts:
                        peer.sendall(part)
                        if self._over.wait(self._pause_seconds):
                            return
                    if self._hold:
                        self._over.wait(patience(30))

    def __enter__(self) -> Scripted:
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join(patience())


def client_of(server: Scripted, read_timeout: float = 20.0, response_timeout: float = 20.0) -> HttpClient:
    return HttpClient(server.url, {}, read_timeout_seconds=read_timeout, response_timeout_seconds=response_timeout)


def test_the_request_is_a_get_with_its_query() -> None:
    with Scripted(HEAD + b"{}") as server:
        HttpClient(server.url + "/base/", {}, user_agent="me/1").json("/pods", {"fieldSelector": "spec.nodeName=a b"})
        head, *lines = server.requests[0].decode().splitlines()
    assert head == "GET /base/pods?fieldSelector=spec.nodeName%3Da+b HTTP/1.1"
    assert "User-Agent: me/1" in lines
    assert "Connection: close" in lines


def test_unused_members_are_dropped_but_labels_are_not() -> None:
    body = b'{"metadata":{"managedFields":[{"a":1}],"labels":{"volumes":"x"}},"spec":{"volumes":[{"name":"x"}]}}'
    with Scripted(HEAD + body) as server:
        assert client_of(server).json("/") == {"metadata": {"labels": {"volumes": "x"}}, "spec": {}}


def test_an_idle_server_times_out() -> None:
    with Scripted(hold=True) as server, pytest.raises(Unavailable) as caught:
        client_of(server, read_timeout=0.1).json("/")
    assert caught.value.reason == "timeout"


def test_a_slow_response_times_out() -> None:
    """Every byte arrives in time, the whole response does not."""
    with Scripted(HEAD, *[b" "] * 1000, pause_seconds=0.02) as server, pytest.raises(Unavailable) as caught:
        client_of(server, response_timeout=0.3).json("/")
    assert caught.value.reason == "timeout"


def test_an_endless_response_is_implausible() -> None:
    spaces = [b" " * 2**20] * (2 + MAX_RESPONSE_BYTES // 2**20)
    with Scripted(HEAD, *spaces) as server, pytest.raises(Unavailable) as caught:
        client_of(server).json("/")
    assert caught.value.reason == "implausible"


def test_endless_headers_are_implausible() -> None:
    with Scripted(b"HTTP/1.1 200 OK\r\n", *[b"X-Header: y\r\n"] * 1000) as server, pytest.raises(Unavailable) as caught:
        client_of(server).json("/")
    assert caught.value.reason == "implausible"


class TestLines:
    def lines(self, server: Scripted, seconds: float = 20.0) -> Generator[bytes, None, None]:
        return client_of(server).lines("/", {}, seconds)

    def test_are_complete_however_they_are_sent(self) -> None:
        with Scripted(HEAD, b"on", b"e\ntwo\n\nth", b"ree\nunfini", pause_seconds=0.02) as server:
            assert list(self.lines(server)) == [b"", b"one", b"two", b"three"]

    def test_arrive_immediately(self) -> None:
        with Scripted(HEAD, b"one\n", hold=True) as server, contextlib.closing(self.lines(server)) as lines:
            assert [next(lines), next(lines)] == [b"", b"one"]

    def test_being_idle_is_not_an_error(self) -> None:
        with Scripted(HEAD, b"one\n", hold=True) as server:
            assert list(self.lines(server, seconds=0.2)) == [b"", b"one"]

    def test_they_end_in_time_however_many_arrive(self) -> None:
        with Scripted(HEAD, *[b"line\n"] * 1000, pause_seconds=0.01) as server:
            began = time.monotonic()
            assert 2 < len(list(self.lines(server, seconds=0.3))) < 500
            assert time.monotonic() - began < patience(5)

    def test_an_endless_line_is_implausible(self) -> None:
        letters = [b"x" * 2**20] * (2 + MAX_LINE_BYTES // 2**20)
        with Scripted(HEAD, *letters) as server, pytest.raises(Unavailable) as caught:
            list(self.lines(server))
        assert caught.value.reason == "implausible"

    def test_an_error_status_comes_before_any_line(self) -> None:
        gone = b'HTTP/1.1 410 Gone\r\n\r\n{"message":"too old"}'
        with Scripted(gone) as server, pytest.raises(HttpStatusError) as caught:
            next(self.lines(server))
        assert (caught.value.status, caught.value.message) == (410, f"{server.url}: status 410: too old")


def test_an_interrupt_ends_a_wait() -> None:
    with Scripted(HEAD, hold=True) as server:
        client = client_of(server)
        lines = client.lines("/", {}, 60.0)
        assert next(lines) == b""
        threading.Timer(0.05, client.interrupt).start()
        assert list(lines) == []
        with pytest.raises(Unavailable):
            client.json("/")


def test_unix_sockets(tmp_path: Path) -> None:
    path = tmp_path / "api.sock"
    with pytest.raises(Unavailable) as caught:
        HttpClient(f"unix://{path}", {"not_found": "start it"}).json("/")
    assert (caught.value.reason, caught.value.fix) == ("not_found", "start it")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        with pytest.raises(Unavailable) as caught:  # bound, but not listening
            HttpClient(f"unix://{path}", {}).json("/")
    assert caught.value.reason == "not_found"
