"""The exporter in prometheus_client's terms: its snapshot as a collector, and a registry of metrics about itself."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    GCCollector,
    Histogram,
    Metric,
    PlatformCollector,
    ProcessCollector,
    disable_created_metrics,
)
from prometheus_client.core import Sample
from prometheus_client.registry import Collector

from ...snapshot import Snapshot
from .catalogue import CATALOGUE
from .families import Family

_log = logging.getLogger(__name__)

_BUCKETS = (0.001, 0.005, 0.025, 0.1, 0.5)
"""Upper bounds in seconds, from a cached body to a sample that takes a whole interval."""


class EnergyCollector(Collector):
    """The catalogue's metrics for a registry of prometheus_client.

    ``snapshot`` is called by each collection and returns the newest snapshot; None is before the first sample, when
    there are no metrics. The exporter's own scrapes are written by `exporter.exposition.metrics.render.Renderer`,
    which takes a twentieth of the time for the same series.
    """

    def __init__(self, snapshot: Callable[[], Snapshot | None]) -> None:
        self._snapshot = snapshot

    def describe(self) -> Iterator[Metric]:
        """Yield name, type and help of every family, without samples: registering collects nothing."""
        return map(_metric, CATALOGUE)

    def collect(self) -> Iterator[Metric]:
        """Yield every family that has samples."""
        snapshot = self._snapshot()
        if snapshot is None:
            return
        for family in CATALOGUE:
            metric = _metric(family)
            metric.samples = [Sample(family.name, labels, value) for labels, value in family.series(snapshot)]
            if metric.samples:
                yield metric


def _metric(family: Family) -> Metric:
    return Metric(family.stem, family.help, family.kind, family.unit)


class LateGauge(Gauge):
    """A gauge that is absent until it is set, because 0 is not "unknown"."""

    _known = False

    def set(self, value: float) -> None:
        """Set the value."""
        super().set(value)
        self._known = True

    def collect(self) -> Iterable[Metric]:
        """Return the metric, or nothing before it was set."""
        return super().collect() if self._known else ()


class Described(NamedTuple):
    """An instrument in the form of the reference: its full name as in text format 0.0.4, type, label names and help."""

    name: str
    kind: str
    labels: tuple[str, ...]
    help: str


class Instruments:
    """The exporter's metrics about itself; the service updates them, from any thread."""

    def __init__(self) -> None:
        self.config_last_reload_successful = Gauge(
            "energy_config_last_reload_successful",
            "1 if the configuration was loaded at the last request, 0 if the previous one was kept.",
            registry=None,
        )
        self.config_last_reload_successful.set(1)
        self.history_last_write_timestamp_seconds = LateGauge(
            "energy_history_last_write_timestamp_seconds",
            "Unix time of the last successful write of the history, in seconds, 0 if there was none; absent without a "
            "history file.",
            unit="seconds",
            registry=None,
        )
        self.http_requests = Counter(
            "energy_http_requests_total",
            "HTTP requests answered, by status code.",
            ("code",),
            registry=None,
        )
        self.http_requests.labels(200)  # counts from 0, so that rate() counts the first one
        self.sample_duration_seconds = Histogram(
            "energy_sample_duration_seconds",
            "Time that a sample took, in seconds; observed when the next one is published.",
            unit="seconds",
            registry=None,
            buckets=_BUCKETS,
        )
        self.scrape_duration_seconds = Histogram(
            "energy_scrape_duration_seconds",
            "Time until the body of a scrape was ready to be sent, in seconds; scrapes of the same sample share one "
            "body.",
            unit="seconds",
            registry=None,
            buckets=_BUCKETS,
        )
        self.state_last_write_timestamp_seconds = LateGauge(
            "energy_state_last_write_timestamp_seconds",
            "Unix time of the last successful write of the state file, in seconds; absent without a state file.",
            unit="seconds",
            registry=None,
        )
        self._sample_seconds = 0.0

    @property
    def all(self) -> tuple[Gauge | Counter | Histogram, ...]:
        """Every instrument, in the order of the exposition."""
        return (
            self.config_last_reload_successful,
            self.history_last_write_timestamp_seconds,
            self.http_requests,
            self.sample_duration_seconds,
            self.scrape_duration_seconds,
            self.state_last_write_timestamp_seconds,
        )

    def rows(self) -> Iterator[Described]:
        """Yield the description of each instrument."""
        for instrument in self.all:
            labels = {label for metric in instrument.collect() for sample in metric.samples for label in sample.labels}
            for metric in instrument.describe():
                name = f"{metric.name}_total" if metric.type == "counter" else metric.name
                yield Described(name, metric.type, tuple(sorted(labels - {"le"})), metric.documentation)

    def observe(self, snapshot: Snapshot) -> None:
        """Observe how long the sample before this one took. Called by the sampler, with every snapshot."""
        duration = snapshot.exporter.sample_seconds - self._sample_seconds
        self._sample_seconds = snapshot.exporter.sample_seconds
        if snapshot.exporter.samples > 1:
            self.sample_duration_seconds.observe(duration)


class _OwnProcess(Collector):
    """`ProcessCollector` for a /proc of any form: an unreadable file drops these metrics, not the whole scrape."""

    def __init__(self, proc: str) -> None:
        self._proc = proc
        self._collector: ProcessCollector | None = None

    def collect(self) -> Iterable[Metric]:
        try:
            if self._collector is None:
                self._collector = ProcessCollector(proc=self._proc, registry=None)
            return self._collector.collect()
        except Exception as error:  # noqa: BLE001 - such as ValueError for "unlimited" (0.26)
            _log.debug("no process metrics: %r", error)
            return ()


def exporter_registry(instruments: Instruments | None = None, proc: str = "/proc") -> CollectorRegistry:
    """Return a registry of the exporter's own metrics: process, Python, garbage collector and ``instruments``.

    ``proc`` is the /proc of this process, whatever /proc the exporter reads for the node. Switches the ``_created``
    series of prometheus_client off, for the whole process.
    """
    disable_created_metrics()  # type: ignore[no-untyped-call]
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_OwnProcess(proc))
    registry.register(PlatformCollector(registry=None))
    GCCollector(registry)
    for instrument in (instruments or Instruments()).all:
        registry.register(instrument)
    return registry
