"""What counters grew by in a window, as the dashboards have it: from values, nothing is extrapolated."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import NamedTuple, Protocol

from .. import __version__
from .lines import Period
from .prometheus import NoDataError, Prometheus, TooMuchDataError
from .window import DAY_SECONDS, MINUTE_SECONDS, Window

_SHORTEST_SECONDS = 900.0
"""An engine that cannot read so little at once is not asked for less."""

_MOST_SKEW_SECONDS = 60.0
_LOOKBACK_SECONDS = 300.0
"""How long before a moment engines look for its sample (``--query.lookback-delta``)."""

_POINTS = 500
"""A window is looked at so often to see which part of it has samples."""

Labels = tuple[str, ...]
Growth = dict[Labels, float]
"""Values of the labels that were asked for, in that order → what their counters grew by; "" is a label not there."""

PLACE = ("cluster", "instance", "namespace", "pod", "container")
"""The labels of a container."""


class Coverage(NamedTuple):
    """The first minute of a window with samples ends at ``since``, in Unix seconds; for ``seconds`` there are any."""

    since: float
    seconds: float


class Source(Protocol):
    """Where the growth of counters is read: a Prometheus, or the history that one exporter keeps itself.

    ``advance`` is called after each part that was read. Every method raises `QueryError`.
    """

    advance: Callable[[], None]

    @property
    def name(self) -> str:
        """What it is, for a note: an address or a file."""

    def aligned(self, window: Window) -> Window:
        """The window that is read for one that is asked for."""

    def of(self, metric: str, by: Sequence[str], window: Window, where: str = "") -> Growth:
        """Growth in ``window`` by some labels, of the series with the matchers ``where`` (``kind="output"``)."""

    def parts(self, window: Window) -> list[Window]:
        """The parts of a window that are read one by one."""

    def coverage(self, window: Window) -> Coverage:
        """Which part of a window there are samples of; an error if there are none."""

    def described(self, by: Sequence[str], window: Window) -> Mapping[Labels, Labels]:
        """`PLACE` → labels that `energy_container_info` had last in the window; places without any are left out."""

    def remarks(self, window: Window) -> Sequence[str]:
        """What a reader must know of the source, in sentences."""

    def presence(self, window: Window) -> Mapping[Labels, Period]:
        """`PLACE` → when a container that works for a model ran in the window: to minutes, or to the hour."""


def expression(metric: str, matchers: str, by: Sequence[str], seconds: float) -> str:
    """PromQL of the growth of ``metric`` in the last ``seconds``, a sum by some labels.

    It starts at the value before the window, or at the first one in it, and ends at the last one. Only where a counter
    was reset since that value, or in the five minutes before the window, it is `increase()`, which extrapolates to the
    edges of the window.
    """
    counter = f"{metric}{{{matchers}}}" if matchers else metric
    window, longer = f"{counter}[{seconds:.0f}s]", f"{counter}[{seconds + _LOOKBACK_SECONDS:.0f}s]"
    return (
        f"sum by ({', '.join(by)}) (max_over_time({window}) - "
        f"({counter} offset {seconds:.0f}s or min_over_time({window})) "
        f"unless resets({longer}) > 0 or increase({window}))"
    )


class Growths:
    """Growth of counters of one Prometheus; days are read one by one, and smaller parts where a day is too much.

    ``matchers`` select series of every metric (``cluster="a"``). ``advance`` is called after each part that was read.
    """

    def __init__(self, prometheus: Prometheus, matchers: str = "", advance: Callable[[], None] = lambda: None) -> None:
        self.prometheus = prometheus
        self.matchers = matchers
        self.advance = advance
        self._part_seconds = DAY_SECONDS

    @property
    def name(self) -> str:
        """The address of the Prometheus."""
        return self.prometheus.url

    def aligned(self, window: Window) -> Window:
        """The same window."""
        return window

    def of(self, metric: str, by: Sequence[str], window: Window, where: str = "") -> Growth:
        """Growth in ``window`` by some labels. Raises `QueryError`."""
        grown: defaultdict[Labels, float] = defaultdict(float)
        for part in self.parts(window):
            for labels, amount in self._read(metric, by, part, where):
                grown[labels] += amount
            self.advance()
        return dict(grown)

    def parts(self, window: Window) -> list[Window]:
        """The parts of a window after which `advance` is called: days."""
        return window.parts(DAY_SECONDS)

    def coverage(self, window: Window) -> Coverage:
        """Which part of a window has samples, the first sample to a minute. Raises `QueryError` if none has."""
        part = window
        while True:
            step = max(MINUTE_SECONDS, float(int(part.seconds / _POINTS)))
            times = self._times(part, step)
            if not times or (step == MINUTE_SECONDS and len(times) < 2):
                raise NoDataError(
                    f"{self.name}: no samples of energy_node_joules_total"
                    f"{f' with {self.matchers}' if self.matchers else ''} in this window; is an exporter scraped?"
                )
            known = Window(max(window.start, times[0] - step), min(window.end, times[-1] + step))
            if step == MINUTE_SECONDS or known.seconds > part.seconds / 2:
                break
            part = known
        since = (self._times(Window(known.start, times[0]), MINUTE_SECONDS) or times)[0]
        return Coverage(since, min(window.end - since, len(times) * step))

    def _times(self, window: Window, step: float) -> list[float]:
        """Moments, ``step`` apart and the end among them, with a sample; before the first, those that had one since."""
        nodes = self._selector("energy_node_joules_total")
        first = window.end - int(window.seconds / step) * step
        times = self.prometheus.times(f"count({nodes})", first, window.end, step)
        if step <= _LOOKBACK_SECONDS:
            return times
        end = times[0] - step if times else window.end
        if end < first:
            return times
        return [*self.prometheus.times(f"count(last_over_time({nodes}[{step:.0f}s]))", first, end, step), *times]

    def described(self, by: Sequence[str], window: Window) -> Mapping[Labels, Labels]:
        """Labels of `energy_container_info` by place. Raises `QueryError`."""
        query = (
            f"group by ({', '.join((*PLACE, *by))}) "
            f"(last_over_time(energy_container_info{{{self.matchers}}}[{window.seconds:.0f}s]))"
        )
        found = {}
        for labels, _ in self.prometheus.instant(query, window.end):
            known = tuple([labels.get(label, "") for label in by])
            if any(known):
                found[tuple([labels.get(label, "") for label in PLACE])] = known
        return found

    def presence(self, window: Window) -> Mapping[Labels, Period]:
        """Containers that work for a model, by place: first sample, last growth, cards. Raises `QueryError`.

        Both times are looked for every quarter of an hour, every five minutes in less than a day.
        """
        step = 900.0 if window.seconds >= DAY_SECONDS else 300.0
        by, steps = f"by ({', '.join(PLACE)})", f"[{window.seconds:.0f}s:{step:.0f}s]"
        info = self._selector("energy_container_info", 'model_name!=""')
        active = self._selector("energy_container_joules_total", 'mode="active"')
        cards = self._selector("energy_container_gpu_joules_total")
        growth = f"{active} - {active} offset 5m > 0"
        starts = self._at(f"min {by} (min_over_time(timestamp({info}){steps}))", window)
        ends = self._at(f"max {by} (max_over_time(timestamp({growth}){steps}))", window)
        held = f"group by ({', '.join((*PLACE, 'uuid'))}) (last_over_time({cards}[{window.seconds:.0f}s]))"
        counts = self._at(f"count {by} ({held})", window)
        found = {}
        for place, start in starts.items():
            end = max(ends.get(place, 0.0), min(start + step, window.end))
            found[place] = Period(start, end, counts.get(place, 0.0) * (end - start))
        return found

    def remarks(self, window: Window) -> Sequence[str]:
        """Exporters of other versions, clocks that differ, and nodes with several series. Raises `QueryError`."""
        return [*self._versions(window), *self._clocks(window), *self._replicas(window)]

    def _versions(self, window: Window) -> Iterator[str]:
        info = self._selector("energy_exporter_build_info")
        found = self.prometheus.instant(
            f"group by (version) (last_over_time({info}[{window.seconds:.0f}s]))", window.end
        )
        others = sorted({labels.get("version", "") for labels, _ in found} - {__version__, ""})
        if others:
            yield (
                f"This command is of version {__version__}, exporters are of {', '.join(others)}: what one of them "
                "does not count is missing here."
            )

    def _clocks(self, window: Window) -> Iterator[str]:
        at = self._selector("energy_sample_timestamp_seconds")
        skew = f"max by (instance) (abs(max_over_time((timestamp({at}) - {at})[1h:5m])))"
        late = [(labels.get("instance", ""), value) for labels, value in self.prometheus.instant(skew, window.end)]
        wrong = sorted(((value, name) for name, value in late if value > _MOST_SKEW_SECONDS), reverse=True)
        if wrong:
            value, name = wrong[0]
            more = f", and of {len(wrong) - 1} more" if len(wrong) > 1 else ""
            yield f"The clock of {name}{more} differs from that of Prometheus, by {value:.0f} s."

    def _replicas(self, window: Window) -> Iterator[str]:
        """Nodes whose energy is there several times, as that of two Prometheus in one store."""
        nodes = f"count by (cluster, instance, component) ({self._selector('energy_node_joules_total')})"
        always = f"min_over_time(({nodes})[1h:5m]) > 1"
        for _, count in self.prometheus.instant(f"count(group by (cluster, instance) ({always}))", window.end):
            yield (
                f"Nodes with several series of the same energy, such as those of replicas: {count:.0f}. "
                "All of them are added up; choose one by --prometheus.matchers, such as 'replica=\"a\"'."
            )

    def _selector(self, metric: str, where: str = "") -> str:
        return f"{metric}{{{','.join(filter(None, (self.matchers, where)))}}}"

    def _at(self, query: str, window: Window) -> Growth:
        """Values of a query by place at the end of a window."""
        return {
            tuple([labels.get(label, "") for label in PLACE]): value
            for labels, value in self.prometheus.instant(query, window.end)
        }

    def _read(self, metric: str, by: Sequence[str], window: Window, where: str) -> Iterator[tuple[Labels, float]]:
        matchers = ",".join(filter(None, (self.matchers, where)))
        start = window.start
        while start < window.end:
            part = Window(start, min(start + self._part_seconds, window.end))
            try:
                samples = self.prometheus.instant(expression(metric, matchers, by, part.seconds), part.end)
            except TooMuchDataError:
                if part.seconds / 2 < _SHORTEST_SECONDS:
                    raise
                self._part_seconds = float(int(part.seconds / 2))
                continue
            for sample in samples:
                yield tuple([sample.labels.get(label, "") for label in by]), sample.value
            start = part.end
