"""What counters grew by in a window, as the dashboards have it: from values, nothing is extrapolated."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence

from .prometheus import Prometheus, TooMuchDataError
from .window import DAY_SECONDS, Window

_SHORTEST_SECONDS = 900.0
"""An engine that cannot read so little at once is not asked for less."""

Labels = tuple[str, ...]
Growth = dict[Labels, float]
"""Values of the labels that were asked for, in that order → what their counters grew by; "" is a label not there."""


def expression(metric: str, matchers: str, by: Sequence[str], seconds: float) -> str:
    """PromQL of the growth of ``metric`` in the last ``seconds``, a sum by some labels.

    It starts at the value before the window, or at the first one in it, and ends at the last one. Only where a counter
    was reset it is `increase()`, which extrapolates to the edges of the window.
    """
    counter = f"{metric}{{{matchers}}}" if matchers else metric
    window = f"{counter}[{seconds:.0f}s]"
    return (
        f"sum by ({', '.join(by)}) (max_over_time({window}) - "
        f"({counter} offset {seconds:.0f}s or min_over_time({window})) "
        f"unless resets({window}) > 0 or increase({window}))"
    )


class Growths:
    """Growth of counters of one Prometheus; days are read one by one, and smaller parts where a day is too much.

    ``matchers`` select series of every metric (``cluster="a"``). ``advance`` is called after each part that was read.
    """

    def __init__(self, prometheus: Prometheus, matchers: str = "", advance: Callable[[], None] = lambda: None) -> None:
        self._prometheus = prometheus
        self._matchers = matchers
        self._advance = advance
        self._part_seconds = DAY_SECONDS

    def of(self, metric: str, by: Sequence[str], window: Window, where: str = "") -> Growth:
        """Growth in ``window`` by some labels. Raises `QueryError`."""
        grown: defaultdict[Labels, float] = defaultdict(float)
        for part in self.parts(window):
            for labels, amount in self._read(metric, by, part, where):
                grown[labels] += amount
            self._advance()
        return dict(grown)

    @staticmethod
    def parts(window: Window) -> list[Window]:
        """The parts of a window after which `advance` is called."""
        return window.parts(DAY_SECONDS)

    def _read(self, metric: str, by: Sequence[str], window: Window, where: str) -> Iterator[tuple[Labels, float]]:
        matchers = ",".join(filter(None, (self._matchers, where)))
        start = window.start
        while start < window.end:
            part = Window(start, min(start + self._part_seconds, window.end))
            try:
                samples = self._prometheus.instant(expression(metric, matchers, by, part.seconds), part.end)
            except TooMuchDataError:
                if part.seconds / 2 < _SHORTEST_SECONDS:
                    raise
                self._part_seconds = float(int(part.seconds / 2))
                continue
            for sample in samples:
                yield tuple([sample.labels.get(label, "") for label in by]), sample.value
            start = part.end
