"""Whose turn it is: clients share the loop's time by address, so that thousands from one place delay nobody else."""

from __future__ import annotations

import asyncio
from collections import OrderedDict, deque
from collections.abc import Callable

_SLICE_SECONDS = 0.002
"""After so long, whoever else has something for the loop to do goes first."""


class FairQueue:
    """Runs steps in the loop, those of different addresses in turns. Needs a running loop from the first `add` on."""

    def __init__(self) -> None:
        self._steps: OrderedDict[str, deque[Callable[[], None]]] = OrderedDict()
        self._running = False

    def add(self, address: str, step: Callable[[], None]) -> None:
        """Have a step run soon. One that raises is told to the loop's handler and delays nobody."""
        self._steps.setdefault(address, deque()).append(step)
        if not self._running:
            self._running = True
            asyncio.get_running_loop().call_soon(self._run)

    def _run(self) -> None:
        loop = asyncio.get_running_loop()
        until = loop.time() + _SLICE_SECONDS
        try:
            while self._steps and loop.time() < until:
                address, steps = self._steps.popitem(last=False)
                step = steps.popleft()
                if steps:
                    self._steps[address] = steps
                step()
        finally:
            self._running = bool(self._steps)
            if self._running:
                loop.call_soon(self._run)
