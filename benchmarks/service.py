"""The real exporter as a process of its own on a free loopback port, and what the kernel says of its use."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass

from tests.support.program import free_port


def cpu_seconds(pid: int) -> float:
    """CPU time of a process so far, all threads, from its own clock (clock_getcpuclockid(3))."""
    return time.clock_gettime_ns((~pid << 3) | 2) * 1e-9


@dataclass(frozen=True, slots=True)
class Service:
    """A process that serves metrics at ``url``."""

    pid: int
    url: str

    @classmethod
    @contextlib.contextmanager
    def started(cls, *flags: str) -> Iterator[Service]:
        """Start the exporter with these flags, wait until it answers, end it."""
        port = free_port()
        command = [sys.executable, "-m", "exporter", f"--web.listen-address=127.0.0.1:{port}", "--log.level=error"]
        with served([*command, *flags], f"http://127.0.0.1:{port}/metrics") as service:
            yield service

    def scrape(self) -> bytes:
        """One scrape, on a connection of its own."""
        with urllib.request.urlopen(self.url, timeout=10) as answer:
            return bytes(answer.read())

    def cpu_seconds(self) -> float:
        """CPU time so far."""
        return cpu_seconds(self.pid)

    def resident_bytes(self) -> int:
        """Resident memory now."""
        with open(f"/proc/{self.pid}/statm", encoding="ascii") as file:
            return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


@contextlib.contextmanager
def served(command: list[str], url: str, *, silent: bool = False) -> Iterator[Service]:
    """Start any exporter, wait until it answers at ``url``, end it; ``silent`` drops what it says on stderr."""
    stderr = subprocess.DEVNULL if silent else None
    with subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=stderr) as process:
        try:
            service = Service(process.pid, url)
            deadline = time.monotonic() + 20.0
            while True:
                try:
                    service.scrape()
                    break
                except (urllib.error.URLError, ConnectionError):
                    if process.poll() is not None or time.monotonic() > deadline:
                        raise RuntimeError(f"{command[0]} does not answer at {url}") from None
                    time.sleep(0.05)
            yield service
        finally:
            process.terminate()
