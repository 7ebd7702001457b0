"""Call something that may hang from a thread of its own, with a deadline and without ever stacking calls."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from typing import Generic, NamedTuple, TypeVar

A = TypeVar("A")
R = TypeVar("R")


class Done(NamedTuple, Generic[R]):
    """How a call ended: with a result, or with an exception. ``seconds`` is how long it took."""

    result: R | None
    error: Exception | None
    seconds: float


class Guard(Generic[A, R]):
    """One daemon thread that calls ``call(argument)``, one at a time.

    A call that outlives its deadline goes on alone: nothing is asked of the thread until it returns, and
    what it returns then is handed out as the answer to the next request, so no delta is lost (fault 15).
    """

    def __init__(self, name: str, call: Callable[[A], R], clock: Callable[[], float]) -> None:
        self.name = name
        self._call = call
        self._clock = clock
        self._jobs: queue.SimpleQueue[A | None] = queue.SimpleQueue()
        self._done: queue.SimpleQueue[Done[R]] = queue.SimpleQueue()
        self._pending = False
        self._thread: threading.Thread | None = None

    @property
    def busy(self) -> bool:
        """Whether a call was asked for and its end was not yet taken."""
        return self._pending

    def ask(self, argument: A) -> None:
        """Start a call, unless one is still under way."""
        if self._pending:
            return
        if self._thread is None:
            self._thread = threading.Thread(target=self._work, name=self.name, daemon=True)
            self._thread.start()
        self._pending = True
        self._jobs.put(argument)

    def take(self, timeout: float) -> Done[R] | None:
        """Wait up to ``timeout`` seconds for the end of the call; None if it is still under way."""
        try:
            done = self._done.get(timeout=timeout) if timeout > 0 else self._done.get_nowait()
        except queue.Empty:
            return None
        self._pending = False
        return done

    def stop(self) -> None:
        """Let the thread end after the call it is in; a hung one is left to the end of the process."""
        self._jobs.put(None)

    def _work(self) -> None:
        while (argument := self._jobs.get()) is not None:
            began = self._clock()
            try:
                result, error = self._call(argument), None
            except Exception as failure:  # noqa: BLE001 - whatever a source raises must not end its thread
                result, error = None, failure
            self._done.put(Done(result, error, self._clock() - began))
