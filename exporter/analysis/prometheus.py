"""Queries of Prometheus's HTTP API, which VictoriaMetrics, Thanos and Mimir speak as well."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple, TypeVar
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

_BUSY = (429, 502, 503, 504)
_PAUSES_SECONDS = (0.3, 1.0, 3.0)
"""Before a query is sent again to a server, or a proxy before it, that is busy. It is not waited for as long as
Retry-After says, which may be an hour."""


Row = TypeVar("Row")


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

    def __init__(
        self,
        url: str,
        config: HttpConfig | None = None,
        timeout_seconds: float = TIMEOUT_SECONDS,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        """Raises `QueryError` if ``url`` is none, and OSError if a file of TLS cannot be read."""
        config = config or HttpConfig()
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.netloc:
            raise QueryError(f"{url}: not an address such as http://localhost:9090")
        self.url = url.rstrip("/")
        self._sleep = sleep
        options: dict[str, Any] = {
            "headers": dict(config.headers),
            "timeout": urllib3.Timeout(connect=10.0, read=timeout_seconds),
            "retries": urllib3.Retry(
                total=3, read=1, backoff_factor=0.3, allowed_methods=None, respect_retry_after_header=False
            ),
            "ca_certs": config.ca_file or None,
            "cert_file": config.cert_file or None,
            "key_file": config.key_file or None,
            "maxsize": CONNECTIONS,
            "cert_reqs": "CERT_REQUIRED" if config.verify else "CERT_NONE",
        }
        if not config.verify:  # it was asked for: no warning at each of hundreds of queries
            urllib3.disable_warnings(urllib3.exceptions.InsecureRequestWarning)
        if config.proxy_url:
            self._pool: urllib3.PoolManager = urllib3.ProxyManager(config.proxy_url, **options)
        else:
            self._pool = urllib3.PoolManager(**options)

    def instant(self, query: str, at: float) -> list[Sample]:
        """The finite values of a query at Unix time ``at``. Raises `QueryError`."""
        found = self._get("query", {"query": query, "time": f"{at:.3f}"}, _sample)
        return [sample for sample in found if math.isfinite(sample.value)]

    def times(self, query: str, start: float, end: float, step: float) -> list[float]:
        """Unix times, every ``step`` seconds, at which a query has any value. Raises `QueryError`."""
        return sorted(
            {at for times in self._get("query_range", _range(query, start, end, step), _times) for at in times}
        )

    def range(self, query: str, start: float, end: float, step: float) -> Iterator[Series]:
        """The series of a query evaluated every ``step`` seconds. Raises `QueryError`."""
        yield from self._get("query_range", _range(query, start, end, step), _series)

    def raw(self, selector: str, start: float, end: float) -> list[Series]:
        """The samples of the series of a selector, as they were scraped. Raises `QueryError`."""
        asked = {"query": f"{selector}[{max(1, round(end - start))}s]", "time": f"{end:.3f}"}
        return [*self._get("query", asked, _series)]

    def _get(self, name: str, fields: dict[str, str], row: Callable[[Any], Row]) -> Iterator[Row]:
        status, data = self._send(name, fields)
        if len(data) > _SIZE_LIMIT:
            raise TooMuchDataError(f"{self.url}: the answer is larger than {_SIZE_LIMIT >> 20} MiB")
        try:
            body = json.loads(data)
            outcome, error_text = body["status"], str(body.get("error", ""))
        except (ValueError, TypeError, KeyError, AttributeError):
            raise QueryError(f"{self.url}: {_status(status)}") from None
        if outcome != "success":
            kind = TooMuchDataError if any(text in error_text for text in _TOO_MUCH) else QueryError
            raise kind(f"{self.url}: {' '.join(error_text.split())[:300] or _status(status)}")
        try:
            for each in body["data"]["result"]:
                yield row(each)
        except (ValueError, TypeError, LookupError, AttributeError):
            raise QueryError(f"{self.url}: an answer that is not the data of a Prometheus") from None

    def _send(self, name: str, fields: dict[str, str]) -> tuple[int, bytes]:
        """HTTP status and body; sent again to a server that is busy, unless it says that the query takes too long."""
        for pause in (*_PAUSES_SECONDS, None):
            try:
                answer = self._pool.request("POST", f"{self.url}/api/v1/{name}", fields=fields, encode_multipart=False)
            except urllib3.exceptions.HTTPError as error:
                raise QueryError(f"{self.url}: {_reason(error)}") from None
            if pause is None or answer.status not in _BUSY or any(text.encode() in answer.data for text in _TOO_MUCH):
                break
            self._sleep(pause)
        return answer.status, answer.data


def _range(query: str, start: float, end: float, step: float) -> dict[str, str]:
    """Fields of a range query; without ``nocache`` VictoriaMetrics moves start and end to whole multiples of step."""
    times = {"start": f"{start:.3f}", "end": f"{end:.3f}", "step": f"{step:.3f}"}
    return {"query": query, **times, "nocache": "1"}


def _sample(row: Any) -> Sample:
    return Sample(dict(row["metric"]), float(row["value"][1]))


def _times(row: Any) -> list[float]:
    return [float(at) for at, _ in row["values"]]


def _series(row: Any) -> Series:
    points = [(float(at), float(value)) for at, value in row["values"]]
    points = [point for point in points if math.isfinite(point[1])]
    return Series(dict(row["metric"]), [at for at, _ in points], [value for _, value in points])


def _status(status: int) -> str:
    """What an answer without the JSON of a Prometheus says."""
    hints = {
        401: "log in by --prometheus.config",
        403: "not allowed",
        404: "there is no /api/v1 below this address",
        429: "too many requests; try again later",
    }
    busy = "it, or a proxy before it, does not answer now; try again later" if status in _BUSY else ""
    return f"HTTP status {status}: {hints.get(status) or busy or 'not the answer of a Prometheus'}"


def _reason(error: BaseException) -> str:
    """The innermost reason, as the system words it."""
    reason = getattr(error, "reason", None)
    if isinstance(reason, BaseException):
        return _reason(reason)
    cause = error.__cause__ or error.__context__
    if isinstance(cause, OSError) and cause.strerror:
        return f"cannot connect: {cause.strerror}"
    inner = error.args[1] if len(error.args) > 1 else None  # of ('Connection aborted.', OSError(…))
    if isinstance(inner, BaseException):
        return _reason(inner)
    return " ".join(str(error).split())[:300] or type(error).__name__
