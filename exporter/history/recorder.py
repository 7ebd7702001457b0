"""Hands snapshots to the history, some each hour, in a thread that no tick waits for."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable

from ..snapshot import Snapshot
from .schema import HOUR_SECONDS

_FIRST_SECONDS = 60.0
_EVERY_SECONDS = 300.0
_CLOSE_SECONDS = 1.0
_MOST_WAITING = 2


class Recorder:
    """Its thread calls ``record`` for the first snapshot, one in five minutes, the last of each hour and the very last.

    Then it calls ``close``. `observe` takes no time.
    """

    def __init__(self, record: Callable[[Snapshot], None], close: Callable[[], None]) -> None:
        self._record = record
        self._close = close
        self._newest: Snapshot | None = None
        self._due_at = float("-inf")
        self._queue: queue.SimpleQueue[Snapshot | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="history", daemon=True)
        self._thread.start()

    def observe(self, snapshot: Snapshot) -> None:
        """Take note of a snapshot. Called by the sampler, with every one."""
        before, self._newest = self._newest, snapshot
        if before is not None and before.taken_at // HOUR_SECONDS != snapshot.taken_at // HOUR_SECONDS:
            self._request(before)
        elif snapshot.monotonic_at >= self._due_at:
            self._due_at = snapshot.monotonic_at + (_FIRST_SECONDS if before is None else _EVERY_SECONDS)
            self._request(snapshot)

    def close(self, timeout_seconds: float = _CLOSE_SECONDS) -> None:
        """Hand over the newest snapshot and wait for the thread, which may hang with its disk."""
        if self._newest is not None:
            self._request(self._newest)
        self._queue.put(None)
        self._thread.join(timeout_seconds)

    def _request(self, snapshot: Snapshot) -> None:
        if self._queue.qsize() < _MOST_WAITING:  # else the disk does not answer: a later snapshot has it all
            self._queue.put(snapshot)

    def _run(self) -> None:
        while (snapshot := self._queue.get()) is not None:
            self._record(snapshot)
        self._close()
