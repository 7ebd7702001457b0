"""Reads all model servers of this machine from one background thread, so that none of them delays a tick."""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable

from ...host import Host, read_file
from ...records import Problem, ProcessKey, TokenUse, Unavailable
from ...workloads.protocol import ModelServer
from .reader import POLL_SECONDS, ServerReader

_log = logging.getLogger("inference")

MAX_SERVERS = 64
"""Most servers that are read on one machine."""

MAX_CPU_RATIO = 0.008
"""CPU seconds per second that reading takes at most: with long pages or many servers, each is read less often."""

_TOGETHER_SECONDS = 1.0
"""A server that is due within this time is read in the same round: few rounds cost less than many."""


class Poller:
    """Reads each server every few seconds, those that fail less often. The thread starts with the first server.

    ``servers`` returns the recognised ones and is called from both threads. Of processes that share an address the
    oldest is read, so that the workers of a server do not count again.
    """

    def __init__(self, host: Host, servers: Callable[[], tuple[ModelServer, ...]], key_file: str = "") -> None:
        self._host = host
        self._servers = servers
        self._key_file = key_file
        self._began = host.clock()
        self._readers: dict[ProcessKey, ServerReader] = {}
        self._ended: list[ServerReader] = []
        self._lock = threading.Lock()
        self._seen: tuple[ModelServer, ...] = ()
        self._stop = threading.Event()
        self._wake = threading.Event()
        self._thread: threading.Thread | None = None

    @property
    def started(self) -> bool:
        """Whether there was a server to read."""
        return self._thread is not None

    def take(self) -> tuple[tuple[TokenUse, ...], tuple[Problem, ...]]:
        """What every server counted since the last call, and why some were not read. Never waits for a server."""
        servers = self._servers()
        if servers != self._seen:
            self._seen = servers
            self._wake.set()
        if self._thread is None:
            if not servers or self._stop.is_set():
                return (), ()
            self._thread = threading.Thread(target=self._run, name="model-servers", daemon=True)
            self._thread.start()
        with self._lock:
            readers = [*self._ended, *self._readers.values()]
            running = len(readers) - len(self._ended)
            self._ended = []
        taken = [reader.take() for reader in readers]
        uses = [use for use, _ in taken if use is not None]
        return tuple(uses), tuple([problem for _, problem in taken[len(taken) - running :] if problem is not None])

    def poll(self) -> float:
        """Read every server that is due, one after the other; returns the seconds to wait at least."""
        began = self._host.work()
        self._update()
        taken: set[tuple[str, int]] = set()
        for reader in list(self._readers.values()):
            if self._stop.is_set():
                break
            if self._host.clock() + _TOGETHER_SECONDS >= reader.due:
                reader.poll(taken)
            if reader.endpoint is not None:
                taken.add(reader.endpoint)
        return max(_TOGETHER_SECONDS, (self._host.work() - began) / MAX_CPU_RATIO)

    def close(self) -> None:
        """Stop the thread, without waiting for a server that hangs."""
        self._stop.set()
        self._wake.set()

    def _run(self) -> None:
        while not self._stop.is_set():
            pause = _TOGETHER_SECONDS
            self._wake.clear()
            try:
                pause = self.poll()
            except Exception as error:  # noqa: BLE001 - no server may end the thread
                _log.debug("model servers: %r", error)
            self._stop.wait(pause)
            self._wake.wait(self._until_due())

    def _until_due(self) -> float:
        """Seconds until the next server is due, and no more than those between two pages: one may have ended."""
        due = min([reader.due for reader in self._readers.values()], default=float("inf"))
        return min(max(0.0, due - self._host.clock()), POLL_SECONDS)

    def _update(self) -> None:
        """Add the servers that were recognised since, oldest first, and drop those that ended."""
        servers = {server.process.key: server for server in self._servers()}
        running = {key: server for key, server in servers.items() if _is_running(self._host, key)}
        by_pid = {key.pid: server for key, server in running.items()}
        wanted = sorted(running, key=lambda key: (key.start_ticks, key.pid))[:MAX_SERVERS]
        readers = {
            key: self._readers.get(key)
            or ServerReader(running[key], self._host, self._age(key), by_pid.get(running[key].parent), self._key_file)
            for key in wanted
        }
        for key, reader in readers.items():
            reader.server = running[key]
        with self._lock:
            self._ended += [reader for key, reader in self._readers.items() if key not in readers]
            self._readers = readers

    def _age(self, key: ProcessKey) -> float | None:
        """Age of a process in seconds, None if it is older than this object."""
        started = key.start_ticks / os.sysconf("SC_CLK_TCK")
        return self._host.clock() - started if started >= self._began else None


def _is_running(host: Host, key: ProcessKey) -> bool:
    try:
        fields = read_file(host.proc(str(key.pid), "stat"), 1024).rpartition(b")")[2].split(None, 20)
        return int(fields[19]) == key.start_ticks and fields[0] != b"Z"
    except (Unavailable, ValueError, IndexError):
        return False
