"""Tell systemd that the exporter is ready, and that it still samples (sd_notify(3), sd_watchdog_enabled(3))."""

from __future__ import annotations

import contextlib
import socket
import time
from collections.abc import Callable, Mapping


class Notifier:
    """Called at the end of every tick: the first call says ``READY=1``, later ones ``WATCHDOG=1``.

    So the unit is started when a scrape can be answered, and is started again when sampling has stopped. Without
    systemd (no ``NOTIFY_SOCKET``) nothing is said, and a manager that does not listen is no reason to fail.
    """

    def __init__(self, environ: Mapping[str, str], clock: Callable[[], float] = time.monotonic) -> None:
        self._path = environ.get("NOTIFY_SOCKET", "")
        microseconds = environ.get("WATCHDOG_USEC", "")
        self._period = int(microseconds) / 2e6 if microseconds.isdigit() else None
        self._clock = clock
        self._said_at: float | None = None

    def observe(self, _: object) -> None:
        """A tick has ended and its snapshot is published."""
        now = self._clock()
        if self._said_at is None:
            self._say(b"READY=1", now)
        elif self._period is not None and now - self._said_at >= self._period:
            self._say(b"WATCHDOG=1", now)

    def _say(self, word: bytes, now: float) -> None:
        if not self._path:
            return
        # "@" stands for the NUL of an abstract socket's name.
        address = f"\0{self._path[1:]}" if self._path.startswith("@") else self._path
        # What is not heard, as while the manager's queue is full, is said again after the next tick.
        with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as to:
            to.setblocking(False)
            to.sendto(word, address)
            self._said_at = now
