"""Readiness and watchdog notifications for systemd (sd_notify(3), sd_watchdog_enabled(3))."""

from __future__ import annotations

import contextlib
import socket
import time
from collections.abc import Callable, Mapping


class Notifier:
    """Sends ``READY=1`` after the first tick, then ``WATCHDOG=1`` twice per watchdog period.

    The unit becomes active when a scrape can be served, and systemd restarts it when sampling has stopped. Without
    ``NOTIFY_SOCKET`` nothing is sent. Errors of the socket are ignored.
    """

    def __init__(self, environ: Mapping[str, str], clock: Callable[[], float] = time.monotonic) -> None:
        self._path = environ.get("NOTIFY_SOCKET", "")
        microseconds = environ.get("WATCHDOG_USEC", "")
        self._period = int(microseconds) / 2e6 if microseconds.isdigit() else None
        self._clock = clock
        self._sent_at: float | None = None

    def observe(self, _: object) -> None:
        """Send what is due; called when a tick has ended and its snapshot is published."""
        now = self._clock()
        if self._sent_at is None:
            self._send(b"READY=1", now)
        elif self._period is not None and now - self._sent_at >= self._period:
            self._send(b"WATCHDOG=1", now)

    def _send(self, message: bytes, now: float) -> None:
        if not self._path:
            return
        # A leading "@" stands for the NUL byte of an abstract socket name.
        address = f"\0{self._path[1:]}" if self._path.startswith("@") else self._path
        # A message that cannot be sent, for example because the manager's queue is full, is sent after the next tick.
        with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
            sender.setblocking(False)
            sender.sendto(message, address)
            self._sent_at = now
