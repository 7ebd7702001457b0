"""Content negotiation: what Prometheus sends, what people send, and nonsense."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from exporter.exposition.metrics.negotiate import accepts_gzip, prefers_openmetrics

PROMETHEUS_2 = (
    "application/openmetrics-text;version=1.0.0,application/openmetrics-text;version=0.0.1;q=0.75,"
    "text/plain;version=0.0.4;q=0.5,*/*;q=0.1"
)
PROMETHEUS_3 = (
    "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.5,"
    "application/openmetrics-text;version=0.0.1;q=0.4,text/plain;version=1.0.0;escaping=allow-utf-8;q=0.3,*/*;q=0.2"
)


@pytest.mark.parametrize(
    ("accept", "openmetrics"),
    [
        (PROMETHEUS_2, True),
        (PROMETHEUS_3, True),
        ("Application/OpenMetrics-Text; Version=1.0.0", True),
        ("application/openmetrics-text", True),
        ("", False),
        ("*/*", False),
        ("text/html,application/xhtml+xml,*/*;q=0.8", False),
        ("application/openmetrics-text;q=0", False),
        ("application/openmetrics-text;version=2.0.0", False),
        ("text/plain;version=0.0.4,application/openmetrics-text;version=1.0.0;q=0.1", False),
        ("application/openmetrics-text;version=1.0.0;q=banana", False),
        ("\x00\xff;;;=,,q=nan", False),
    ],
)
def test_format(accept: str, openmetrics: bool) -> None:
    assert prefers_openmetrics(accept) is openmetrics


@pytest.mark.parametrize(
    ("header", "gzipped"),
    [
        ("gzip", True),
        ("deflate, GZIP;q=0.5", True),
        ("*", True),
        ("*;q=0.1, gzip;q=0", False),
        ("gzip;q=0", False),
        ("gzip;q=nan", False),
        ("identity", False),
        ("x-gzip-like", False),
        ("", False),
    ],
)
def test_encoding(header: str, gzipped: bool) -> None:
    assert accepts_gzip(header) is gzipped


@given(st.text(max_size=60))
def test_nonsense_is_answered_with_the_default(header: str) -> None:
    """Fault 64: a binary Accept header."""
    assert prefers_openmetrics(header) is False
    assert isinstance(accepts_gzip(header), bool)
