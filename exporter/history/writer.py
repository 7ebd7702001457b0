"""Writes the growth of the counters from snapshot to snapshot; what cannot be written now is written later."""

from __future__ import annotations

import contextlib
import logging
import sqlite3
from collections.abc import Callable

from ..snapshot import Snapshot
from .counters import Standing, standing
from .differences import Moment, grown, hours, span
from .schema import HOUR_SECONDS
from .store import Change, HistoryUnusable, Store

_log = logging.getLogger("history")

_CLOCK_SET = 1_700_000_000.0
"""A wall clock before November 2023 is not set yet: a machine without a battery starts in 1970."""


class Writer:
    """Opens the file with the first snapshot, and again after each failure. For one thread only.

    ``on_write`` is called after each successful write.
    """

    def __init__(
        self, path: str, node: str, retention_seconds: float, on_write: Callable[[], None] = lambda: None
    ) -> None:
        self._path = path
        self._node = node
        self._retention_hours = max(1, int(retention_seconds / HOUR_SECONDS))
        self._on_write = on_write
        self._store: Store | None = None
        self._before: tuple[Moment | None, Standing] = (None, {})
        self._problem = ""

    def record(self, snapshot: Snapshot) -> None:
        """Write what the counters grew by since the last snapshot that was written; logs what prevents it."""
        if snapshot.taken_at < _CLOCK_SET:
            return
        try:
            if self._store is None:
                self._open(snapshot)
            self._write(snapshot)
        except HistoryUnusable as error:
            self._report(str(error))
        except (sqlite3.Error, OSError) as error:
            self._report(f"{self._path}: {getattr(error, 'strerror', None) or error}")
            self.close()
        else:
            self._report("")
            self._on_write()

    def close(self) -> None:
        """Release the file."""
        if self._store is not None:
            with contextlib.suppress(sqlite3.Error):
                self._store.close()
            self._store = None

    def _open(self, snapshot: Snapshot) -> None:
        self._store = Store(self._path, self._node, self._retention_hours, demo=snapshot.demo)
        if self._store.aside:
            _log.warning("%s is damaged: set aside as %s, a new history begins", self._path, self._store.aside)
        self._before = self._store.load()

    def _write(self, snapshot: Snapshot) -> None:
        assert self._store is not None
        exporter, now = snapshot.exporter, standing(snapshot)
        moment = Moment(snapshot.taken_at, snapshot.monotonic_at, exporter.counted_since, exporter.start_time)
        last, before = self._before
        if last is None or last.counted_since != moment.counted_since:
            # The counters started at 0 since: with this run, or with one that kept no history.
            last, before = None, {} if moment.is_new else now
        start, seconds = span(last, moment)
        growth = list(grown(before, now, restarted=last is None or not moment.same_run(last)))
        self._store.write(Change(hours(start, moment.at), seconds, growth, self._before[1], now, moment))
        self._before = (moment, now)

    def _report(self, problem: str) -> None:
        if problem == self._problem:
            return
        self._problem = problem
        if problem:
            _log.warning("no history is written: %s", problem)
        else:
            _log.info("history is written to %s", self._path)
