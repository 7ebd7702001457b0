"""Polls one server in a thread of its own, and keeps its last answer."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from random import Random
from typing import Generic, TypeVar

from ...availability.tracker import AvailabilityTracker, Backoff
from ...network.http_client import HttpStatusError
from ...records import SourceHealth
from .protocol import Feed

RETRY_SECONDS = (30.0, 3600.0)
"""First and longest time before a service is asked again."""

LONGEST_WAIT_SECONDS = 86_400.0
"""The longest Retry-After that is followed."""

_log = logging.getLogger("impact")
_T = TypeVar("_T")


class Poller(Generic[_T]):
    """The last answer of a feed. ``latest``, ``revision`` and `health` may be read from any thread.

    ``wall`` returns Unix seconds. A failure is retried after ``retry_seconds[0]``, then after twice as long each time,
    up to ``retry_seconds[1]``, and never before the time that the server asks for; ``latest`` stays as it is.
    """

    def __init__(
        self,
        feed: Feed[_T],
        wall: Callable[[], float] = time.time,
        retry_seconds: tuple[float, float] = RETRY_SECONDS,
    ) -> None:
        self.name = feed.name
        self.latest: _T | None = None
        self.revision = 0
        self._feed = feed
        self._wall = wall
        self._backoff = Backoff(*retry_seconds)
        self._random = Random()
        self._stop = threading.Event()
        self._retry = threading.Event()
        self._thread: threading.Thread | None = None
        self._availability = AvailabilityTracker(feed.name, "feed", _log)
        self._health = self._availability.health()

    def start(self) -> None:
        """Start the thread, if it was not started yet."""
        if self._thread is None and not self._stop.is_set():
            self._thread = threading.Thread(target=self._run, name=f"impact-{self.name}", daemon=True)
            self._thread.start()

    def health(self) -> SourceHealth:
        """Health of the feed; not up before the first answer."""
        return self._health

    def retry(self) -> None:
        """Retry at once if it is down."""
        if self._availability.up is False:
            self._retry.set()

    def close(self) -> None:
        """Stop the thread, without waiting for it to end."""
        self._stop.set()
        self._retry.set()
        self._feed.interrupt()

    def _run(self) -> None:
        while not self._stop.is_set():
            # Jitter keeps the nodes of a fleet from asking at the same moment; no service is asked more often.
            if self._retry.wait(self._read() * self._random.uniform(1.0, 1.2)):
                self._retry.clear()
                self._backoff.reset()

    def _read(self) -> float:
        """Ask once. Returns the seconds until the next request."""
        began = time.monotonic()
        try:
            answer = self._feed.read(self._wall())
        except Exception as error:  # noqa: BLE001 - no exception of a feed may end the thread
            if not self._stop.is_set():
                self._availability.failed(error)
            asked = error.retry_after_seconds if isinstance(error, HttpStatusError) else 0.0
            wait = max(self._backoff.next(), min(asked, LONGEST_WAIT_SECONDS))
        else:
            self.latest = answer
            self.revision += 1
            self._backoff.reset()
            self._availability.succeeded(self._wall())
            wait = self._feed.poll_seconds
        self._availability.add_read_seconds(time.monotonic() - began)
        self._health = self._availability.health()
        return wait
