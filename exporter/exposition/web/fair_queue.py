"""A fair queue: steps run round-robin by client, so that thousands from one address delay others by one step."""

from __future__ import annotations

import asyncio
from collections import OrderedDict, deque
from collections.abc import Callable

_SLICE_SECONDS = 0.002
"""After this time the queue yields to the other callbacks of the loop."""


class FairQueue:
    """Runs steps in the event loop, round-robin by client. `add` needs a running loop."""

    def __init__(self) -> None:
        self._steps: OrderedDict[str, deque[Callable[[], None]]] = OrderedDict()
        self._running = False

    def add(self, client_key: str, step: Callable[[], None]) -> None:
        """Schedule a step. An exception goes to the loop's exception handler; later steps still run."""
        self._steps.setdefault(client_key, deque()).append(step)
        if not self._running:
            self._running = True
            asyncio.get_running_loop().call_soon(self._run)

    def _run(self) -> None:
        loop = asyncio.get_running_loop()
        until = loop.time() + _SLICE_SECONDS
        try:
            while self._steps and loop.time() < until:
                client_key, steps = self._steps.popitem(last=False)
                step = steps.popleft()
                if steps:
                    self._steps[client_key] = steps
                step()
        finally:
            self._running = bool(self._steps)
            if self._running:
                loop.call_soon(self._run)
