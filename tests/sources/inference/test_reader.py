"""Servers as they are: over real sockets, slow, hostile, behind keys and TLS, restarted, behind a router."""

from __future__ import annotations

import os
import socket
import ssl
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
import trustme

from exporter.host import Host
from exporter.records import Problem, Process, ProcessKey
from exporter.sources.inference.poller import Poller
from exporter.sources.inference.reader import MAX_PAGE_BYTES, POLL_SECONDS, ServerReader
from exporter.sources.inference.source import InferenceSource
from exporter.workloads.models.served import served_name
from exporter.workloads.protocol import ModelServer
from tests.support.patience import patience, wait_for

HOST = Host()
SHORT_SECONDS = 0.3


def key_of(pid: int) -> ProcessKey:
    with open(f"/proc/{pid}/stat", "rb") as file:
        return ProcessKey(pid, int(file.read().rpartition(b")")[2].split()[19]))


def own_key() -> ProcessKey:
    return key_of(os.getpid())


class Pages:
    """A server in this process; ``answer`` returns the whole response to a path, None for never.

    Requests without ``key`` in their headers are refused.
    """

    def __init__(
        self, answer: Callable[[str], bytes | None], context: ssl.SSLContext | None = None, key: bytes = b""
    ) -> None:
        self._answer = answer
        self._key = key
        self._context = context
        self._server = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._server.getsockname()[1])
        self.paths: list[str] = []
        self.heads: list[bytes] = []
        self._open: list[socket.socket] = []
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self._server.accept()
            except OSError:
                return
            self._open.append(connection)
            threading.Thread(target=self._respond, args=(connection,), daemon=True).start()

    def _respond(self, connection: socket.socket) -> None:
        try:
            if self._context is not None:
                connection = self._context.wrap_socket(connection, server_side=True)
            head = connection.recv(65536)
            path = head.split(b" ", 2)[1].decode()
            self.heads.append(head)
            self.paths.append(path)
            answer = self._answer(path) if self._key in head else status(401)
            if answer is not None:
                connection.sendall(answer)
                connection.close()
        except (OSError, IndexError, ValueError):
            connection.close()

    def close(self) -> None:
        self._server.close()
        for connection in self._open:
            connection.close()


@pytest.fixture
def serve() -> Iterator[Callable[..., Pages]]:
    with ExitStack() as stack:

        def start(
            answer: Callable[[str], bytes | None] | bytes, context: ssl.SSLContext | None = None, key: bytes = b""
        ) -> Pages:
            pages = Pages(answer if callable(answer) else lambda _: answer, context, key)
            stack.callback(pages.close)
            return pages

        yield start


def ok(text: str, headers: str = "") -> bytes:
    return f"HTTP/1.0 200 OK\r\n{headers}\r\n{text}".encode()


def vllm(output: float) -> bytes:
    return ok(f'vllm:generation_tokens_total{{model_name="m"}} {output}\n')


def status(code: int, text: str = "") -> bytes:
    return f"HTTP/1.0 {code} x\r\n\r\n{text}".encode()


def model_server(port: int, dialect: str = "vllm", **more: Any) -> ModelServer:
    return ModelServer(Process(own_key(), "vllm"), None, dialect, port)._replace(**more)


def reader(port: int, dialect: str = "vllm", seconds: float | None = None) -> ServerReader:
    """``seconds`` is the time limit: only of a server that hangs it is short."""
    return ServerReader(model_server(port, dialect), HOST, timeout_seconds=patience() if seconds is None else seconds)


def problem_of(one: ServerReader) -> Problem:
    one.poll(())
    use, problem = one.take()
    assert use is not None
    assert not use.read
    assert problem is not None
    return problem


def test_tokens_are_what_the_page_counts_between_two_reads(serve: Callable[..., Pages]) -> None:
    values = iter((100.0, 140.0, 175.0))
    one = reader(serve(lambda _: vllm(next(values))).port)
    counted = []
    for _ in range(3):
        one.poll(())
        use, problem = one.take()
        assert use is not None
        assert (use.read, use.server, use.served_models, problem) == (True, "vllm", ("m",), None)
        counted.append(use.counts)
    assert counted == [{"output": 0.0}, {"output": 40.0}, {"output": 35.0}]


