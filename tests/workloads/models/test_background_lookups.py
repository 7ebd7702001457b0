"""Questions in the background: who is asked, how often, and that nobody waits for the answer."""

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
from exporter.workloads.models.background_lookups import Inquiries
from exporter.workloads.models.evidence import Question
from exporter.workloads.models.proc import process_stat
from exporter.workloads.models.served import served_name
from tests.support.patience import patience, wait_for

GROUP = GroupKey("/a", 1)
FILE = Question("config", "c.yml", ("model",))
SERVER = Question("server", "8000")


class TestInquiries:
    def test_an_answer_comes_later_and_is_kept(self, proc: Any) -> None:
        key = proc.add(10, ["x"]).key
        inquiries = Inquiries(proc.host, lambda host, pid, question: f"{question.value}-{pid}")
        assert inquiries.name(key, FILE, GROUP) in ("", "c.yml-10")
        wait_for(lambda: inquiries.name(key, FILE, None) == "c.yml-10")
        wait_for(lambda: inquiries.news() == {GROUP})
        assert inquiries.news() == set()
        inquiries.close()
        assert inquiries.name(key, FILE, None) == "c.yml-10"

    def test_a_file_is_asked_once_and_nobody_is_told_of_nothing(self, proc: Any) -> None:
        key = proc.add(10, ["x"]).key
        asked: list[int] = []

        def ask(host: Host, pid: int, question: Question) -> str:
            asked.append(pid)
            return ""

        inquiries = Inquiries(proc.host, ask)
        inquiries.name(key, FILE, GROUP)
        wait_for(lambda: not inquiries._asked)
        for _ in range(3):
            assert inquiries.name(key, FILE, GROUP) == ""
        assert asked == [10]
        assert inquiries.news() == set()
        inquiries.close()

    def test_a_server_that_is_still_loading_is_asked_again(self, proc: Any) -> None:
        key = proc.add(10, ["x"]).key
        asked: list[int] = []

        def ask(host: Host, pid: int, question: Question) -> str:
            asked.append(pid)
            return "llama" if len(asked) == 4 else ""

        inquiries = Inquiries(Host(procfs=str(proc.root)), ask, pause_seconds=0.01)
        inquiries.name(key, SERVER, GROUP)
        wait_for(lambda: inquiries.news() == {GROUP})
        assert inquiries.name(key, SERVER, GROUP) == "llama"
        assert asked == [10] * 4
        inquiries.close()

    def test_a_server_that_never_answers_is_given_up(self, proc: Any) -> None:
        key = proc.add(10, ["x"]).key
        asked: list[int] = []

        def ask(host: Host, pid: int, question: Question) -> str:
            asked.append(pid)
            return ""

        inquiries = Inquiries(Host(procfs=str(proc.root)), ask, pause_seconds=0.05, patience_seconds=0.2)
        inquiries.name(key, SERVER, GROUP)
        wait_for(lambda: not inquiries._asked)
        assert 2 <= len(asked) <= 5
        inquiries.close()

    def test_who_has_ended_is_not_asked(self, proc: Any) -> None:
        """Fault 34."""
        asked: list[int] = []

        def ask(host: Host, pid: int, question: Question) -> str:
            asked.append(pid)
            return "wrong"

        inquiries = Inquiries(proc.host, ask)
        proc.add(10, ["x"], start=5)
        for key in (ProcessKey(10, 4), ProcessKey(11, 1)):
            inquiries.name(key, SERVER, GROUP)
        wait_for(lambda: not inquiries._asked)
        assert asked == []
        assert inquiries.news() == set()
        inquiries.close()

    def test_an_exception_is_no_answer_and_not_the_end(self, proc: Any) -> None:
        one, two = proc.add(10, ["x"]).key, proc.add(11, ["x"]).key

        def ask(host: Host, pid: int, question: Question) -> str:
            if pid == 10:
                raise RuntimeError("secret")
            return "llama"

        inquiries = Inquiries(proc.host, ask)
        inquiries.name(one, FILE, GROUP)
        inquiries.name(two, FILE, GROUP)
        wait_for(lambda: inquiries.name(two, FILE, GROUP) == "llama")
        inquiries.close()

    def test_a_question_that_hangs_delays_neither_caller_nor_end(self, proc: Any) -> None:
        """Fault 15."""
        release = threading.Event()

        def ask(host: Host, pid: int, question: Question) -> str:
            release.wait(patience(60))
            return "late"

        inquiries = Inquiries(proc.host, ask)
        key = proc.add(10, ["x"]).key
        for number in range(400):
            assert inquiries.name(key, Question("config", str(number)), GROUP) == ""
        assert len(inquiries._asked) <= 256
        inquiries.close()
        assert inquiries.name(key, FILE, GROUP) == ""
        release.set()

    def test_without_a_question_there_is_no_thread(self, proc: Any) -> None:
        before = threading.active_count()
        Inquiries(proc.host).close()
        assert threading.active_count() == before


