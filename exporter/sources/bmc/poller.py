"""Reads a BMC from a thread of its own, because it may take seconds, or hang."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from random import Random

from ...availability.tracker import Backoff
from ...records import EnergyReading, PowerReading, Problem, Unavailable
from .reader import Reader

_log = logging.getLogger("bmc")

_LONGEST_WAIT_SECONDS = 300.0
_SLOW_SECONDS = 30.0
"""A BMC that takes longer to answer is reported before its time limit."""

_LOGOUT_SECONDS = 2.0
"""How long the end of the exporter waits for the end of its session at the BMC."""


class Poller:
    """Reads every ``period_seconds``, and more rarely while that fails. The thread starts with the first `take`.

    ``clock`` returns boot-time seconds.
    """

    def __init__(self, reader: Reader, clock: Callable[[], float], period_seconds: float) -> None:
        self._reader = reader
        self._clock = clock
        self._period = period_seconds
        self._backoff = Backoff(period_seconds, _LONGEST_WAIT_SECONDS)
        self._random = Random()
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self._meters: dict[str, EnergyReading | PowerReading] = {}
        self._problems: tuple[Problem, ...] = ()
        self._began: float | None = None
        self._answered = False
        self.failed = False
        """Whether the last read failed as a whole."""

    def take(self) -> tuple[tuple[EnergyReading | PowerReading, ...], tuple[Problem, ...]]:
        """What was read since the last call, the newest value of each meter, and what is wrong. Never waits."""
        if self._thread is None and not self._stop.is_set():
            self._thread = threading.Thread(target=self._run, name=f"bmc-{self._reader.name}", daemon=True)
            self._thread.start()
        with self._lock:
            taken, self._meters = self._meters, {}
            problems, began = self._problems, self._began
        if began is not None and self._clock() - began > _SLOW_SECONDS and not problems:
            problems = (Problem("timeout", f"{self._reader.name}: the BMC has not answered so far"),)
        return tuple(taken.values()), problems

    @property
    def pending(self) -> bool:
        """Whether it has neither answered nor failed so far."""
        return not self._answered

    def poll(self) -> float:
        """Read once. Returns the seconds until the next read."""
        self._began = now = self._clock()
        try:
            found = self._reader.read()
        except Exception as error:  # noqa: BLE001 - no answer of a BMC may end the thread
            if not isinstance(error, Unavailable):
                _log.debug("%s: %s", self._reader.name, type(error).__name__)  # its text may have a token in it
                error = Unavailable("error", f"{self._reader.name}: {type(error).__name__}", "this is a bug: report it")
            self._finish({}, (Problem(error.reason, error.message, error.fix),), failed=True)
            # Jitter keeps the nodes of a fleet from asking at once when their network is back.
            return self._backoff.next() * self._random.uniform(0.8, 1.2)
        self._backoff.reset()
        self._finish({meter.device.id: meter for meter in found.meters}, found.problems, failed=False)
        return max(0.0, self._period - (self._clock() - now))

    def close(self) -> None:
        """Stop the thread, and let it end the session; one that hangs is left behind."""
        self._stop.set()
        if self._thread is None:
            return
        if self._began is not None:
            self._reader.interrupt()
        self._thread.join(_LOGOUT_SECONDS)
        self._reader.interrupt()

    def _run(self) -> None:
        while not self._stop.wait(self.poll()):
            pass
        self._reader.close()

    def _finish(
        self, meters: dict[str, EnergyReading | PowerReading], problems: tuple[Problem, ...], *, failed: bool
    ) -> None:
        with self._lock:
            self._meters |= meters
            self._problems, self._began = problems, None
            self.failed = failed
            self._answered = True
