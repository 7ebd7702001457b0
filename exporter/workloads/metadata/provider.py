"""A metadata provider that watches one feed in a background thread and reconnects with backoff."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Collection
from dataclasses import replace
from random import Random
from typing import Protocol

from ...availability.tracker import RETRY_FIRST_SECONDS, AvailabilityTracker, Backoff
from ...host import Host
from ...records import UNKNOWN_RUNTIME, SourceHealth, Workload
from .cache import MetadataCache
from .container_metadata import ContainerMetadata

_KUBERNETES = "kubernetes"
_log = logging.getLogger("metadata")

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
        self._backoff = Backoff(retry_first_seconds)
        self._random = Random()
        self._stop = threading.Event()
        self._retry = threading.Event()
        self._thread: threading.Thread | None = None
        self._availability = AvailabilityTracker(feed.name, "metadata provider", _log)
        self._health = self._availability.health()

    # --- called by the tick ---------------------------------------------------------------------------

    def find(self, workload: Workload) -> ContainerMetadata | None:
        """Metadata of a workload: of its container, else of its pod.

        A container has one engine, the one that knows its id: a path such as ``/default/ID`` may be named by anyone.
        Only the cluster knows its pods, whichever engine runs them.
        """
        covered = workload.runtime in (self.name, UNKNOWN_RUNTIME)
        if not covered and _KUBERNETES in (workload.runtime, self.name):
            return None
        self._start()
        found = self._cache.find(workload.container_id) or self._cache.find(workload.pod_uid)
        return found if found is None or workload.runtime == self.name else replace(found, runtime=self.name)

    def expects(self, workload: Workload) -> bool:
        """Whether this is a container or pod of the feed's runtime without metadata so far."""
        if workload.runtime not in (self.name, UNKNOWN_RUNTIME):
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

    def retry(self) -> None:
        """Retry at once if it is down; while an attempt is in progress, after that has failed."""
        if self._availability.up is False:
            self._retry.set()

    def close(self) -> None:
        """Stop the thread, without waiting for it to end."""
        self._stop.set()
        self._retry.set()
        self._feed.interrupt()

    # --- background thread ----------------------------------------------------------------------------

    def _start(self) -> None:
        if self._thread is None and not self._stop.is_set():
            self._thread = threading.Thread(target=self._run, name=f"metadata-{self.name}", daemon=True)
            self._thread.start()

    def _run(self) -> None:
        while not self._stop.is_set():
            began = self._host.clock()
            try:
                self._feed.watch(self._cache, self._on_progress, self._stop)
            except Exception as error:  # noqa: BLE001 - no exception of a feed may end the thread
                self._on_failure(error)
            if self._stop.is_set():
                return
            if self._host.clock() - began > self._backoff.seconds:  # the connection had worked
                self._backoff.reset()
            # Jitter keeps the nodes of a cluster from reconnecting at the same moment.
            if self._retry.wait(self._backoff.next() * self._random.uniform(0.5, 1.0)):
                self._retry.clear()
                self._backoff.reset()

    def _on_progress(self, seconds: float) -> None:
        self._availability.add_read_seconds(seconds)
        if self._availability.up is False:
            self._retry.clear()
        self._availability.succeeded(self._host.wall())
        self._health = self._availability.health()
        self._cache.expire()

    def _on_failure(self, error: Exception) -> None:
        if self._stop.is_set():  # close() interrupted the feed
            return
        self._availability.failed(error)
        self._health = self._availability.health()
