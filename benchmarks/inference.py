"""What it costs to read eight model servers: CPU time of a round of pages, and memory, in a process of its own."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import psutil

from exporter.host import Host
from exporter.records import Process, ProcessKey
from exporter.sources.inference.poller import Poller
from exporter.sources.inference.reader import POLL_SECONDS
from exporter.workloads.protocol import ModelServer
from tests.support.repository import REPOSITORY

from .table import show, verdict

SERVERS = 8
ROUNDS = 60
GOAL_PERCENT = 1.0
GOAL_MIB = 4.0
PAGES = REPOSITORY / "tests/sources/inference/pages"
PADDING = 1000
"""Lines of histograms that a page has besides, as vLLM's have."""


def main() -> None:
    """Measure with pages of vLLM, of a thousand lines each, and of the longest that is read."""
    rows = []
    cost = 0.0
    grown = 0.0
    for name, lines in (("vLLM", PADDING), ("vLLM with 20 times as many", 20 * PADDING)):
        text = (PAGES / "vllm-0.32.0.prom").read_text(encoding="utf-8")
        buckets = "".join(
            f'vllm:e2e_request_latency_seconds_bucket{{engine="0",le="{number}.0",model_name="chat"}} 42.0\n'
            for number in range(lines)
        )
        with _Servers((text + buckets).encode()) as ports:
            output = subprocess.run(
                [sys.executable, "-m", "benchmarks.inference", str(os.getpid()), *map(str, ports)],
                cwd=REPOSITORY,
                stdout=subprocess.PIPE,
                text=True,
                check=True,
            ).stdout
        milliseconds, pause, mebibytes = map(float, output.split())
        every = max(POLL_SECONDS, pause)
        cost, grown = max(cost, milliseconds / 10 / every), max(grown, mebibytes)
        size = f"{(len(text) + len(buckets)) / 1024:.0f} KiB"
        share = f"{milliseconds / 10 / every:.2f} %"
        rows.append([name, size, f"{milliseconds:.1f} ms", f"{every:.1f} s", share, f"{mebibytes:.1f} MiB"])
    show(
        f"{SERVERS} model servers",
        ("page", "size", "CPU time of a round", "every", "of a core", "memory"),
        rows,
    )
    print(
        f"goals: at most {GOAL_PERCENT:g} % of a core: {verdict(cost <= GOAL_PERCENT)}; "
        f"at most {GOAL_MIB:g} MiB: {verdict(grown <= GOAL_MIB)}"
    )


class _Servers:
    """Servers of one page in this process, on ports of their own."""

    def __init__(self, body: bytes) -> None:
        head = f"HTTP/1.0 200 OK\r\nContent-Length: {len(body)}\r\n\r\n"
        self._answer = head.encode() + body
        self._sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(SERVERS)]

    def __enter__(self) -> list[int]:
        for listener in self._sockets:
            threading.Thread(target=self._serve, args=(listener,), daemon=True).start()
        return [int(listener.getsockname()[1]) for listener in self._sockets]

    def __exit__(self, *_: object) -> None:
        for listener in self._sockets:
            listener.close()

    def _serve(self, listener: socket.socket) -> None:
        while True:
            try:
                connection, _ = listener.accept()
                with connection:
                    connection.recv(65536)
                    connection.sendall(self._answer)
            except OSError:
                return


def _servers(pid: int, ports: list[int]) -> Iterator[ModelServer]:
    fields = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()
    for number, port in enumerate(ports):
        # The poller knows a server by its process; here all are threads of one, told apart by their ids.
        thread = sorted(int(task.name) for task in Path(f"/proc/{pid}/task").iterdir())[number]
        start = int(Path(f"/proc/{thread}/stat").read_bytes().rpartition(b")")[2].split()[19]) if number else fields[19]
        yield ModelServer(Process(ProcessKey(thread, int(start)), "vllm"), None, "vllm", port)


def measure(pid: int, ports: list[int]) -> None:
    """Read all servers again and again; print a round's CPU time in ms, the pause after it in s, and MiB of memory."""
    from exporter.exposition.metrics import render  # noqa: F401, PLC0415 - what the exporter has loaded anyway

    moment = [Host().clock()]
    servers = tuple(_servers(pid, ports))
    before = psutil.Process().memory_info().rss
    poller = Poller(Host(clock=lambda: moment[0]), lambda: servers)
    poller.poll()
    uses, problems = _take(poller)
    assert len(uses) == SERVERS, problems
    began = time.process_time()
    pause = 0.0
    for _ in range(ROUNDS):
        moment[0] += POLL_SECONDS
        pause += poller.poll()
        _take(poller)
    used = time.process_time() - began
    grown = psutil.Process().memory_info().rss - before
    print(1000 * used / ROUNDS, pause / ROUNDS, grown / (1 << 20))


def _take(poller: Poller) -> tuple[tuple[object, ...], tuple[object, ...]]:
    poller._thread = threading.current_thread()  # the rounds are made here and not by its thread
    return poller.take()


if __name__ == "__main__":
    measure(int(sys.argv[1]), [int(port) for port in sys.argv[2:]])
