"""Call what may hang from another thread, with a deadline and without ever stacking calls."""

from __future__ import annotations

import queue
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from itertools import count
from typing import Generic, NamedTuple, TypeVar

A = TypeVar("A")
R = TypeVar("R")

PATIENCE_SECONDS = 0.05
"""How long the calls behind a slow one wait for it before another thread takes them."""


class Done(NamedTuple, Generic[R]):
    """How a call ended: with a result, or with an exception. ``seconds`` is how long it took."""

    result: R | None
    error: Exception | None
    seconds: float


class _Batch:
    """Calls that were asked for together; whoever ends the last one releases ``ended``."""

    def __init__(self, jobs: Sequence[Callable[[], None]]) -> None:
        self.jobs = deque(jobs)
        self.ended = threading.Lock()
        self.ended.acquire()
        self.over = False
        self.spawned_at = time.monotonic()
        self._total = len(jobs)
        self._counter = count(1)

    def work(self) -> None:
        """Do what nobody does yet."""
        while self.jobs:
            try:
                job = self.jobs.popleft()
            except IndexError:
                break
            job()
            if next(self._counter) == self._total:
                self.ended.release()


class WorkerPool:
    """One daemon thread for the calls of several guards, and one more for each that hangs.

    Waking a thread costs more than most calls do, so all that is asked for in a tick is done by one.
    Only `add` and `wait` of one thread at a time.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self._added: list[Callable[[], None]] = []
        self._batch: _Batch | None = None
        self._todo: queue.SimpleQueue[_Batch | None] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._idle = False
        self._stopped = False

    def add(self, job: Callable[[], None]) -> None:
        """Have ``job`` done from the next `wait` on; it must not raise."""
        self._added.append(job)

    def wait(self, timeout: float) -> None:
        """Start what was added, and wait up to ``timeout`` seconds for the end of all of it."""
        if self._added:
            self._batch = _Batch(self._added)
            self._added = []
            self._start(self._batch)
        batch = self._batch
        if batch is None or batch.over:
            return
        until = time.monotonic() + timeout
        while True:
            now = time.monotonic()
            if batch.jobs and now - batch.spawned_at >= PATIENCE_SECONDS:
                batch.spawned_at = now
                self._spawn(batch)
            left = until - now
            # Once every call is in somebody's hands there is nothing to do but wait.
            if batch.ended.acquire(timeout=max(0.0, min(left, PATIENCE_SECONDS) if batch.jobs else left)):
                batch.over = True
                return
            if left <= 0:
                return

    def stop(self) -> None:
        """Let the threads end after the calls they are in; a hung one is left to the end of the process."""
        with self._lock:
            self._stopped = True
            if self._idle:
                self._idle = False
                self._todo.put(None)

    def _start(self, batch: _Batch) -> None:
        with self._lock:
            if self._idle:
                self._idle = False
                self._todo.put(batch)
                return
        self._spawn(batch)

    def _spawn(self, batch: _Batch) -> None:
        threading.Thread(target=self._work, args=(batch,), name=self.name, daemon=True).start()

    def _work(self, first: _Batch) -> None:
        batch: _Batch | None = first
        while batch is not None:
            batch.work()
            with self._lock:
                if self._idle or self._stopped:
                    return
                self._idle = True
            batch = self._todo.get()


class DeadlineCall(Generic[A, R]):
    """Calls ``call(argument)`` on a thread of ``pool`` (one of its own if None), one at a time.

    A call that outlives its deadline goes on alone: it is not asked for again until it returns, and what it
    returns then is handed out as the answer to the next request, so no delta is lost (fault 15).
    """

    def __init__(
        self, name: str, call: Callable[[A], R], clock: Callable[[], float], pool: WorkerPool | None = None
    ) -> None:
        self._call = call
        self._clock = clock
        self._pool = WorkerPool(name) if pool is None else pool
        self._alone = pool is None
        self._done: queue.SimpleQueue[Done[R]] = queue.SimpleQueue()
        self._pending = False

    @property
    def busy(self) -> bool:
        """Whether a call was asked for and its end was not yet taken."""
        return self._pending

    def ask(self, argument: A) -> None:
        """Have the call made, unless one is still under way."""
        if not self._pending:
            self._pending = True
            self._pool.add(lambda: self._work(argument))

    def take(self, timeout: float) -> Done[R] | None:
        """Wait up to ``timeout`` seconds for the end of all the pool's calls; None if this one is still under way."""
        if self._done.empty():
            self._pool.wait(timeout)
        try:
            done = self._done.get_nowait()
        except queue.Empty:
            return None
        self._pending = False
        return done

    def stop(self) -> None:
        """End the thread, if it is this guard's own."""
        if self._alone:
            self._pool.stop()

    def _work(self, argument: A) -> None:
        began = self._clock()
        try:
            result, error = self._call(argument), None
        except Exception as failure:  # noqa: BLE001 - whatever a source raises must not end the thread
            result, error = None, failure
        self._done.put(Done(result, error, self._clock() - began))
