"""Compares a device's energy counter with its own power gauge."""

from __future__ import annotations

from typing import NamedTuple

FIRST_SECONDS, WINDOW_SECONDS = 60.0, 300.0
"""The first result comes soon after the start, then one every five minutes. A gauge read once a second misses changes
in between, and NVIDIA's covers at most 25 % of the time on A100 and H100 (arXiv 2312.02741). Over 300 readings the
error averages out to a few percent; a counter's steps of up to 100 ms are negligible beside it."""

MIN_RATIO, MAX_RATIO = 0.5, 2.0
"""Outside these bounds one of the two is wrong. Healthy cards agree within 1 % under steady load (ml-energy/zeus #12),
or 5 % where the gauge is that inaccurate; an idle one was seen at 0.57 (zeus #181). Broken counters were off by a
factor of 15 (ROCm/amdsmi #38) or did not advance (ROCm/rocm_smi_lib #180)."""

_GAP_SECONDS = 10.0

_SLACK_SECONDS = 0.1
_MIN_WATTS = 1.0
"""A gauge below this is not compared: some virtual GPUs report 0 W."""


class _Sample(NamedTuple):
    at: float
    joules: float
    watts: float


class Agreement:
    """Compares the joules of a counter with the gauge's watts integrated over the same time, window by window.

    ``ratio`` is counter over gauge in the last full window; None before the first window is complete. A time between
    two readings longer than ``gap_seconds`` is left out on both sides: the power during it is not known.
    """

    def __init__(self, gap_seconds: float = _GAP_SECONDS) -> None:
        self.ratio: float | None = None
        self._gap = gap_seconds
        self._last: _Sample | None = None
        self._window = FIRST_SECONDS
        self._seconds = self._counted = self._drawn = 0.0

    @property
    def is_broken(self) -> bool:
        """Whether they differ so much that one of them must be wrong."""
        return self.ratio is not None and not MIN_RATIO <= self.ratio <= MAX_RATIO

    def feed(self, at: float, joules: float, watts: float, max_watts: float) -> None:
        """Add both values as of boot time ``at``.

        An interval in which the counter decreased, or increased by more than ``max_watts`` explain, is left out: that
        is a reset or a glitch, which accounting detects.
        """
        last, self._last = self._last, _Sample(at, joules, watts)
        if last is None:
            return
        seconds, counted = at - last.at, joules - last.joules
        if not (0 < seconds <= self._gap and 0 <= counted <= max_watts * (seconds + _SLACK_SECONDS)):
            return
        self._seconds += seconds
        self._counted += counted
        self._drawn += (last.watts + watts) / 2 * seconds
        if self._seconds >= self._window:
            enough = self._drawn >= _MIN_WATTS * self._seconds
            self.ratio = self._counted / self._drawn if enough else None
            self._window = WINDOW_SECONDS
            self._seconds = self._counted = self._drawn = 0.0
