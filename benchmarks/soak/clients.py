"""Clients of the soak: an honest one that checks what it gets, and crowds of rude ones."""

from __future__ import annotations

import contextlib
import math
import socket
import threading
from collections.abc import Iterator, Sequence
from urllib.parse import urlsplit

from tests.support.live import Audit, Exporter, Scrape

from .background import again

_REQUEST = b"GET /metrics HTTP/1.1\r\nHost: soak\r\n\r\n"
_SMALL_BYTES = 2048
SILENT, STARVING = 100, 10
"""Rude clients at once and per exporter that send half a request, and that ask for much and read nothing."""


class Inspector:
    """Holds every scrape of an exporter, and of those that go on from its state file, against the promises."""

    def __init__(self, name: str) -> None:
        self._name = name
        self.last = Scrape()
        self.scrapes = 0
        self._audit = Audit("energy_node_joules_total")
        self._broken: list[str] = []

    @property
    def broken(self) -> list[str]:
        """What was promised and not kept."""
        return [f"{self._name}: {each}" for each in self._broken + self._audit.broken]

    def hear(self, scrape: Scrape) -> None:
        """Check one scrape against the one before: it conserves, has no NaN, and no counter fell."""
        self._audit.hear(scrape)
        for key, value in scrape.items():
            if math.isnan(value):
                self._broken.append(f"{key} is NaN")
            elif _is_count(key[0]) and value < self.last.get(key, 0.0):
                self._broken.append(f"{key} fell from {self.last[key]} to {value}")
        self.last = scrape
        self.scrapes += 1

    def fail(self, problem: str) -> None:
        """Something else was not as promised."""
        self._broken.append(problem)

    def restarted(self, *, kept: bool) -> None:
        """The next scrape is of another process: joules go on if its state was ``kept``, all else starts anew."""
        self.last = Scrape()
        if not kept:
            self._broken += self._audit.broken
            self._audit = Audit("energy_node_joules_total")


def _is_count(name: str) -> bool:
    """Whether it is a counter, but not of joules: those the audit holds, over restarts too."""
    return name.endswith("_total") and not name.endswith("_joules_total")


class Honest(threading.Thread):
    """Scrapes again and again, as Prometheus does; the first time at once."""

    def __init__(self, exporter: Exporter, inspector: Inspector, every_seconds: float) -> None:
        super().__init__(daemon=True)
        self._exporter = exporter
        self._inspector = inspector
        self._every_seconds = every_seconds
        self._over = threading.Event()
        inspector.hear(exporter.scrape())
        self.start()

    def stop(self) -> None:
        """No more scrapes."""
        self._over.set()
        self.join()

    def run(self) -> None:
        """Scrape until told to stop, or until it fails."""
        while not self._over.wait(self._every_seconds):
            try:
                self._inspector.hear(self._exporter.scrape())
            except Exception as error:  # noqa: BLE001 - it is told in the verdict, whatever it is
                self._inspector.fail(f"a scrape failed: {type(error).__name__}: {error}")
                return


@contextlib.contextmanager
def rude(urls: Sequence[str], problems: list[str]) -> Iterator[None]:
    """Let crowds at these servers that hang in mid-request, leave in mid-answer, or never read."""
    addresses = [(str(parts.hostname), int(parts.port or 0)) for parts in map(urlsplit, urls)]
    with contextlib.ExitStack() as stack:
        for address in addresses:
            for _ in range(SILENT):
                stack.enter_context(_connected(address)).sendall(_REQUEST[:20])
            for _ in range(STARVING):
                starving = stack.enter_context(_connected(address))
                starving.setblocking(False)
                with contextlib.suppress(BlockingIOError):
                    starving.send(_REQUEST * 200)
        with again(lambda: _leave(addresses), 0.02, problems):
            yield


def _leave(addresses: Sequence[tuple[str, int]]) -> None:
    for address in addresses:
        with contextlib.suppress(OSError), _connected(address) as client:
            client.sendall(_REQUEST)
            client.recv(100)


def _connected(address: tuple[str, int]) -> socket.socket:
    client = socket.socket()
    client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _SMALL_BYTES)
    client.settimeout(5)
    try:
        client.connect(address)
    except OSError:
        client.close()
        raise
    return client
