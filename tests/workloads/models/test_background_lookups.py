"""Background lookups: which are run, how often, and that the caller never waits."""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from exporter.host import Host
from exporter.records import GroupKey, ProcessKey
from exporter.workloads.models.background_lookups import BackgroundLookups
from exporter.workloads.models.evidence import Lookup
from exporter.workloads.models.served import served_name
from exporter.workloads.proc import process_stat
from tests.support.patience import patience, wait_for

GROUP = GroupKey("/a", 1)
FILE = Lookup("config", "c.yml", ("model",))
SERVER = Lookup("server", "8000")


class TestBackgroundLookups:
    def test_a_result_arrives_later_and_is_kept(self, proc: Any) -> None:
        key = proc.add(10, ["x"]).key
        lookups = BackgroundLookups(proc.host, lambda host, pid, lookup: f"{lookup.value}-{pid}")
        assert lookups.name(key, FILE, GROUP) in ("", "c.yml-10")
        wait_for(lambda: lookups.name(key, FILE, None) == "c.yml-10")
        wait_for(lambda: lookups.completed() == {GROUP})
        assert lookups.completed() == set()
        lookups.close()
        assert lookups.name(key, FILE, None) == "c.yml-10"

    def test_a_file_is_read_once_and_an_empty_result_is_not_reported(self, proc: Any) -> None:
        key = proc.add(10, ["x"]).key
        pids: list[int] = []

        def run(host: Host, pid: int, lookup: Lookup) -> str:
            pids.append(pid)
            return ""

        lookups = BackgroundLookups(proc.host, run)
        lookups.name(key, FILE, GROUP)
        wait_for(lambda: not lookups._pending)
        for _ in range(3):
            assert lookups.name(key, FILE, GROUP) == ""
        assert pids == [10]
        assert lookups.completed() == set()
        lookups.close()

    def test_a_server_that_is_still_loading_is_retried(self, proc: Any) -> None:
        key = proc.add(10, ["x"]).key
        pids: list[int] = []

        def run(host: Host, pid: int, lookup: Lookup) -> str:
            pids.append(pid)
            return "llama" if len(pids) == 4 else ""

        lookups = BackgroundLookups(Host(procfs=str(proc.root)), run, retry_first_seconds=0.01)
        lookups.name(key, SERVER, GROUP)
        wait_for(lambda: lookups.completed() == {GROUP})
        assert lookups.name(key, SERVER, GROUP) == "llama"
        assert pids == [10] * 4
        lookups.close()

    def test_a_server_that_never_responds_is_retried_for_a_limited_time(self, proc: Any) -> None:
        key = proc.add(10, ["x"]).key
        pids: list[int] = []

        def run(host: Host, pid: int, lookup: Lookup) -> str:
            pids.append(pid)
            return ""

        lookups = BackgroundLookups(Host(procfs=str(proc.root)), run, retry_first_seconds=0.05, retry_for_seconds=0.2)
        lookups.name(key, SERVER, GROUP)
        wait_for(lambda: not lookups._pending)
        assert 2 <= len(pids) <= 5
        lookups.close()

    def test_no_lookup_for_a_process_that_has_ended(self, proc: Any) -> None:
        """Fault 34."""
        pids: list[int] = []

        def run(host: Host, pid: int, lookup: Lookup) -> str:
            pids.append(pid)
            return "wrong"

        lookups = BackgroundLookups(proc.host, run)
        proc.add(10, ["x"], start=5)
        for key in (ProcessKey(10, 4), ProcessKey(11, 1)):
            lookups.name(key, SERVER, GROUP)
        wait_for(lambda: not lookups._pending)
        assert pids == []
        assert lookups.completed() == set()
        lookups.close()

    def test_an_exception_is_an_empty_result_and_does_not_end_the_thread(self, proc: Any) -> None:
        one, two = proc.add(10, ["x"]).key, proc.add(11, ["x"]).key

        def run(host: Host, pid: int, lookup: Lookup) -> str:
            if pid == 10:
                raise RuntimeError("secret")
            return "llama"

        lookups = BackgroundLookups(proc.host, run)
        lookups.name(one, FILE, GROUP)
        lookups.name(two, FILE, GROUP)
        wait_for(lambda: lookups.name(two, FILE, GROUP) == "llama")
        lookups.close()

    def test_a_hanging_lookup_delays_neither_caller_nor_close(self, proc: Any) -> None:
        """Fault 15."""
        release = threading.Event()

        def run(host: Host, pid: int, lookup: Lookup) -> str:
            release.wait(patience(60))
            return "late"

        lookups = BackgroundLookups(proc.host, run)
        key = proc.add(10, ["x"]).key
        for number in range(400):
            assert lookups.name(key, Lookup("config", str(number)), GROUP) == ""
        assert len(lookups._pending) <= 256
        lookups.close()
        assert lookups.name(key, FILE, GROUP) == ""
        release.set()

    def test_without_a_lookup_there_is_no_thread(self, proc: Any) -> None:
        before = threading.active_count()
        BackgroundLookups(proc.host).close()
        assert threading.active_count() == before


