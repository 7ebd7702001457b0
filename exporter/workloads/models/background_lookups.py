"""Looks up model names in servers, and in files that may be on a network, from a background thread."""

from __future__ import annotations

import contextlib
import heapq
import logging
import threading
from collections import OrderedDict, defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import count
from typing import Protocol

from ...host import Host
from ...records import GroupKey, ProcessKey
from ..proc import process_stat
from .evidence import Lookup
from .files import configured_name, mlserver_name, ollama_name, triton_name, variant_of_weights
from .process_root import ProcessRootFs
from .served import served_name

_log = logging.getLogger(__name__)

_MAX_RESULTS = 4096
_MAX_PENDING = 256
_RETRY_MAX_SECONDS = 60.0

RETRY_FIRST_SECONDS = 5.0
"""Delay before the first retry of a server; doubled after each, up to a minute."""

RETRY_FOR_SECONDS = 1800.0
"""How long a server is retried: loading weights takes minutes."""

NOT_FOUND = {
    "server": "no response, or it lists no model or several",
    "mlserver": "not exactly one model with a name below it, or it cannot be read",
    "ollama": "no manifest lists these weights, or it cannot be read",
    "triton": "not exactly one model, or it cannot be read",
    "config": "no key that names a model, or it cannot be read",
    "weights": "its config.json states no quantization, or cannot be read",
}
"""Why a lookup gives no name, by its kind."""


@dataclass(order=True)
class _ScheduledLookup:
    due: float
    order: int
    key: ProcessKey = field(compare=False)
    lookup: Lookup = field(compare=False)
    retry_seconds: float = field(compare=False)
    retry_until: float = field(compare=False)


class Lookups(Protocol):
    """Finds names that a process's command line does not contain."""

    def name(self, key: ProcessKey, lookup: Lookup, group: GroupKey | None) -> str:
        """The name if it has been found, else ""."""

    def completed(self) -> set[GroupKey]:
        """Groups for which a lookup has found a name since the last call."""

    def close(self) -> None:
        """Stop all lookups."""


class DirectLookups:
    """Runs each lookup at once, and waits for it: for a command that a person waits for."""

    def __init__(self, host: Host) -> None:
        self._host = host
        self._results: dict[tuple[ProcessKey, Lookup], str] = {}

    def name(self, key: ProcessKey, lookup: Lookup, group: GroupKey | None) -> str:  # noqa: ARG002 - nothing is late
        """The name, "" if there is none."""
        if (key, lookup) not in self._results:
            try:
                self._results[key, lookup] = run_lookup(self._host, key.pid, lookup)
            except (OSError, ValueError):
                self._results[key, lookup] = ""
        return self._results[key, lookup]

    def completed(self) -> set[GroupKey]:
        """An empty set: every lookup is complete when `name` returns."""
        return set()

    def close(self) -> None:
        """Do nothing: there is no background work."""


