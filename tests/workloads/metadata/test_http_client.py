"""One GET, to servers that are slow, endless or wrong."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Generator
from pathlib import Path

import pytest

from exporter.records import Unavailable
from exporter.workloads.metadata.http_client import MAX_ANSWER_BYTES, MAX_LINE_BYTES, Channel, Refused
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


def channel(server: Scripted, silence_seconds: float = 20.0, answer_seconds: float = 20.0) -> Channel:
    return Channel(server.url, {}, silence_seconds=silence_seconds, answer_seconds=answer_seconds)


def test_the_request_is_a_get_with_its_query() -> None:
    with Scripted(HEAD + b"{}") as server:
        Channel(server.url + "/base/", {}, agent="me/1").json("/pods", {"fieldSelector": "spec.nodeName=a b"})
        head, *lines = server.requests[0].decode().splitlines()
    assert head == "GET /base/pods?fieldSelector=spec.nodeName%3Da+b HTTP/1.1"
    assert "User-Agent: me/1" in lines
    assert "Connection: close" in lines


def test_what_nobody_asks_for_is_dropped_but_labels_are_not() -> None:
    body = b'{"metadata":{"managedFields":[{"a":1}],"labels":{"volumes":"x"}},"spec":{"volumes":[{"name":"x"}]}}'
    with Scripted(HEAD + body) as server:
        assert channel(server).json("/") == {"metadata": {"labels": {"volumes": "x"}}, "spec": {}}


def test_a_silent_server_is_given_up() -> None:
    with Scripted(hold=True) as server, pytest.raises(Unavailable) as caught:
        channel(server, silence_seconds=0.1).json("/")
    assert caught.value.reason == "timeout"


def test_a_trickle_is_given_up() -> None:
    """Every byte comes in time, the answer never does."""
    with Scripted(HEAD, *[b" "] * 1000, pause_seconds=0.02) as server, pytest.raises(Unavailable) as caught:
        channel(server, answer_seconds=0.3).json("/")
    assert caught.value.reason == "timeout"


def test_an_endless_answer_is_given_up() -> None:
    spaces = [b" " * 2**20] * (2 + MAX_ANSWER_BYTES // 2**20)
    with Scripted(HEAD, *spaces) as server, pytest.raises(Unavailable) as caught:
        channel(server).json("/")
    assert caught.value.reason == "implausible"


def test_endless_heads_are_given_up() -> None:
    with Scripted(b"HTTP/1.1 200 OK\r\n", *[b"X-Header: y\r\n"] * 1000) as server, pytest.raises(Unavailable) as caught:
        channel(server).json("/")
    assert caught.value.reason == "implausible"


class TestLines:
    def lines(self, server: Scripted, seconds: float = 20.0) -> Generator[bytes, None, None]:
        return channel(server).lines("/", {}, seconds)

    def test_come_whole_however_they_are_sent(self) -> None:
        with Scripted(HEAD, b"on", b"e\ntwo\n\nth", b"ree\nunfini", pause_seconds=0.02) as server:
            assert list(self.lines(server)) == [b"", b"one", b"two", b"three"]

    def test_come_at_once(self) -> None:
        with Scripted(HEAD, b"one\n", hold=True) as server, contextlib.closing(self.lines(server)) as lines:
            assert [next(lines), next(lines)] == [b"", b"one"]

    def test_being_silent_is_no_fault(self) -> None:
        with Scripted(HEAD, b"one\n", hold=True) as server:
            assert list(self.lines(server, seconds=0.2)) == [b"", b"one"]

    def test_they_end_in_time_however_much_is_said(self) -> None:
        with Scripted(HEAD, *[b"line\n"] * 1000, pause_seconds=0.01) as server:
            began = time.monotonic()
            assert 2 < len(list(self.lines(server, seconds=0.3))) < 500
            assert time.monotonic() - began < patience(5)

    def test_one_without_end_is_given_up(self) -> None:
        letters = [b"x" * 2**20] * (2 + MAX_LINE_BYTES // 2**20)
        with Scripted(HEAD, *letters) as server, pytest.raises(Unavailable) as caught:
            list(self.lines(server))
        assert caught.value.reason == "implausible"

    def test_a_refusal_comes_before_any_line(self) -> None:
        gone = b'HTTP/1.1 410 Gone\r\n\r\n{"message":"too old"}'
        with Scripted(gone) as server, pytest.raises(Refused) as caught:
            next(self.lines(server))
        assert (caught.value.status, caught.value.message) == (410, f"{server.url} answers 410: too old")


def test_an_interrupt_ends_a_wait() -> None:
    with Scripted(HEAD, hold=True) as server:
        asked = channel(server)
        lines = asked.lines("/", {}, 3600.0)
        assert next(lines) == b""
        threading.Timer(0.05, asked.interrupt).start()
        assert list(lines) == []
        with pytest.raises(Unavailable):
            asked.json("/")


def test_unix_sockets(tmp_path: Path) -> None:
    path = tmp_path / "api.sock"
    with pytest.raises(Unavailable) as caught:
        Channel(f"unix://{path}", {"not_found": "start it"}).json("/")
    assert (caught.value.reason, caught.value.fix) == ("not_found", "start it")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        with pytest.raises(Unavailable) as caught:  # nobody listens any more
            Channel(f"unix://{path}", {}).json("/")
    assert caught.value.reason == "not_found"
