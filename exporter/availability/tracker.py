"""The availability of a source or metadata provider, with one log line when it goes down and one when it is back."""

from __future__ import annotations

import logging

from ..records import REASONS, Reason, SourceHealth, Unavailable

RETRY_FIRST_SECONDS = 1.0
RETRY_MAX_SECONDS = 60.0


class Backoff:
    """Delays between retries in seconds, doubled after each up to ``max_seconds``."""

    def __init__(self, first_seconds: float = RETRY_FIRST_SECONDS, max_seconds: float = RETRY_MAX_SECONDS) -> None:
        self._first_seconds = first_seconds
        self._max_seconds = max_seconds
        self.seconds = first_seconds

    def next(self) -> float:
        """The delay before the next retry, in seconds."""
        seconds = self.seconds
        self.seconds = min(2 * seconds, self._max_seconds)
        return seconds

    def reset(self) -> None:
        """Start again from the first delay."""
        self.seconds = self._first_seconds


class AvailabilityTracker:
    """Tracks whether a source or metadata provider is up, the reason if it is not, and its failures by reason.

    ``kind`` is its name in log lines. With ``optional``, its absence (``not_found``) is logged at level INFO unless it
    was up before: most machines lack most meters. Used by one thread; `health` returns an immutable value for others.
    """

    def __init__(self, name: str, kind: str, log: logging.Logger, *, optional: bool = False) -> None:
        self.up: bool | None = None
        """None until the first success or failure."""
        self._name = name
        self._kind = kind
        self._log = log
        self._optional = optional
        self._reason: Reason | None = None
        self._message = ""
        self._fix = ""
        self._failures: dict[Reason, int] = dict.fromkeys(REASONS, 0)
        self._last_success = 0.0
        self._read_seconds = 0.0

    def succeeded(self, wall: float) -> None:
        """Record a success at ``wall``, in Unix seconds."""
        self._last_success = wall
        if self.up is False:
            self._log.info(f"{self._kind} is back", extra={"source": self._name})
        self.up = True
        self._reason, self._message, self._fix = None, "", ""

    def failed(self, error: Exception) -> None:
        """Record a failure, and log it if it is the first one or its reason is new.

        An exception other than `Unavailable` has the reason ``error`` and is logged with its traceback.
        """
        if isinstance(error, Unavailable):
            known, cause = error, None
        else:
            known, cause = Unavailable("error", f"{type(error).__name__}: {error}"), error
        self.count(known.reason)
        if self.up is not False or self._reason != known.reason:
            absent = self._optional and self.up is None and known.reason == "not_found"
            self._log.log(
                logging.INFO if absent else logging.WARNING,
                f"{self._kind} is not available",
                exc_info=cause,
                extra={"source": self._name, "reason": known.reason, "cause": known.message, "fix": known.fix},
            )
        self.up = False
        self._reason, self._message, self._fix = known.reason, known.message, known.fix

    def count(self, reason: Reason, failures: int = 1) -> None:
        """Count failures that do not change the availability."""
        self._failures[reason] += failures

    def add_read_seconds(self, seconds: float) -> None:
        """Add the duration of a read."""
        self._read_seconds += seconds

    def health(self) -> SourceHealth:
        """The current state; not up before the first success."""
        return SourceHealth(
            self._name,
            bool(self.up),
            self._reason,
            self._message,
            self._fix,
            self._failures.copy(),
            self._last_success,
            self._read_seconds,
        )