def test_a_server_that_hangs_ends_at_the_time_limit(serve: Callable[..., Pages]) -> None:
    assert problem_of(reader(serve(lambda _: None).port, seconds=SHORT_SECONDS)).reason == "timeout"


def test_a_page_that_drips_ends_at_the_time_limit(serve: Callable[..., Pages]) -> None:
    def drip(_: str) -> None:
        for _byte in range(100):
            connection = pages._open[-1]
            connection.sendall(b"H")
            threading.Event().wait(0.05)

    pages = serve(drip)
    assert problem_of(reader(pages.port, seconds=SHORT_SECONDS)).reason == "timeout"


def test_a_page_that_is_too_long_is_refused(serve: Callable[..., Pages]) -> None:
    pages = serve(ok("# a comment of a megabyte\n" * (MAX_PAGE_BYTES // 26 + 1)))
    one = ServerReader(model_server(pages.port), HOST, timeout_seconds=patience())
    assert problem_of(one).reason == "implausible"


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"SSH-2.0-OpenSSH_9.2\r\n\r\n",
        b"HTTP/1.0 200 OK\r\nX: " + b"y" * 300_000,
        ok("vllm:generation_tokens_total many\n"),
        ok("5\r\nvllm:\r\n0\r\n\r\n", "Transfer-Encoding: chunked\r\n"),
        ok("vllm:generation_tokens_total 5\n", "Content-Length: 4000\r\n"),
    ],
    ids=["nothing", "another protocol", "endless headers", "no number", "chunked", "cut off"],
)
def test_what_is_no_page_is_a_problem_and_counts_nothing(serve: Callable[..., Pages], answer: bytes) -> None:
    assert problem_of(reader(serve(answer).port)).reason in ("implausible", "error")


@pytest.mark.parametrize(
    ("dialect", "answer", "reason", "fix"),
    [
        ("llama.cpp", status(501, "This server does not support metrics endpoint."), "not_found", "--metrics"),
        ("sglang", status(404), "not_found", "--enable-metrics"),
        ("vllm", ok("python_info 1\n"), "not_found", "--disable-log-stats"),
        ("vllm", status(401), "permission", "--models.key-file"),
        ("vllm", status(403), "permission", "--models.key-file"),
        ("tensorrt_llm", status(404), "not_found", "return_perf_metrics"),
    ],
)
def test_a_server_without_counters_has_a_fix(
    serve: Callable[..., Pages], dialect: str, answer: bytes, reason: str, fix: str
) -> None:
    problem = problem_of(reader(serve(answer).port, dialect))
    assert problem.reason == reason
    assert fix in problem.fix
    assert f"{dialect} of pid {os.getpid()}" in problem.message


class TestKey:
    """A server as llama.cpp with ``--api-key``."""

    @pytest.fixture
    def asked(self, serve: Callable[..., Pages]) -> Pages:
        """It wants the key "s3cret"."""
        return serve(vllm(5), key=b"Authorization: Bearer s3cret\r\n")

    def polled(self, asked: Pages, key_file: str) -> ServerReader:
        one = ServerReader(model_server(asked.port), HOST, key_file=key_file, timeout_seconds=patience())
        one.poll(())
        return one

    def test_is_sent_to_who_refuses(self, asked: Pages, tmp_path: Path) -> None:
        (tmp_path / "key").write_text("s3cret\n")
        use, problem = self.polled(asked, str(tmp_path / "key")).take()
        assert problem is None
        assert use is not None
        assert use.read
        assert b"Authorization" not in asked.heads[0]

    def test_is_sent_to_nobody_else(self, serve: Callable[..., Pages], tmp_path: Path) -> None:
        (tmp_path / "key").write_text("s3cret\n")
        pages = serve(vllm(5))
        self.polled(pages, str(tmp_path / "key"))
        assert not any(b"Authorization" in head for head in pages.heads)

    @pytest.mark.parametrize(
        ("content", "reason", "text"),
        [
            ("wrong\n", "permission", "write a key of this server into"),
            ("\n", "implausible", "write the token into it"),
        ],
    )
    def test_that_is_none_has_a_fix(self, asked: Pages, tmp_path: Path, content: str, reason: str, text: str) -> None:
        (tmp_path / "key").write_text(content)
        _, problem = self.polled(asked, str(tmp_path / "key")).take()
        assert problem is not None
        assert problem.reason == reason
        assert text in problem.fix
        assert "wrong" not in problem.message + problem.fix

    def test_gets_the_name_too(self, serve: Callable[..., Pages], tmp_path: Path) -> None:
        (tmp_path / "key").write_text("s3cret\n")
        models = ok('{"data": [{"id": "org/m"}]}')
        pages = serve(models, key=b"Bearer s3cret\r\n")
        assert served_name(HOST, os.getpid(), pages.port) == ""
        assert served_name(HOST, os.getpid(), pages.port, str(tmp_path / "key")) == "org/m"


def test_a_server_that_does_not_listen_yet_is_asked_again_soon() -> None:
    with socket.create_server(("127.0.0.1", 0)) as found:
        port = int(found.getsockname()[1])
    one = reader(port)
    problem = problem_of(one)
    assert (problem.reason, "nothing listens" in problem.message) == ("not_found", True)
    assert one.due - HOST.clock() <= 15


def test_ollama_and_an_unknown_port_are_explained() -> None:
    assert "ollama/ollama#3144" in problem_of(reader(11434, "ollama")).message
    assert "DYN_SYSTEM_PORT" in problem_of(reader(0, "dynamo")).fix


def test_tls_is_tried_where_plain_text_fails(serve: Callable[..., Pages]) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    trustme.CA().issue_cert("127.0.0.1").configure_cert(context)
    one = reader(serve(vllm(5.0), context).port)
    one.poll(())
    use, problem = one.take()
    assert use is not None
    assert (use.read, problem) == (True, None)


def test_pages_are_tried_in_order(serve: Callable[..., Pages]) -> None:
    pages = serve(lambda path: ok("generation_tokens_total 5\n") if path == "/metrics" else status(404))
    one = reader(pages.port, "nim")
    one.poll(())
    one.poll(())
    assert pages.paths == ["/v1/metrics", "/metrics", "/metrics"]


def test_a_restart_is_a_new_server_and_a_page_that_was_not_read_is_made_up_for(serve: Callable[..., Pages]) -> None:
    answers = iter((vllm(100.0), status(503), vllm(180.0)))
    one = reader(serve(lambda _: next(answers)).port)
    counted = []
    for _ in range(3):
        one.poll(())
        use, _ = one.take()
        assert use is not None
        counted.append((use.read, use.counts))
    assert counted == [(True, {"output": 0.0}), (False, {}), (True, {"output": 80.0})]


class TestRouter:
    """llama.cpp's router: its own page wants a model, its servers listen on its loopback."""

    PAGE = ok("llamacpp:tokens_predicted_total 5\n")

    def test_the_router_itself_is_no_problem(self, serve: Callable[..., Pages]) -> None:
        one = reader(serve(status(400, "model name is missing from the request")).port, "llama.cpp")
        one.poll(())
        assert one.take() == (None, None)

    def test_a_server_that_cannot_be_reached_is_read_through_it(self, serve: Callable[..., Pages]) -> None:
        pages = serve(lambda path: self.PAGE if "model=acme%2Fm" in path else status(400))
        with socket.create_server(("127.0.0.1", 0)) as found:
            closed = int(found.getsockname()[1])
        child = model_server(closed, "llama.cpp", model="acme/m")
        one = ServerReader(child, HOST, router=model_server(pages.port, "llama.cpp"), timeout_seconds=patience())
        one.poll(())
        use, problem = one.take()
        assert use is not None
        assert (use.read, problem) == (True, None)
        assert pages.paths == ["/metrics?autoload=false&model=acme%2Fm"]


class TestPoller:
    def test_processes_at_the_same_address_count_once(self, serve: Callable[..., Pages]) -> None:
        pages = serve(vllm(5.0))
        own = model_server(pages.port)
        poller = Poller(HOST, lambda: (own, own._replace(process=Process(key_of(os.getppid()), "vllm"))))
        poller.poll()
        assert len(pages.paths) == 1

    def test_a_worker_has_the_command_line_of_its_server(self, serve: Callable[..., Pages]) -> None:
        """A fork that does not listen itself: neither counted again nor a problem."""
        pages = serve(vllm(5.0))
        with subprocess.Popen(["sleep", "infinity"]) as worker:
            try:
                own = model_server(pages.port)
                poller = Poller(HOST, lambda: (own, own._replace(process=Process(key_of(worker.pid), "vllm"))))
                poller.poll()
                uses, problems = poller.take()
            finally:
                worker.kill()
        assert [use.process for use in uses] == [own.process]
        assert problems == ()

    def test_a_process_that_ended_is_not_read(self, serve: Callable[..., Pages]) -> None:
        pages = serve(vllm(5.0))
        gone = model_server(pages.port, process=Process(own_key()._replace(start_ticks=1), "vllm"))
        Poller(HOST, lambda: (gone,)).poll()
        assert pages.paths == []

    def test_those_due_within_a_second_are_read_together(self, serve: Callable[..., Pages]) -> None:
        pages = serve(vllm(5.0))
        moment = [HOST.clock()]
        poller = Poller(Host(clock=lambda: moment[0]), lambda: (model_server(pages.port),))
        read = []
        for seconds in (0.0, POLL_SECONDS - 1.5, 0.6, POLL_SECONDS - 1.5, 1.0):
            moment[0] += seconds
            poller.poll()
            read.append(len(pages.paths))
        assert read == [1, 1, 2, 2, 3]

    def test_a_new_server_is_read_at_once(self, serve: Callable[..., Pages]) -> None:
        first, second = serve(vllm(5.0)), serve(vllm(5.0))
        servers = [model_server(first.port)]
        poller = Poller(HOST, lambda: tuple(servers))
        try:
            poller.take()
            wait_for(lambda: first.paths, "the first page")
            servers.append(model_server(second.port, process=Process(key_of(os.getppid()), "vllm")))
            began = HOST.clock()
            poller.take()
            wait_for(lambda: second.paths, "the page of the new server")
            assert len(first.paths) == 1 or HOST.clock() - began > POLL_SECONDS / 2
        finally:
            poller.close()

    def test_what_a_server_counted_last_is_not_lost_with_it(self, serve: Callable[..., Pages]) -> None:
        values = iter((100.0, 140.0))
        servers = [model_server(serve(lambda _: vllm(next(values))).port)]
        moment = [HOST.clock()]
        poller = Poller(Host(clock=lambda: moment[0]), lambda: tuple(servers))
        poller.poll()
        moment[0] += 5.0
        poller.poll()
        servers.clear()
        poller.poll()
        poller._thread = threading.current_thread()
        uses, problems = poller.take()
        assert [use.counts for use in uses] == [{"output": 40.0}]
        assert poller.take() == ((), ())
        assert problems == ()


def test_reading_takes_less_than_a_hundredth_of_a_core(serve: Callable[..., Pages]) -> None:
    spent = iter((10.0, 10.4))
    server = model_server(serve(vllm(5.0)).port)
    assert Poller(Host(work=lambda: next(spent)), lambda: (server,)).poll() == pytest.approx(50.0)


def test_a_server_that_hangs_delays_no_tick_and_no_other_server(serve: Callable[..., Pages]) -> None:
    silent, good = serve(lambda _: None), serve(vllm(5.0))
    source = InferenceSource(HOST, lambda: (model_server(silent.port), model_server(good.port)))
    try:
        assert source.read(0.0).tokens == ()
        # Both are this process: the last of them is read, the reading comes without the other's answer.
        wait_for(lambda: any(use.read for use in (source.read(0.0).tokens or ())), "the server that responds")
    finally:
        source.close()


def test_without_servers_there_is_no_thread() -> None:
    before = threading.active_count()
    source = InferenceSource(HOST)
    assert source.read(0.0).tokens == ()
    assert threading.active_count() == before
    source.close()
