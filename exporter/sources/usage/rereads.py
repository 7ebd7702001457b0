"""When the name of a process is read again: programs set titles late, and between fork and exec it is the parent's."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator

from .process_clock import ProcessTable, Tracked

_INTERVALS = (5.0, 10.0, 20.0, 40.0, 60.0, 300.0)
"""Seconds between one reading and the next; the last one repeats. vLLM sets its titles after half a minute."""

_PER_TICK = 4
"""Readings in one tick at most, beside those of new processes."""


class Rereads:
    """Processes in the order in which they are due. One that used no CPU in the interval keeps its name unread."""

    def __init__(self) -> None:
        self._queues: tuple[deque[tuple[float, Tracked, float]], ...] = tuple([deque() for _ in _INTERVALS])
        self._due_at = float("inf")

    def add(self, tracked: Tracked, now: float) -> None:
        """A process was found at boot time ``now``."""
        self._queues[0].append((now + _INTERVALS[0], tracked, float("-inf")))
        self._due_at = min(self._due_at, now + _INTERVALS[0])

    def settle(self) -> None:
        """Treat all processes so far as a minute old."""
        for queue in self._queues[:-2]:
            for due, tracked, seconds in queue:
                self._queues[-2].append((due - _INTERVALS[0] + _INTERVALS[-2], tracked, seconds))
            queue.clear()

    def due(self, now: float, table: ProcessTable) -> Iterator[Tracked]:
        """The processes to read now, of those that still exist."""
        if now < self._due_at:
            return
        left = _PER_TICK
        for step, queue in enumerate(self._queues):
            last = min(step + 1, len(self._queues) - 1)
            while queue and queue[0][0] <= now and (left > 0 or step == 0):
                _, tracked, seconds = queue.popleft()
                if table.find(tracked.process.key.pid) is not tracked:
                    continue
                self._queues[last].append((now + _INTERVALS[last], tracked, tracked.seconds))
                if tracked.seconds > seconds:
                    left -= 1
                    yield tracked
        self._due_at = min([queue[0][0] for queue in self._queues if queue], default=float("inf"))
