"""Queries of Prometheus's HTTP API, which VictoriaMetrics, Thanos and Mimir speak as well."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import urllib3

from .http_config import HttpConfig

TIMEOUT_SECONDS = 120.0
"""Of one query; Prometheus's own limit (``--query.timeout``) is two minutes."""

CONNECTIONS = 2
"""Kept open to one server, for as many queries at once."""

_SIZE_LIMIT = 1 << 28
_TOO_MUCH = ("too many samples", "maxSamplesPerQuery", "maxSamplesPerSeries", "maxMemoryPerQuery", "query timed out")
"""What engines say of a query that reads more than they allow; a shorter window may do."""


class QueryError(Exception):
    """A query was not answered; the text is one line for the user."""


class NoDataError(QueryError):
    """There is nothing in the window that was asked for."""


class TooMuchDataError(QueryError):
    """The engine refuses to read so much at once."""


class Sample(NamedTuple):
    """One series of an instant query."""

    labels: Mapping[str, str]
    value: float


class Series(NamedTuple):
    """One series of a range query: Unix times and values, those that are not finite left out."""

    labels: Mapping[str, str]
    times: Sequence[float]
    values: Sequence[float]


class Prometheus:
    """One server, by the address below which ``/api/v1`` is."""

    def __init__(self, url: str, config: HttpConfig | None = None, timeout_seconds: float = TIMEOUT_SECONDS) -> None:
        """Raises `QueryError` if ``url`` is none, and OSError if a file of TLS cannot be read."""
        config = config or HttpConfig()
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.netloc:
            raise QueryError(f"{url}: not an address such as http://localhost:9090")
        self.url = url.rstrip("/")
        options: dict[str, Any] = {
            "headers": dict(config.headers),
            "timeout": urllib3.Timeout(connect=10.0, read=timeout_seconds),
            "retries": urllib3.Retry(total=3, backoff_factor=0.3, allowed_methods=None, status_forcelist=(502, 503)),
            "ca_certs": config.ca_file or None,
            "cert_file": config.cert_file or None,
            "key_file": config.key_file or None,
            "maxsize": CONNECTIONS,
            "cert_reqs": "CERT_REQUIRED" if config.verify else "CERT_NONE",
        }
        if config.proxy_url:
            self._pool: urllib3.PoolManager = urllib3.ProxyManager(config.proxy_url, **options)
        else:
            self._pool = urllib3.PoolManager(**options)

    def instant(self, query: str, at: float) -> list[Sample]:
        """The finite values of a query at Unix time ``at``. Raises `QueryError`."""
        data = self._get("query", {"query": query, "time": f"{at:.3f}"})
        found = [Sample(row["metric"], float(row["value"][1])) for row in data]
        return [sample for sample in found if math.isfinite(sample.value)]

    def times(self, query: str, start: float, end: float, step: float) -> list[float]:
        """Unix times, every ``step`` seconds, at which a query has any value. Raises `QueryError`."""
        asked = {"query": query, "start": f"{start:.3f}", "end": f"{end:.3f}", "step": f"{step:.3f}"}
        return sorted({float(at) for row in self._get("query_range", asked) for at, _ in row["values"]})

    def range(self, query: str, start: float, end: float, step: float) -> Iterator[Series]:
        """The series of a query evaluated every ``step`` seconds. Raises `QueryError`."""
        asked = {"query": query, "start": f"{start:.3f}", "end": f"{end:.3f}", "step": f"{step:.3f}"}
        yield from map(_series, self._get("query_range", asked))

    def raw(self, selector: str, start: float, end: float) -> list[Series]:
        """The samples of the series of a selector, as they were scraped. Raises `QueryError`."""
        asked = {"query": f"{selector}[{max(1, round(end - start))}s]", "time": f"{end:.3f}"}
        return [*map(_series, self._get("query", asked))]

    def _get(self, name: str, fields: dict[str, str]) -> list[dict[str, Any]]:
        try:
            answer = self._pool.request("POST", f"{self.url}/api/v1/{name}", fields=fields, encode_multipart=False)
        except urllib3.exceptions.HTTPError as error:
            raise QueryError(f"{self.url}: {_reason(error)}") from None
        if len(answer.data) > _SIZE_LIMIT:
            raise TooMuchDataError(f"{self.url}: the answer is larger than {_SIZE_LIMIT >> 20} MiB")
        try:
            body = json.loads(answer.data)
            status, error_text = body["status"], body.get("error", "")
        except (ValueError, TypeError, KeyError, AttributeError):
            raise QueryError(f"{self.url}: {_status(answer.status)}, no answer of a Prometheus") from None
        if status != "success":
            kind = TooMuchDataError if any(text in error_text for text in _TOO_MUCH) else QueryError
            raise kind(f"{self.url}: {' '.join(str(error_text).split())[:300] or _status(answer.status)}")
        try:
            result: list[dict[str, Any]] = body["data"]["result"]
        except (TypeError, KeyError):
            raise QueryError(f"{self.url}: an answer without data") from None
        return result


def _series(row: Mapping[str, Any]) -> Series:
    points = [(float(at), float(value)) for at, value in row["values"]]
    points = [point for point in points if math.isfinite(point[1])]
    return Series(row["metric"], [at for at, _ in points], [value for _, value in points])


def _status(status: int) -> str:
    hints = {
        401: ": log in by --prometheus.config",
        403: ": not allowed",
        404: ": there is no /api/v1 below this address",
    }
    return f"HTTP status {status}{hints.get(status, '')}"


def _reason(error: BaseException) -> str:
    """The innermost reason, as the system words it."""
    reason = getattr(error, "reason", None)
    if isinstance(reason, BaseException):
        return _reason(reason)
    cause = error.__cause__ or error.__context__
    if isinstance(cause, OSError) and cause.strerror:
        return f"cannot connect: {cause.strerror}"
    return " ".join(str(error).split())[:300] or type(error).__name__