Response = Callable[[socket.socket], None]


def page(body: bytes, status: bytes = b"200 OK") -> Response:
    """An HTTP response."""
    return lambda connection: connection.sendall(b"HTTP/1.1 " + status + b"\r\nServer: x\r\n\r\n" + body)


def models(*entries: bytes) -> bytes:
    """A list in the format of vLLM."""
    return b'{"object":"list","data":[' + b",".join(entries) + b"]}"


class TestServer:
    """Real sockets on the loopback."""

    @pytest.fixture
    def serve(self) -> Iterator[Callable[[Response], int]]:
        listeners: list[socket.socket] = []
        self.requests: list[bytes] = []

        def start(respond: Response) -> int:
            listener = socket.create_server(("127.0.0.1", 0))
            listeners.append(listener)

            def run() -> None:
                try:
                    connection, _ = listener.accept()
                    with connection:
                        self.requests.append(connection.recv(4096))
                        respond(connection)
                except OSError:
                    pass

            threading.Thread(target=run, daemon=True).start()
            port: int = listener.getsockname()[1]
            return port

        yield start
        for listener in listeners:
            listener.close()

    @staticmethod
    def read(port: int) -> str:
        """The name, as if this process were the server: it shares the network namespace."""

        return served_name(Host(), os.getpid(), port)

    @pytest.mark.parametrize(
        ("body", "expected"),
        [
            (models(b'{"id":"Qwen/Qwen3-4B","root":"/models/q","parent":null}'), "Qwen/Qwen3-4B"),
            (models(b'{"id":"qwen","root":"/q"}', b'{"id":"qwen-latest","root":"/q"}'), "qwen"),
            (models(b'{"id":"base","root":"/b"}', b'{"id":"lora","root":"/l","parent":"base"}'), "base"),
            (models(b'{"id":"a"}', b'{"id":"b"}'), ""),
            (models(b'{"id":"unknown"}'), ""),
            (models(b'{"id":"default"}'), ""),
            (models(b'{"id":"evil\\n\\"}\\u202e"}'), None),
            (models(), ""),
            (models(b"1", b'{"id":2}'), ""),
            (b"[]", ""),
            (b'{"data":3}', ""),
            (b"not JSON", ""),
            (b"[" * 60_000, ""),
            (b"\xff", ""),
            (b" " * 200_000, ""),
        ],
    )
    def test_the_only_model_counts(self, serve: Callable[[Response], int], body: bytes, expected: str | None) -> None:
        name = self.read(serve(page(body)))
        if expected is None:
            assert name.startswith("evil_")
            assert name.isprintable()
        else:
            assert name == expected
        assert self.requests[0].startswith(b"GET /v1/models HTTP/1.0\r\nHost: 127.0.0.1:")
        assert b"uthorization" not in self.requests[0]

    def test_error_responses_are_not_names(self, serve: Callable[[Response], int]) -> None:
        body = models(b'{"id":"a"}')
        for status in (b"401 Unauthorized", b"301 Moved", b"500 x", b"2000 x"):
            assert self.read(serve(page(body, status))) == ""
        assert self.read(serve(lambda connection: connection.close())) == ""

    def test_a_closed_port_is_not_a_name(self) -> None:
        with socket.create_server(("127.0.0.1", 0)) as listener:
            port = listener.getsockname()[1]
        assert self.read(port) == ""

    def test_a_slow_response_ends_at_the_deadline(self, serve: Callable[[Response], int]) -> None:
        stop = threading.Event()

        def trickle(connection: socket.socket) -> None:
            while not stop.wait(0.05):
                connection.sendall(b"H")

        began = time.monotonic()
        assert self.read(serve(trickle)) == ""
        stop.set()
        assert time.monotonic() - began < patience()

    def test_no_request_if_the_namespace_is_unknown(self, serve: Callable[[Response], int], proc: Any) -> None:
        port = serve(page(models(b'{"id":"a"}')))
        proc.add(10, ["x"])
        assert served_name(proc.host, 10, port) == ""
        assert self.requests == []

    def test_the_address_is_in_the_namespace_of_the_process(self, serve: Callable[[Response], int], proc: Any) -> None:
        """Only 127.0.0.2 is listed for the other one, so it alone may be contacted; nothing listens there."""
        port = serve(page(models(b'{"id":"a"}')))
        table = "Main:\n  +-- 0.0.0.0/0 3 0 5\n     |-- {}\n        /32 host LOCAL\n"
        proc.add(10, ["x"])
        for process, address in (("self", "198.51.100.7"), ("10", "127.0.0.2")):
            (proc.root / process / "net").mkdir(parents=True)
            (proc.root / process / "net/fib_trie").write_text(table.format(address))
        assert served_name(proc.host, 10, port) == ""
        assert self.requests == []
        (proc.root / "10/net/fib_trie").write_text(table.format("198.51.100.7"))
        assert served_name(proc.host, 10, port) == "a"


def test_this_process_is_found() -> None:

    stat = process_stat(Host(), os.getpid())
    assert stat is not None
    assert stat.parent == os.getppid()
