"""One source behind its guard: asked with a deadline, retried with backoff, and how it is doing."""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import replace

from ..accounting.meters import Delta
from ..availability.tracker import RETRY_MAX_SECONDS, AvailabilityTracker, Backoff
from ..records import Problem, Reading, SourceHealth, Unavailable
from ..sources.protocol import Receiver, Source
from .deadline import DeadlineCall, WorkerPool

_log = logging.getLogger("source")

_PROBLEMS_KEPT = 100
_LAST_READ_SECONDS = 1.0


class SourceRunner:
    """Asks a source once a tick. A failure is one log line when it starts and one when it ends (fault 11)."""

    def __init__(self, source: Source, clock: Callable[[], float], pool: WorkerPool | None = None) -> None:
        self.name = source.name
        self._source = source
        self._clock = clock
        self._guard: DeadlineCall[float, Reading] = DeadlineCall(f"source-{source.name}", source.read, clock, pool)
        self._availability = AvailabilityTracker(source.name, "source", _log, optional=True)
        self._backoff = Backoff()
        self._retry_at = float("-inf")
        self._problems: dict[str, Problem] = {}
        self._judged: tuple[Problem, ...] = ()
        self._counted_at: dict[str, float] = {}
        self._jumping: set[str] = set()
        self._late = False
        self._health: SourceHealth | None = None

    def ask(self, now: float) -> None:
        """Start a read, unless one hangs or the source rests after a failure."""
        if now >= self._retry_at:
            self._guard.request(now)

    def retry(self) -> None:
        """Let the next `ask` read a source that is down, whatever its backoff; a read that hangs is not repeated."""
        if self._availability.up is False:
            self._retry_at = float("-inf")
            self._backoff.reset()

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
                self._failed(Unavailable("timeout", "a read outlived its deadline", "see --source.timeout"))
            return None
        self._late = False
        self._availability.add_read_seconds(done.seconds)
        if done.result is None:
            self._failed(done.error or TypeError("the source returned no reading"))
            self._retry_at = self._clock() + self._backoff.next()
            return None
        self._backoff.reset()
        self._availability.succeeded(wall)
        self._note((*done.result.problems, *self._judged) if self._judged else done.result.problems)
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
            self._availability.count("implausible", len(jumping))
        for device in jumping - self._jumping:
            _log.warning("no plausible power explains the reading", extra={"source": self.name, "device": device})
        self._jumping = jumping

    def judge(self, problems: tuple[Problem, ...]) -> None:
        """Report ``problems`` of its readings that show beside those of other sources, until the next call.

        They are added to what it reads next, and to what it read last if they are new.
        """
        if problems != self._judged:
            before, self._judged = {_key(problem) for problem in self._judged}, problems
            own = [problem for key, problem in self._problems.items() if key not in before]
            self._health = None
            self._note((*own, *problems))

    def health(self) -> SourceHealth:
        """How it is now; the same object until something changes."""
        if self._health is None:
            health = self._availability.health()
            problem = next(iter(self._problems.values()), None)
            if problem is not None:
                health = replace(health, reason=problem.reason, message=problem.message, fix=problem.fix)
            self._health = health
        return self._health

    def rest(self) -> list[Reading]:
        """Close a source that programs send to, and take what they had sent; nothing of one that only reads.

        A read that was late has taken part of it already.
        """
        if not isinstance(self._source, Receiver):
            return []
        last = self._end(_LAST_READ_SECONDS)
        return ([] if last is None else [last]) + ([] if self._guard.busy else [self._source.rest()])

    def close(self) -> None:
        """End its thread, after the read it is in; a source that hangs keeps its files until the process ends."""
        self._end(0.0 if self._late else _LAST_READ_SECONDS)

    def _end(self, timeout: float) -> Reading | None:
        """Close it once the read it is in has ended; what that read, None if there was none or it still hangs."""
        done = self._guard.take(timeout) if self._guard.busy else None
        self._guard.stop()
        if not self._guard.busy:
            self._source.close()
        return None if done is None else done.result

    def _failed(self, error: Exception) -> None:
        """Mark the source as down; its partial failures no longer apply."""
        self._availability.failed(error)
        self._problems.clear()

    def _note(self, problems: Sequence[Problem]) -> None:
        """Take note of what failed; one that lasts counts once a minute, as often as a source that is down is tried."""
        if not (problems or self._problems or self._counted_at):
            return
        now = self._clock()
        current = {_key(problem): problem for problem in problems[:_PROBLEMS_KEPT]}
        self._counted_at = {key: at for key, at in self._counted_at.items() if key in current}
        for key, problem in current.items():
            if now - self._counted_at.get(key, float("-inf")) >= RETRY_MAX_SECONDS:
                self._counted_at[key] = now
                self._availability.count(problem.reason)
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


class BesideOthers:
    """Hands each source what is wrong with its readings beside those of other sources, until nothing is any more."""

    def __init__(self, sources: Sequence[SourceRunner]) -> None:
        names = [source.name for source in sources]
        self._sources = sources
        self._usage_name = "cgroups" if "cgroups" in names else "procfs"  # of the source whose scope is checked
        self._judged = False

    def judge(self, deltas: Iterable[Delta], by_source: Mapping[str, Problem], of_scope: Sequence[Problem]) -> None:
        """Judge one tick: what meters grew by, one problem of a source's devices, and those of the scope of usage."""
        implausible = [delta for delta in deltas if delta.event == "implausible"]
        before, self._judged = self._judged, bool(implausible or by_source or of_scope)
        if not (before or self._judged):
            return
        for source in self._sources:
            source.reject(implausible)
            found = (by_source[source.name],) if source.name in by_source else ()
            source.judge((*found, *of_scope) if source.name == self._usage_name else found)


def _key(problem: Problem) -> str:
    return f"{problem.reason}: {problem.message}"
