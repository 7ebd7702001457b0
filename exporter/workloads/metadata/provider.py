"""A metadata provider that watches one feed in a background thread and reconnects with backoff."""

from __future__ import annotations

import logging
import random
import threading
from collections import Counter
from collections.abc import Callable, Collection
from typing import Protocol

from ...host import Host
from ...records import REASONS, Reason, SourceHealth, Unavailable, Workload
from .cache import MetadataCache
from .container_metadata import ContainerMetadata

_log = logging.getLogger("metadata")

RETRY_FIRST_SECONDS = 1.0
RETRY_MAX_SECONDS = 60.0

OnProgress = Callable[[float], None]
"""Called after each valid response or event, with the seconds that the request took; 0.0 for an event."""


class Feed(Protocol):
    """A server that metadata is read from."""

    @property
    def name(self) -> str:
        """Name in labels and ``doctor``; also the runtime of the workloads that it covers."""

    def watch(self, cache: MetadataCache, on_progress: OnProgress, stop: threading.Event) -> None:
        """Write every change into the cache until ``stop`` is set. Raises `Unavailable`."""

    def interrupt(self) -> None:
        """End a blocking read; called from another thread."""


class BackgroundProvider:
    """`MetadataProvider` of one feed. The thread starts on the first call, so an unused provider costs nothing."""

    def __init__(self, feed: Feed, host: Host, retry_first_seconds: float = RETRY_FIRST_SECONDS) -> None:
        self.name = feed.name
        self._feed = feed
        self._host = host
        self._cache = MetadataCache(host.clock)
        self._retry_first_seconds = retry_first_seconds
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self._failures: Counter[Reason] = Counter()
        self._last_success = 0.0
        self._read_seconds = 0.0
        self._up: bool | None = None
        self._health = self._describe(None)

    # --- called by the tick ---------------------------------------------------------------------------

    def find(self, workload: Workload) -> ContainerMetadata | None:
        """Metadata of a workload: of its container, else of its pod."""
        if workload.runtime != self.name:
            return None
        self._start()
        return self._cache.find(workload.container_id) or self._cache.find(workload.pod_uid)

    def expects(self, workload: Workload) -> bool:
        """Whether this is a container or pod of the feed's runtime without metadata so far."""
        if workload.runtime != self.name:
            return False
        self._start()
        return self._cache.find(workload.container_id or workload.pod_uid) is None

    def changed(self) -> Collection[str]:
        """Ids of containers and pods whose metadata is new or different since the last call."""
        self._start()
        return self._cache.changed()

    def health(self) -> SourceHealth:
        """Health of the feed."""
        self._start()
        return self._health

    def close(self) -> None:
        """Stop the thread, without waiting for it to end."""
        self._stop.set()
        self._feed.interrupt()

    # --- background thread ----------------------------------------------------------------------------

    def _start(self) -> None:
        if self._thread is None and not self._stop.is_set():
            self._thread = threading.Thread(target=self._run, name=f"metadata-{self.name}", daemon=True)
            self._thread.start()

    def _run(self) -> None:
        retry_seconds = self._retry_first_seconds
        while not self._stop.is_set():
            began = self._host.clock()
            try:
                self._feed.watch(self._cache, self._on_progress, self._stop)
            except Unavailable as error:
                self._down(error)
            except Exception as error:  # noqa: BLE001 - no exception of a feed may end the thread
                self._down(Unavailable("error", f"{type(error).__name__}: {error}"), error)
            if self._host.clock() - began > retry_seconds:  # the connection had worked
                retry_seconds = self._retry_first_seconds
            # Jitter keeps the nodes of a cluster from reconnecting at the same moment.
            self._stop.wait(retry_seconds * random.uniform(0.5, 1.0))
            retry_seconds = min(2 * retry_seconds, RETRY_MAX_SECONDS)

    def _on_progress(self, seconds: float) -> None:
        self._last_success = self._host.wall()
        self._read_seconds += seconds
        if self._up is False:
            _log.info("metadata provider is back", extra={"source": self.name})
        self._up = True
        self._health = self._describe(None)
        self._cache.expire()

    def _down(self, error: Unavailable, cause: Exception | None = None) -> None:
        if self._stop.is_set():  # close() interrupted the feed
            return
        self._failures[error.reason] += 1
        before = self._health
        if self._up is not False or before.reason != error.reason:
            _log.warning(
                "metadata provider is not available",
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
