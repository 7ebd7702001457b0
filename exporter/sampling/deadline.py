"""Calls with a deadline: what may hang runs in another thread, and calls never pile up."""

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

SPAWN_AFTER_SECONDS = 0.05
"""How long calls queue behind a slow one before another thread is spawned for them."""


class Done(NamedTuple, Generic[R]):
    """The end of a call: a result or an exception. ``seconds`` is its duration."""

    result: R | None
    error: Exception | None
    seconds: float


class _Batch:
    """Calls that were submitted together; the thread that ends the last one releases ``ended``."""

    def __init__(self, jobs: Sequence[Callable[[], None]]) -> None:
        self.jobs = deque(jobs)
        self.ended = threading.Lock()
        self.ended.acquire()
        self.over = False
        self.spawned_at = time.monotonic()
        self._total = len(jobs)
        self._counter = count(1)

    def work(self) -> None:
        """Run the calls that no other thread has started."""
        while self.jobs:
            try:
                job = self.jobs.popleft()
            except IndexError:
                break
            job()
            if next(self._counter) == self._total:
                self.ended.release()


class WorkerPool:
    """One daemon thread for several `DeadlineCall`, and one more for each call that hangs.

    Waking a thread costs more than most calls do, so one thread runs all calls of a tick. `add` and `wait` must be
    called from one thread at a time.
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
        """Run ``job`` from the next `wait` on; it must not raise."""
        self._added.append(job)

    def wait(self, timeout: float) -> None:
        """Start the added jobs, and wait up to ``timeout`` seconds until all have ended."""
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
            if batch.jobs and now - batch.spawned_at >= SPAWN_AFTER_SECONDS:
                batch.spawned_at = now
                self._spawn(batch)
            left = until - now
            # Once every call has a thread, only waiting is left.
            if batch.ended.acquire(timeout=max(0.0, min(left, SPAWN_AFTER_SECONDS) if batch.jobs else left)):
                batch.over = True
                return
            if left <= 0:
                return

    def stop(self) -> None:
        """End each thread after its current call; a hung thread ends with the process."""
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
    """Runs ``call(argument)`` on a thread of ``pool`` (its own if None), one call at a time.

    A call that exceeds its deadline continues: no further call is started until it returns, and its late result is
    the result of the next request, so no delta is lost.
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
        """Whether a call was requested and its end was not taken yet."""
        return self._pending

    def request(self, argument: A) -> None:
        """Start the call, unless one is still running."""
        if not self._pending:
            self._pending = True
            self._pool.add(lambda: self._work(argument))

    def take(self, timeout: float) -> Done[R] | None:
        """Wait up to ``timeout`` seconds until all calls of the pool end; None if this one is still running."""
        if self._done.empty():
            self._pool.wait(timeout)
        try:
            done = self._done.get_nowait()
        except queue.Empty:
            return None
        self._pending = False
        return done

    def stop(self) -> None:
        """End the thread, unless it belongs to a shared pool."""
        if self._alone:
            self._pool.stop()

    def _work(self, argument: A) -> None:
        began = self._clock()
        try:
            result, error = self._call(argument), None
        except Exception as failure:  # noqa: BLE001 - no exception of a source may end the thread
            result, error = None, failure
        self._done.put(Done(result, error, self._clock() - began))