Answer = Callable[[socket.socket], None]


def page(body: bytes, status: bytes = b"200 OK") -> Answer:
    """An HTTP answer."""
    return lambda connection: connection.sendall(b"HTTP/1.1 " + status + b"\r\nServer: x\r\n\r\n" + body)


def models(*entries: bytes) -> bytes:
    """A list as vLLM writes it."""
    return b'{"object":"list","data":[' + b",".join(entries) + b"]}"


class TestServer:
    """Real sockets on the loopback."""

    @pytest.fixture
    def serve(self) -> Iterator[Callable[[Answer], int]]:
        listeners: list[socket.socket] = []
        self.requests: list[bytes] = []

        def start(answer: Answer) -> int:
            listener = socket.create_server(("127.0.0.1", 0))
            listeners.append(listener)

            def run() -> None:
                try:
                    connection, _ = listener.accept()
                    with connection:
                        self.requests.append(connection.recv(4096))
                        answer(connection)
                except OSError:
                    pass

            threading.Thread(target=run, daemon=True).start()
            port: int = listener.getsockname()[1]
            return port

        yield start
        for listener in listeners:
            listener.close()

    @staticmethod
    def ask(port: int) -> str:
        """Ask as if this process were the server: its network namespace is ours."""

        return served_name(Host(), os.getpid(), port)

    @pytest.mark.parametrize(
        ("body", "expected"),
        [
            (models(b'{"id":"Qwen/Qwen3-4B","root":"/models/q","parent":null}'), "Qwen/Qwen3-4B"),
            (models(b'{"id":"qwen","root":"/q"}', b'{"id":"qwen-latest","root":"/q"}'), "qwen"),
            (models(b'{"id":"base","root":"/b"}', b'{"id":"lora","root":"/l","parent":"base"}'), "base"),
            (models(b'{"id":"a"}', b'{"id":"b"}'), ""),
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
    def test_the_only_model_counts(self, serve: Callable[[Answer], int], body: bytes, expected: str | None) -> None:
        name = self.ask(serve(page(body)))
        if expected is None:
            assert name.startswith("evil_")
            assert name.isprintable()
        else:
            assert name == expected
        assert self.requests[0].startswith(b"GET /v1/models HTTP/1.0\r\nHost: 127.0.0.1:")
        assert b"uthorization" not in self.requests[0]

    def test_refusals_are_no_names(self, serve: Callable[[Answer], int]) -> None:
        body = models(b'{"id":"a"}')
        for status in (b"401 Unauthorized", b"301 Moved", b"500 x", b"2000 x"):
            assert self.ask(serve(page(body, status))) == ""
        assert self.ask(serve(lambda connection: connection.close())) == ""

    def test_a_closed_port_is_no_name(self) -> None:
        with socket.create_server(("127.0.0.1", 0)) as listener:
            port = listener.getsockname()[1]
        assert self.ask(port) == ""

    def test_an_answer_that_drips_ends_at_the_deadline(self, serve: Callable[[Answer], int]) -> None:
        stop = threading.Event()

        def drip(connection: socket.socket) -> None:
            while not stop.wait(0.05):
                connection.sendall(b"H")

        began = time.monotonic()
        assert self.ask(serve(drip)) == ""
        stop.set()
        assert time.monotonic() - began < patience()

    def test_nobody_is_asked_where_the_namespace_is_unknown(self, serve: Callable[[Answer], int], proc: Any) -> None:
        port = serve(page(models(b'{"id":"a"}')))
        proc.add(10, ["x"])
        assert served_name(proc.host, 10, port) == ""
        assert self.requests == []

    def test_the_address_is_that_of_the_processs_own_namespace(self, serve: Callable[[Answer], int], proc: Any) -> None:
        """Only 127.0.0.2 is listed for the other one, so it alone may be contacted; nothing listens there."""
        port = serve(page(models(b'{"id":"a"}')))
        table = "Main:\n  +-- 0.0.0.0/0 3 0 5\n     |-- {}\n        /32 host LOCAL\n"
        proc.add(10, ["x"])
        for who, address in (("self", "198.51.100.7"), ("10", "127.0.0.2")):
            (proc.root / who / "net").mkdir(parents=True)
            (proc.root / who / "net/fib_trie").write_text(table.format(address))
        assert served_name(proc.host, 10, port) == ""
        assert self.requests == []
        (proc.root / "10/net/fib_trie").write_text(table.format("198.51.100.7"))
        assert served_name(proc.host, 10, port) == "a"


def test_the_process_that_asks_exists() -> None:

    stat = process_stat(Host(), os.getpid())
    assert stat is not None
    assert stat.parent == os.getppid()
