"""The program as operators meet it: a real process with its exit status, its signals, its port and its log."""

from __future__ import annotations

import contextlib
import json
import os
import queue
import signal
import socket
import ssl
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

from prometheus_client.parser import text_string_to_metric_families

from tests.support.patience import patience
from tests.support.repository import REPOSITORY

COMMAND = [sys.executable, "-W", "error", "-m", "exporter"]
FAST = ["--sample.interval", "100ms", "--web.listen-address", "127.0.0.1:0", "--log.format", "json"]
ENVIRONMENT = {key: value for key, value in os.environ.items() if not key.startswith("AI_ENERGY_")}


def run(*flags: str, environ: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    """Run the program to its end."""
    return subprocess.run(
        [*COMMAND, *flags],
        cwd=REPOSITORY,
        env=ENVIRONMENT | (environ or {}),
        capture_output=True,
        text=True,
        timeout=patience(),
        check=False,
    )


def free_port() -> int:
    """A port of this machine that nobody listens on now."""
    with socket.create_server(("127.0.0.1", 0)) as found:
        return int(found.getsockname()[1])


def children_of(pid: int) -> Iterator[int]:
    """Pids of its children: the kernel has those of each thread apart."""
    for children in Path(f"/proc/{pid}/task").glob("*/children"):
        with contextlib.suppress(OSError):  # the thread ended meanwhile
            yield from map(int, children.read_text(encoding="ascii").split())


class Running:
    """The program at work, and what it logged so far."""

    def __init__(self, flags: tuple[str, ...]) -> None:
        self.process = subprocess.Popen(
            [*COMMAND, *FAST, *flags], cwd=REPOSITORY, env=ENVIRONMENT, stderr=subprocess.PIPE, text=True
        )
        self.lines: list[str] = []
        self.tls: ssl.SSLContext | None = None
        self.headers: dict[str, str] = {}
        self._queue: queue.SimpleQueue[str] = queue.SimpleQueue()
        threading.Thread(target=self._read, daemon=True).start()
        self.url = next(word for word in self.logged("listens on").split() if word.startswith("http"))

    def _read(self) -> None:
        assert self.process.stderr is not None
        with self.process.stderr as stream:
            for line in stream:
                self._queue.put(line)

    def logged(self, part: str) -> str:
        """Wait for a log line with this text and return its message."""
        deadline = time.monotonic() + patience()
        while True:
            try:
                line = self._queue.get(timeout=max(0.01, deadline - time.monotonic()))
            except queue.Empty:
                raise AssertionError(f"never logged {part!r}, but: {''.join(self.lines)}") from None
            self.lines.append(line)
            message = str(json.loads(line)["msg"])
            if part in message:
                return message

    def samples(self) -> dict[str, float]:
        """Sum of each family's samples, as soon as there is a scrape."""
        deadline = time.monotonic() + patience()
        while True:
            try:
                request = urllib.request.Request(self.url, headers=self.headers)
                with urllib.request.urlopen(request, timeout=patience(), context=self.tls) as answer:
                    text = answer.read().decode()
                break
            except urllib.error.HTTPError as error:
                error.close()
                if error.code != 503 or time.monotonic() > deadline:
                    raise
                time.sleep(0.05)
        sums: dict[str, float] = {}
        for family in text_string_to_metric_families(text):
            for sample in family.samples:
                sums[sample.name] = sums.get(sample.name, 0.0) + sample.value
        return sums

    def wait_for(self, name: str, condition: Callable[[float], bool]) -> None:
        """Scrape until a family's sum is as wanted."""
        deadline = time.monotonic() + patience()
        while not condition(found := self.samples().get(name, 0.0)):
            assert time.monotonic() < deadline, f"{name} stays {found}"
            time.sleep(0.05)

    def stop(self, number: int = signal.SIGTERM) -> tuple[int, float]:
        """Exit status, and the seconds it took to stop."""
        began = time.monotonic()
        self.process.send_signal(number)
        status = self.process.wait(patience())
        return status, time.monotonic() - began
