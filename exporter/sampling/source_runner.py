"""One source behind its guard: asked with a deadline, retried with backoff, and how it is doing."""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Sequence

from ..accounting.meters import Delta
from ..records import REASONS, Problem, Reading, Reason, Source, SourceHealth, Unavailable
from .deadline import Crew, Guard

_log = logging.getLogger("source")

_RETRY_FIRST_SECONDS = 1.0
_RETRY_MOST_SECONDS = 60.0
_PROBLEMS_KEPT = 100
_LAST_READ_SECONDS = 1.0


class SourceRunner:
    """Asks a source once a tick. A failure is one log line when it starts and one when it ends (fault 11)."""

    def __init__(self, source: Source, clock: Callable[[], float], crew: Crew | None = None) -> None:
        self.name = source.name
        self._source = source
        self._clock = clock
        self._guard: Guard[float, Reading] = Guard(f"source-{source.name}", source.read, clock, crew)
        self._failures: dict[Reason, int] = dict.fromkeys(REASONS, 0)
        self._up: bool | None = None
        self._reason: Reason | None = None
        self._message = ""
        self._fix = ""
        self._last_success = 0.0
        self._read_seconds = 0.0
        self._retry_at = float("-inf")
        self._retry_seconds = _RETRY_FIRST_SECONDS
        self._problems: dict[str, Problem] = {}
        self._counted_at: dict[str, float] = {}
        self._jumping: set[str] = set()
        self._late = False
        self._health: SourceHealth | None = None

    def ask(self, now: float) -> None:
        """Start a read, unless one hangs or the source rests after a failure."""
        if now >= self._retry_at:
            self._guard.ask(now)

    def retry(self) -> None:
        """Have the next `ask` read a source that is down, whatever its backoff; one whose read hangs gets no second."""
        if self._up is False:
            self._retry_at = float("-inf")
            self._retry_seconds = _RETRY_FIRST_SECONDS

    def take(self, deadline: float, wall: float) -> Reading | None:
        """What the source read by boot time ``deadline``; None if nothing came."""
        if not self._guard.busy:
            return None
        self._health = None
        # One that is late already is not waited for again: the others' ticks stay on time.
        done = self._guard.take(0.0 if self._late else deadline - self._clock())
        if done is None:
            if not self._late:
                self._late = True
                self._failures["timeout"] += 1
                self._down(Unavailable("timeout", "a read outlived its deadline", "see --source.timeout"))
            return None
        self._late = False
        self._read_seconds += done.seconds
        if done.result is None:
            error = done.error
            if isinstance(error, Unavailable):
                known, cause = error, None
            else:
                known, cause = Unavailable("error", f"{type(error).__name__}: {error}"), error
            self._failures[known.reason] += 1
            self._down(known, cause)
            self._retry_at = self._clock() + self._retry_seconds
            self._retry_seconds = min(2 * self._retry_seconds, _RETRY_MOST_SECONDS)
            return None
        self._retry_seconds = _RETRY_FIRST_SECONDS
        self._last_success = wall
        if self._up is not True:
            if self._up is False:
                _log.info("source is back", extra={"source": self.name})
            self._up, self._reason, self._message, self._fix = True, None, "", ""
        self._note(done.result.problems)
        if done.result.rest_seconds:
            self._retry_at = self._clock() + done.result.rest_seconds
        return done.result

    def reject(self, implausible: Collection[Delta]) -> None:
        """Count its own among the readings that no plausible power explains; one log line for each that starts to."""
        if not (implausible or self._jumping):
            return
        jumping = {delta.device.id for delta in implausible if delta.device.source == self.name}
        if jumping:
            self._health = None
            self._failures["implausible"] += len(jumping)
        for device in jumping - self._jumping:
            _log.warning("no plausible power explains the reading", extra={"source": self.name, "device": device})
        self._jumping = jumping

    def health(self) -> SourceHealth:
        """How it is now; the same object until something changes."""
        if self._health is None:
            self._health = self._describe()
        return self._health

    def _describe(self) -> SourceHealth:
        problem = next(iter(self._problems.values()), None)
        return SourceHealth(
            self.name,
            bool(self._up),
            self._reason if problem is None else problem.reason,
            self._message if problem is None else problem.message,
            self._fix if problem is None else problem.fix,
            self._failures.copy(),
            self._last_success,
            self._read_seconds,
        )

    def close(self) -> None:
        """End its thread, after the read it is in; a source that hangs keeps its files until the process ends."""
        if self._guard.busy:
            self._guard.take(0.0 if self._late else _LAST_READ_SECONDS)
        self._guard.stop()
        if not self._guard.busy:
            self._source.close()

    def _down(self, error: Unavailable, cause: Exception | None = None) -> None:
        """Take note of a failure; an unexpected ``cause`` is logged with its traceback."""
        if self._up is not False or self._reason != error.reason:
            # Most machines lack most meters: that is news only where there was one.
            absent = self._up is None and error.reason == "not_found"
            _log.log(
                logging.INFO if absent else logging.WARNING,
                "source is not available",
                exc_info=cause,
                extra={"source": self.name, "reason": error.reason, "cause": error.message, "fix": error.fix},
            )
        self._up = False
        self._reason, self._message, self._fix = error.reason, error.message, error.fix
        self._problems.clear()

    def _note(self, problems: Sequence[Problem]) -> None:
        """Take note of what failed; one that lasts counts once a minute, as often as a source that is down is tried."""
        if not (problems or self._problems or self._counted_at):
            return
        now = self._clock()
        current = {f"{problem.reason}: {problem.message}": problem for problem in problems[:_PROBLEMS_KEPT]}
        self._counted_at = {key: at for key, at in self._counted_at.items() if key in current}
        for key, problem in current.items():
            if now - self._counted_at.get(key, float("-inf")) >= _RETRY_MOST_SECONDS:
                self._counted_at[key] = now
                self._failures[problem.reason] += 1
            if key not in self._problems:
                _log.warning(
                    "part of a source is not available",
                    extra={
                        "source": self.name,
                        "reason": problem.reason,
                        "cause": problem.message,
                        "fix": problem.fix,
                    },
                )
        self._problems = current
