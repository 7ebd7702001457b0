"""A directory with a thread of its own, which keeps to one feed: tries again with backoff and says how it is doing."""

from __future__ import annotations

import logging
import random
import threading
from collections import Counter
from collections.abc import Callable, Collection
from typing import Protocol

from ...host import Host
from ...records import REASONS, Reason, SourceHealth, Unavailable, Workload
from .cache import FactBook
from .container_metadata import Facts

_log = logging.getLogger("directory")

RETRY_FIRST_SECONDS = 1.0
RETRY_MOST_SECONDS = 60.0

Heard = Callable[[float], None]
"""Called with the seconds it took, 0.0 if it came by itself, whenever the other side said something sensible."""


class Feed(Protocol):
    """Where facts come from."""

    @property
    def name(self) -> str:
        """Name in labels and ``doctor``; also the runtime of the workloads it knows."""

    def follow(self, book: FactBook, heard: Heard, stop: threading.Event) -> None:
        """Write what is new into the book until told to stop. Raises `Unavailable`."""

    def interrupt(self) -> None:
        """End a wait for the other side; called from another thread."""


class FeedDirectory:
    """`Directory` of one feed. Its thread starts with the first question, so that merely making one does nothing."""

    def __init__(self, feed: Feed, host: Host, retry_first_seconds: float = RETRY_FIRST_SECONDS) -> None:
        self.name = feed.name
        self._feed = feed
        self._host = host
        self._book = FactBook(host.clock)
        self._retry_first_seconds = retry_first_seconds
        self._stop = threading.Event()
        self._retry = threading.Event()
        self._thread: threading.Thread | None = None
        self._failures: Counter[Reason] = Counter()
        self._last_success = 0.0
        self._read_seconds = 0.0
        self._up: bool | None = None
        self._health = self._describe(None)

    # --- asked from the tick --------------------------------------------------------------------------

    def find(self, workload: Workload) -> Facts | None:
        """Facts about a workload: its container's, else its pod's."""
        if workload.runtime != self.name:
            return None
        self._start()
        return self._book.find(workload.container_id) or self._book.find(workload.pod_uid)

    def expects(self, workload: Workload) -> bool:
        """Whether this is a container or pod that the other side has not told of yet."""
        if workload.runtime != self.name:
            return False
        self._start()
        return self._book.find(workload.container_id or workload.pod_uid) is None

    def changed(self) -> Collection[str]:
        """Ids of containers and pods whose facts came or changed since the last call."""
        self._start()
        return self._book.changed()

    def health(self) -> SourceHealth:
        """How it is now."""
        self._start()
        return self._health

    def retry(self) -> None:
        """Try again at once if it is down: after an attempt that is under way, should that fail."""
        if self._up is False:
            self._retry.set()

    def close(self) -> None:
        """End the thread; does not wait for it."""
        self._stop.set()
        self._retry.set()
        self._feed.interrupt()

    # --- its thread -----------------------------------------------------------------------------------

    def _start(self) -> None:
        if self._thread is None and not self._stop.is_set():
            self._thread = threading.Thread(target=self._work, name=f"directory-{self.name}", daemon=True)
            self._thread.start()

    def _work(self) -> None:
        retry_seconds = self._retry_first_seconds
        while not self._stop.is_set():
            began = self._host.clock()
            try:
                self._feed.follow(self._book, self._heard, self._stop)
            except Unavailable as error:
                self._down(error)
            except Exception as error:  # noqa: BLE001 - whatever a feed raises must not end the thread
                self._down(Unavailable("error", f"{type(error).__name__}: {error}"), error)
            if self._stop.is_set():
                return
            if self._host.clock() - began > retry_seconds:  # it had worked in between
                retry_seconds = self._retry_first_seconds
            # Jittered, so that the nodes of a cluster do not all come back at once.
            if self._retry.wait(retry_seconds * random.uniform(0.5, 1.0)):
                self._retry.clear()
                retry_seconds = self._retry_first_seconds
            else:
                retry_seconds = min(2 * retry_seconds, RETRY_MOST_SECONDS)

    def _heard(self, seconds: float) -> None:
        self._last_success = self._host.wall()
        self._read_seconds += seconds
        if self._up is False:
            _log.info("names are back", extra={"source": self.name})
            self._retry.clear()
        self._up = True
        self._health = self._describe(None)
        self._book.expire()

    def _down(self, error: Unavailable, cause: Exception | None = None) -> None:
        if self._stop.is_set():  # we hung up ourselves
            return
        self._failures[error.reason] += 1
        before = self._health
        if self._up is not False or before.reason != error.reason:
            _log.warning(
                "names are not available",
                exc_info=cause,
                extra={"source": self.name, "reason": error.reason, "cause": error.message, "fix": error.fix},
            )
        self._up = False
        self._health = self._describe(error)

    def _describe(self, error: Unavailable | None) -> SourceHealth:
        return SourceHealth(
            self.name,
            bool(self._up),
            None if error is None else error.reason,
            "" if error is None else error.message,
            "" if error is None else error.fix,
            {reason: self._failures[reason] for reason in REASONS},
            self._last_success,
            self._read_seconds,
        )
