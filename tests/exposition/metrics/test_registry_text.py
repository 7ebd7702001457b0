"""A registry's text is what prometheus_client itself writes, byte for byte."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Info, Summary, generate_latest
from prometheus_client.openmetrics.exposition import generate_latest as generate_openmetrics

from exporter.exposition.metrics.collector import Instruments, exporter_registry
from exporter.exposition.metrics.registry_text import RegistryText


def check(registry: CollectorRegistry) -> None:
    text = RegistryText(registry)
    for _ in range(2):  # the second time from what was formatted before
        assert text.body(openmetrics=False) == generate_latest(registry)
        assert text.body(openmetrics=True) + b"# EOF\n" == generate_openmetrics(registry)  # type: ignore[no-untyped-call]


def test_every_kind_of_instrument_and_label() -> None:
    exporter_registry()  # switches the _created series off
    registry = CollectorRegistry()
    counter = Counter("things_total", 'What "was"\nseen \\ here.', ("zone", "kind"), registry=registry)
    counter.labels('a"b\\c\nd', "x").inc(3)
    counter.labels("", "y").inc(0.1)
    Gauge("level_seconds", "A level.", unit="seconds", registry=registry).set(float("inf"))
    Histogram("took", "A duration.", registry=registry, buckets=(0.1, 1.0)).observe(0.3)
    Summary("sum", "A sum.", registry=registry).observe(1e-9)
    Info("build", "A build.", registry=registry).info({"version": "1"})
    check(registry)
    counter.labels("new", "x").inc(1e17)
    check(registry)


def test_the_registry_of_the_exporter() -> None:
    instruments = Instruments()
    instruments.sample_duration_seconds.observe(0.002)
    instruments.http_requests.labels(404).inc()
    registry = CollectorRegistry()
    for instrument in instruments.all:
        registry.register(instrument)
    check(registry)
    instruments.state_last_write_timestamp_seconds.set(1.7e9 + 0.123)
    check(registry)
