"""Facts by container and pod id: written by a directory's thread, read by the tick without a lock."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Collection, Mapping

from .container_metadata import Facts

LINGER_SECONDS = 120.0
"""How long the facts of what is gone are kept: its cgroup may be booked after the API has forgotten it."""

MOST = 20_000
"""Ids known at the same time; the longest gone are forgotten first (fault 43)."""


class FactBook:
    """Owners (a pod, a container) and the ids each goes by. Every method but `find` and `changed` is the writer's.

    A reader sees each id before or after a change, never in between, because every change is one assignment.
    """

    def __init__(self, clock: Callable[[], float], linger_seconds: float = LINGER_SECONDS, most: int = MOST) -> None:
        self._clock = clock
        self._linger_seconds = linger_seconds
        self._most = most
        self._facts: dict[str, Facts] = {}
        self._owners: dict[str, Collection[str]] = {}
        self._gone: dict[str, float] = {}
        self._changed: deque[str] = deque(maxlen=4 * most)

    def __len__(self) -> int:
        return len(self._facts)

    def __contains__(self, owner: str) -> bool:
        return owner in self._owners

    def find(self, key: str) -> Facts | None:
        """Facts about an id, None if there are none."""
        return self._facts.get(key)

    def changed(self) -> set[str]:
        """Ids whose facts came or changed since the last call; for one reader."""
        changed: set[str] = set()
        while self._changed:
            changed.add(self._changed.popleft())
        return changed

    def put(self, owner: str, entries: Mapping[str, Facts]) -> None:
        """All that is known of an owner now; ids it no longer goes by linger."""
        for key in self._owners.get(owner, ()):
            if key not in entries:
                self._gone[key] = self._clock()
        self._owners[owner] = tuple(entries)
        for key, facts in entries.items():
            self._gone.pop(key, None)
            if self._facts.get(key) != facts:
                self._facts[key] = facts
                self._changed.append(key)
        if len(self._facts) > self._most:
            self.expire()

    def drop(self, owner: str) -> None:
        """An owner is gone; what is known of it lingers."""
        now = self._clock()
        for key in self._owners.pop(owner, ()):
            self._gone[key] = now

    def keep(self, owners: Collection[str]) -> None:
        """Drop all others."""
        for owner in [owner for owner in self._owners if owner not in owners]:
            self.drop(owner)

    def expire(self) -> None:
        """Forget what has been gone for long, and of what is gone the oldest if there is too much."""
        deadline = self._clock() - self._linger_seconds
        excess = len(self._facts) - self._most
        for key in [*self._gone]:  # the longest gone come first
            if self._gone[key] > deadline and excess <= 0:
                return
            del self._gone[key]
            self._facts.pop(key, None)
            excess -= 1
