"""Reads energy counters of cards several times between two readings, while programs report regions on them."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Collection

from ...records import CardSteps
from .counter_steps import CounterSteps
from .library import DriverError

PERIOD_SECONDS = 0.05
"""Mean time between two reads. Each comes up to half of it earlier or later: steps of programs must not be in time with
the reads."""

MAX_CPU_RATIO = 0.008
MAX_TIME_RATIO = 0.05
"""Largest shares of one core, and of the time, that reads of one card may take: where they take more they are further
apart. With what is around them that is 1 % of a core. A call that waits in the driver uses no CPU, but may keep the
card's users waiting."""

_JITTER = 0.5


class FastReads:
    """Values of the energy counters of the watched cards, each value once: drivers update them each 20 to 100 ms.

    ``counter`` returns the joules of a card, None if it has no counter or is not to be read now, and raises
    `DriverError`; such a card is left alone until it is watched again. Nothing is read while no card is watched.
    """

    def __init__(
        self,
        counter: Callable[[str], float | None],
        clock: Callable[[], float],
        cpu_clock: Callable[[], float] = time.thread_time,
        uniform: Callable[[float, float], float] = random.uniform,
    ) -> None:
        self._counter = counter
        self._clock = clock
        self._cpu_clock = cpu_clock
        self._uniform = uniform
        self._cards: dict[str, CounterSteps] = {}
        self._failed: set[str] = set()
        self._due = 0.0

    def watch(self, cards: Collection[str]) -> None:
        """Read these cards from now on, and no others."""
        if cards or self._cards:
            self._cards = {card: self._cards.get(card) or CounterSteps() for card in cards}
            self._failed.clear()

    def wait_seconds(self) -> float | None:
        """Time until the next read is due; None if there is none."""
        if len(self._cards) == len(self._failed):
            return None
        return max(0.0, self._due - self._clock())

    def read(self) -> None:
        """Read each card that is watched once. Raises nothing."""
        began, cpu_began = self._clock(), self._cpu_clock()
        reads = 0
        for name, card in self._cards.items():
            if name in self._failed:
                continue
            reads += 1
            try:
                joules = self._counter(name)
            except DriverError:
                joules = None  # the next reading says why
            if joules is None:
                self._failed.add(name)
                card.interrupt()
            else:
                card.note(joules, self._clock())
        period = PERIOD_SECONDS * self._uniform(1.0 - _JITTER, 1.0 + _JITTER)
        taken, used = self._clock() - began, self._cpu_clock() - cpu_began
        self._due = began + max(period, max(taken / MAX_TIME_RATIO, used / MAX_CPU_RATIO) / max(1, reads))

    def take(self) -> tuple[CardSteps, ...]:
        """The steps since the last call."""
        found = [CardSteps(name, card.take()) for name, card in self._cards.items()]
        return tuple([card for card in found if card.steps])