class BackgroundLookups:
    """Runs lookups for processes in a background thread and keeps their results.

    The daemon thread starts with the first lookup. If a file hangs, no further lookup completes, and nothing else is
    affected. At most `_MAX_PENDING` lookups are pending; further ones are dropped.
    """

    def __init__(
        self,
        host: Host,
        run: Callable[[Host, int, Lookup], str] | None = None,
        retry_first_seconds: float = RETRY_FIRST_SECONDS,
        retry_for_seconds: float = RETRY_FOR_SECONDS,
    ) -> None:
        self._host = host
        self._run = run or run_lookup
        self._retry_first_seconds = retry_first_seconds
        self._retry_for_seconds = retry_for_seconds
        self._lock = threading.Condition()
        self._results: OrderedDict[tuple[ProcessKey, Lookup], str] = OrderedDict()
        self._schedule: list[_ScheduledLookup] = []
        self._pending: set[tuple[ProcessKey, Lookup]] = set()
        self._waiting_groups: defaultdict[ProcessKey, set[GroupKey]] = defaultdict(set)
        self._completed: set[GroupKey] = set()
        self._order = count()
        self._thread: threading.Thread | None = None
        self._closed = False

    def name(self, key: ProcessKey, lookup: Lookup, group: GroupKey | None) -> str:
        """The name if it has been found, else "": then `completed` returns ``group`` once it is. Never blocks."""
        request = (key, lookup)
        with self._lock:
            result = self._results.get(request)
            if result is not None:
                self._results.move_to_end(request)
                return result
            if self._closed or (request not in self._pending and len(self._pending) >= _MAX_PENDING):
                return ""
            if group is not None:
                self._waiting_groups[key].add(group)
            if request not in self._pending:
                self._pending.add(request)
                now = self._host.clock()
                retry_until = now + (self._retry_for_seconds if lookup.kind == "server" else 0.0)
                order = next(self._order)
                scheduled = _ScheduledLookup(now, order, key, lookup, self._retry_first_seconds, retry_until)
                heapq.heappush(self._schedule, scheduled)
                self._start()
                self._lock.notify()
        return ""

    def completed(self) -> set[GroupKey]:
        """Groups for which a lookup has found a name since the last call."""
        with self._lock:
            completed, self._completed = self._completed, set()
            return completed

    def close(self) -> None:
        """Stop the thread, without waiting for a lookup that hangs."""
        with self._lock:
            self._closed = True
            self._lock.notify()
        if self._thread is not None:
            self._thread.join(0.5)

    def _start(self) -> None:
        if self._thread is None:
            thread = threading.Thread(target=self._work, name="model-names", daemon=True)
            with contextlib.suppress(RuntimeError):  # the thread limit is reached: retried with the next lookup
                thread.start()
                self._thread = thread

    def _work(self) -> None:
        while (scheduled := self._next()) is not None:
            stat = process_stat(self._host, scheduled.key.pid)
            gone = stat is None or stat.key != scheduled.key
            name = "" if gone else self._run_guarded(scheduled)
            with self._lock:
                now = self._host.clock()
                if not name and not gone and now < scheduled.retry_until:
                    scheduled.due = now + scheduled.retry_seconds
                    scheduled.retry_seconds = min(2 * scheduled.retry_seconds, _RETRY_MAX_SECONDS)
                    heapq.heappush(self._schedule, scheduled)
                else:
                    self._complete(scheduled, name)

    def _next(self) -> _ScheduledLookup | None:
        with self._lock:
            while not self._closed:
                wait = self._schedule[0].due - self._host.clock() if self._schedule else None
                if wait is not None and wait <= 0:
                    return heapq.heappop(self._schedule)
                self._lock.wait(wait)
        return None

    def _run_guarded(self, scheduled: _ScheduledLookup) -> str:
        try:
            return self._run(self._host, scheduled.key.pid, scheduled.lookup)
        except Exception as error:  # noqa: BLE001 - no file of a process may end the thread
            _log.debug("lookup of the model of pid %d failed: %s", scheduled.key.pid, type(error).__name__)
            return ""

    def _complete(self, scheduled: _ScheduledLookup, name: str) -> None:
        request = (scheduled.key, scheduled.lookup)
        self._pending.discard(request)
        self._results[request] = name
        while len(self._results) > _MAX_RESULTS:
            self._results.popitem(last=False)
        groups = self._waiting_groups.pop(scheduled.key, set())
        if name:
            self._completed |= groups
        if any(key == scheduled.key for key, _ in self._pending):
            self._waiting_groups[scheduled.key] |= groups


def run_lookup(host: Host, pid: int, lookup: Lookup, *, key_file: str = "") -> str:
    """The name, or of weights the variant, that a lookup finds, "" if none; ``key_file`` is for servers."""
    if lookup.kind == "server":
        return served_name(host, pid, int(lookup.value), key_file)
    files = ProcessRootFs(host.procfs, pid)
    if lookup.kind == "ollama":
        return ollama_name(files, lookup.value)
    if lookup.kind == "triton":
        return triton_name(files, lookup.value)
    if lookup.kind == "mlserver":
        return mlserver_name(files, lookup.value)
    if lookup.kind == "weights":
        return variant_of_weights(files, lookup.value)
    return configured_name(files, lookup.value, lookup.keys, lookup.served)
