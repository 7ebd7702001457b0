"""Learned idle power of a device: the lower envelope of power against utilisation, at zero utilisation."""

from __future__ import annotations

from bisect import bisect_left, bisect_right, insort
from collections import deque
from collections.abc import Iterable
from typing import Literal, NamedTuple

IdleMethod = Literal["learned", "configured", "prior"]

_EDGES = (0.01, 0.03, 0.06, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
_SAMPLES_PER_BIN = 32
_SAMPLES_NEEDED = 5
_LOW_QUANTILE = 0.2
_NEAR_IDLE_RATIO = 0.03
_SPREAD_NEEDED = 0.05


class Sample(NamedTuple):
    """One interval: utilisation 0–1 and mean watts."""

    utilization_ratio: float
    watts: float


class Idle(NamedTuple):
    """Idle watts and how they were obtained; None is unknown so far."""

    watts: float | None
    method: IdleMethod


def lower_envelope(points: Iterable[Sample]) -> list[Sample]:
    """Lower convex hull of points sorted by utilisation (Andrew's monotone chain)."""
    hull: list[Sample] = []
    for point in points:
        while len(hull) >= 2:
            a, b = hull[-2], hull[-1]
            cross = (b[0] - a[0]) * (point[1] - a[1]) - (b[1] - a[1]) * (point[0] - a[0])
            if cross > 0:
                break
            hull.pop()
        hull.append(point)
    return hull


class _Bin:
    """The last samples of one range of utilisation, also kept in order of (watts, utilisation)."""

    __slots__ = ("_ordered", "low", "recent")

    def __init__(self) -> None:
        self.recent: deque[Sample] = deque()
        self.low: Sample | None = None
        self._ordered: list[tuple[float, float]] = []

    def add(self, sample: Sample) -> bool:
        """Replace the oldest sample; True if that changes the bin's estimate."""
        recent, ordered = self.recent, self._ordered
        if len(recent) == _SAMPLES_PER_BIN:
            oldest = recent.popleft()
            del ordered[bisect_left(ordered, oldest[::-1])]
        recent.append(sample)
        insort(ordered, sample[::-1])
        watts, utilization_ratio = ordered[int(len(ordered) * _LOW_QUANTILE)]
        before = self.low
        self.low = Sample(utilization_ratio, watts)
        return self.low != before or len(recent) <= _SAMPLES_NEEDED


class Baseline:
    """Idle watts of one device.

    The last 32 samples of each bin of utilisation are kept, so that the baseline follows temperature and remembers
    idle hours during a busy day. Each bin is represented by its 20 % quantile of power, which is robust against a
    single low reading. The envelope's first segment is extrapolated to zero utilisation. Until the device was seen near
    idle often enough, or at loads far enough apart, the prior is used: the watts it is expected to need (`expect`), but
    no more than the lowest power seen; else the idle power at the assumed ``share`` (idle power over power at full use:
    least, assumed, most) if power grows evenly with utilisation up to the lowest power seen; else that power less its
    share by utilisation, which is zero for a device only ever seen at full load. ``configured`` watts are not learned,
    nor those ``assumed`` by the model that replaces a meter.
    """

    def __init__(
        self,
        configured: float | None = None,
        samples: Iterable[Sample] = (),
        assumed: float | None = None,
        share: tuple[float, float, float] | None = None,
    ) -> None:
        self._share = share
        self._assumed = None if assumed is None else Idle(assumed, "prior")
        self._expected: float | None = None
        self._bins = [_Bin() for _ in range(len(_EDGES) + 1)]
        for sample in samples:
            self._put(Sample(*sample))
        self.configure(configured)

    def observe(self, utilization_ratio: float, watts: float) -> None:
        """Add one interval that was read without a gap."""
        changed = self._put(Sample(min(max(utilization_ratio, 0.0), 1.0), watts))
        if changed and self._given is None:
            self._idle = self._estimate()

    @property
    def idle(self) -> Idle:
        """Idle watts now."""
        return self._idle

    @property
    def bounds(self) -> tuple[float, float] | None:
        """Least and most idle watts by the published shares; None unless the idle watts are assumed by them."""
        if self._share is None or self._idle.method != "prior" or self._given is not None:
            return None
        lows = [bin_.low for bin_ in self._bins if bin_.low is not None]
        if not lows:
            return None
        least, _, most = self._share
        return min(_idle_at(low, least) for low in lows), min(_idle_at(low, most) for low in lows)

    def configure(self, watts: float | None) -> None:
        """Set configured idle watts; None learns them, unless they are assumed."""
        self._given = self._assumed if watts is None else Idle(watts, "configured")
        self._idle = self._given or self._estimate()

    @property
    def is_guess(self) -> bool:
        """Whether idle watts are to be learned and are not yet."""
        return self._given is None and self._idle.method == "prior"

    def expect(self, watts: float | None) -> None:
        """Set the idle watts that devices like this one need, None if unknown; they count until its own are learned."""
        if watts != self._expected:
            self._expected = watts
            if self._given is None:
                self._idle = self._estimate()

    def samples(self) -> list[Sample]:
        """All samples, for the checkpoint."""
        return [sample for bin_ in self._bins for sample in bin_.recent]

    def _put(self, sample: Sample) -> bool:
        return self._bins[bisect_right(_EDGES, sample.utilization_ratio)].add(sample)

    def _estimate(self) -> Idle:
        lows = [bin_.low for bin_ in self._bins if bin_.low is not None]
        if not lows:
            return Idle(self._expected, "prior")
        trusted = [bin_.low for bin_ in self._bins if bin_.low and len(bin_.recent) >= _SAMPLES_NEEDED]
        hull = lower_envelope(sorted(trusted))
        if hull:
            left = hull[0]
            far = [p for p in hull if p.utilization_ratio - left.utilization_ratio >= _SPREAD_NEEDED]
            if far:
                slope = (far[0].watts - left.watts) / (far[0].utilization_ratio - left.utilization_ratio)
                return Idle(max(0.0, left.watts - max(slope, 0.0) * left.utilization_ratio), "learned")
            if left.utilization_ratio <= _NEAR_IDLE_RATIO:
                return Idle(left.watts * (1 - left.utilization_ratio), "learned")
        if self._expected is not None and min(lows).utilization_ratio > _NEAR_IDLE_RATIO:
            return Idle(min([self._expected, *(low.watts for low in lows)]), "prior")
        if self._share is not None:
            return Idle(min(_idle_at(low, self._share[1]) for low in lows), "prior")
        return Idle(min(low.watts * (1 - low.utilization_ratio) for low in lows), "prior")


def _idle_at(sample: Sample, share: float) -> float:
    """Idle watts of a device with this idle share that draws ``watts`` at a utilisation."""
    return sample.watts * share / max(share + (1 - share) * sample.utilization_ratio, 1e-9)
