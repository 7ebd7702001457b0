"""Container metadata by container and pod id: written by a provider's thread, read by the tick without a lock."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Collection, Mapping

from .container_metadata import ContainerMetadata

LINGER_SECONDS = 120.0
"""How long metadata is kept after its owner was deleted: its cgroup may still be attributed energy."""

MAX_IDS = 20_000
"""Limit of the ids held, however many containers start and stop; the ones deleted first are evicted first."""


class MetadataCache:
    """Maps owners (a pod, a container) to their ids, and ids to metadata.

    One reader calls `find` and `changed`; one writer calls everything else. Every change of an entry is a single
    assignment, so the reader sees it before or after the change, never in between.
    """

    def __init__(
        self, clock: Callable[[], float], linger_seconds: float = LINGER_SECONDS, max_ids: int = MAX_IDS
    ) -> None:
        self._clock = clock
        self._linger_seconds = linger_seconds
        self._max_ids = max_ids
        self._metadata: dict[str, ContainerMetadata] = {}
        self._owners: dict[str, Collection[str]] = {}
        self._removed_at: dict[str, float] = {}
        self._changed: deque[str] = deque(maxlen=4 * max_ids)

    def __len__(self) -> int:
        return len(self._metadata)

    def __contains__(self, owner: str) -> bool:
        return owner in self._owners

    def find(self, key: str) -> ContainerMetadata | None:
        """Metadata of an id, None if there is none."""
        return self._metadata.get(key)

    def changed(self) -> set[str]:
        """Ids whose metadata is new or different since the last call."""
        changed: set[str] = set()
        while self._changed:
            changed.add(self._changed.popleft())
        return changed

    def put(self, owner: str, entries: Mapping[str, ContainerMetadata]) -> None:
        """Replace the entries of an owner; ids that are no longer among them linger."""
        for key in self._owners.get(owner, ()):
            if key not in entries:
                self._removed_at[key] = self._clock()
        self._owners[owner] = tuple(entries)
        for key, metadata in entries.items():
            self._removed_at.pop(key, None)
            if self._metadata.get(key) != metadata:
                self._metadata[key] = metadata
                self._changed.append(key)
        if len(self._metadata) > self._max_ids:
            self.expire()

    def remove(self, owner: str) -> None:
        """Remove an owner; its entries linger."""
        now = self._clock()
        for key in self._owners.pop(owner, ()):
            self._removed_at[key] = now

    def retain(self, owners: Collection[str]) -> None:
        """Remove every owner that is not in ``owners``."""
        for owner in [owner for owner in self._owners if owner not in owners]:
            self.remove(owner)

    def expire(self) -> None:
        """Evict removed entries that have lingered long enough and, above the limit, the oldest of the others."""
        deadline = self._clock() - self._linger_seconds
        excess = len(self._metadata) - self._max_ids
        for key in [*self._removed_at]:  # oldest first
            if self._removed_at[key] > deadline and excess <= 0:
                return
            del self._removed_at[key]
            self._metadata.pop(key, None)
            excess -= 1
