"""Whether a device's energy counter and its own power gauge tell the same story."""

from __future__ import annotations

from typing import NamedTuple

FIRST_SECONDS, WINDOW_SECONDS = 60.0, 300.0
"""A first answer soon after the start, then one every five minutes: a gauge read once a second misses what happens in
between, and NVIDIA's shows 25 % of the time at most on A100 and H100 (arXiv 2312.02741). Over 300 readings that evens
out to a few percent; a counter's steps of up to 100 ms are nothing beside it."""

MIN_RATIO, MAX_RATIO = 0.5, 2.0
"""Beyond these bounds one of the two is wrong. Healthy cards agree within 1 % under steady load (ml-energy/zeus #12),
or 5 % where the gauge is that far off; an idle one was seen at 0.57 (zeus #181). Counters that are broken were off by
15 (ROCm/amdsmi #38) or stood still (ROCm/rocm_smi_lib #180)."""

_GAP_SECONDS = 10.0
"""What happened in a longer silence nobody knows; it is left out on both sides."""

_SLACK_SECONDS = 0.1
_MIN_WATTS = 1.0
"""A gauge that shows less shows nothing: some virtual GPUs say 0 W."""


class _Sample(NamedTuple):
    at: float
    joules: float
    watts: float


class Agreement:
    """Compares what a counter counted with its gauge's watts added up over the same time, window after window.

    ``ratio`` is counted over added up in the last full window; None before the first has passed.
    """

    def __init__(self) -> None:
        self.ratio: float | None = None
        self._last: _Sample | None = None
        self._window = FIRST_SECONDS
        self._seconds = self._counted = self._drawn = 0.0

    @property
    def is_broken(self) -> bool:
        """Whether they are so far apart that one of them must be wrong."""
        return self.ratio is not None and not MIN_RATIO <= self.ratio <= MAX_RATIO

    def feed(self, at: float, joules: float, watts: float, max_watts: float) -> None:
        """Take both as they were at boot time ``at``.

        A time in which the counter fell, or leapt by more than ``max_watts`` explain, is left out: that is a reset
        or a glitch, which the meter's own rules tell.
        """
        last, self._last = self._last, _Sample(at, joules, watts)
        if last is None:
            return
        seconds, counted = at - last.at, joules - last.joules
        if not (0 < seconds <= _GAP_SECONDS and 0 <= counted <= max_watts * (seconds + _SLACK_SECONDS)):
            return
        self._seconds += seconds
        self._counted += counted
        self._drawn += (last.watts + watts) / 2 * seconds
        if self._seconds >= self._window:
            enough = self._drawn >= _MIN_WATTS * self._seconds
            self.ratio = self._counted / self._drawn if enough else None
            self._window = WINDOW_SECONDS
            self._seconds = self._counted = self._drawn = 0.0
