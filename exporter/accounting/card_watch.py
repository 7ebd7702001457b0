"""What each GPU did since the last tick, from two of its states."""

from __future__ import annotations

from collections.abc import Iterable

from ..records import GpuState
from .activity import UNKNOWN_CARD, CardFacts

_Part = tuple[str, str]
"""UUID of a card, and its MIG instance or ""."""


class CardWatch:
    """Keeps the last two states of each card and instance; facts are made only of those that are asked for."""

    def __init__(self) -> None:
        self._before: dict[_Part, GpuState] = {}
        self._states: dict[_Part, GpuState] = {}
        self._facts: dict[_Part, CardFacts] = {}
        self._window_seconds = 0.0

    def update(self, gpus: Iterable[GpuState], window_seconds: float) -> None:
        """Take the states of a tick of ``window_seconds``, which is the window of states without their own."""
        states = {(gpu.uuid, gpu.gpu_instance): gpu for gpu in gpus}
        if states:
            self._before, self._states = self._states, states
        self._window_seconds = window_seconds
        self._facts = {}

    def facts(self, device: str, gpu_instance: str = "") -> CardFacts:
        """What a card or instance did in this tick; nothing is known of one that was not read."""
        part = (device, gpu_instance)
        found = self._facts.get(part)
        if found is None:
            found = self._facts[part] = self._of(part)
        return found

    def _of(self, part: _Part) -> CardFacts:
        state = self._states.get(part)
        if state is None:
            return UNKNOWN_CARD
        return CardFacts(
            self._throttled(part[0]),
            state.utilization_ratio,
            state.sm_active_ratio,
            state.tensor_active_ratio,
            state.dram_active_ratio,
        )

    def _throttled(self, device: str) -> float | None:
        """Only cards have clocks. Reasons overlap, so the longest counts."""
        state, before = self._states.get((device, "")), self._before.get((device, ""))
        if state is None or before is None or not state.throttle_seconds:
            return None
        window = self._window_seconds if state.window_seconds is None else state.window_seconds
        if window <= 0:
            return None
        if state.throttle_seconds == before.throttle_seconds:
            return 0.0
        earlier = dict(before.throttle_seconds)
        passed = [seconds - earlier.get(reason, 0.0) for reason, seconds in state.throttle_seconds]
        return max(0.0, *passed) / window
