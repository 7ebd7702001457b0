"""The HTTP endpoints: metrics and their reference, status page, liveness and readiness, of the newest snapshot."""

from __future__ import annotations

from collections.abc import Callable

import h11

from ..exposition.metrics.negotiate import accepts_gzip, prefers_openmetrics
from ..exposition.metrics.prerender import ScrapeBody
from ..exposition.metrics.render import OPENMETRICS, TEXT
from ..exposition.status.page import Page
from ..exposition.status.reference import HEADERS as REFERENCE_HEADERS
from ..exposition.status.reference import reference_page
from ..exposition.web.response import Handler, Headers, Response, request_header
from ..impact import exchange
from ..snapshot import Snapshot
from .scrapers import ScrapeLog

_SCRAPER_HEADER = b"x-prometheus-scrape-timeout-seconds"
_OWN_AGENT = "ai-energy-exporter/"
"""Beginning of the user agent of our own programs, such as `run`: they read counters and keep none."""

_STALE_SECONDS = 10.0
_STALE_INTERVALS = 5
REFERENCE_PATH = "/-/reference"


class Endpoints:
    """Handlers for the web server; ``clock`` is that of `Snapshot.monotonic_at`, in seconds.

    ``snapshot`` returns the newest one, None before the first sample; it is called without a lock.
    ``shares_factors`` is False for an exporter that takes its factors from another: two could take them from each
    other, and none would notice that they age.
    """

    def __init__(
        self,
        snapshot: Callable[[], Snapshot | None],
        body: ScrapeBody,
        page: Page,
        clock: Callable[[], float],
        scrapes: ScrapeLog | None = None,
        *,
        shares_factors: bool = True,
    ) -> None:
        self._snapshot = snapshot
        self._body = body
        self._page = page
        self._clock = clock
        self._scrapes = scrapes or ScrapeLog()
        self._shares_factors = shares_factors
        self._started_at = clock()

    def pages(self, telemetry_path: str) -> dict[str, Handler]:
        """Path → handler for what only authorized clients may read."""
        return {
            "/": self._status_page,
            REFERENCE_PATH: self._reference,
            exchange.PATH: self._factors,
            telemetry_path: self._metrics,
        }

    def health(self) -> dict[str, Handler]:
        """Path → handler for probes."""
        return {
            "/-/healthy": self._healthy,
            "/healthz": self._healthy,
            "/-/ready": self._ready,
            "/readyz": self._ready,
        }

    def _status_page(self, _: h11.Request, __: str) -> Response:
        return Response(200, self._page(self._snapshot()), b"text/html; charset=utf-8", self._page.headers)

    def _reference(self, _: h11.Request, __: str) -> Response:
        return Response(200, reference_page(), b"text/html; charset=utf-8", REFERENCE_HEADERS)

    def _factors(self, _: h11.Request, __: str) -> Response:
        if not self._shares_factors:
            return Response(404, b"this exporter takes its factors from another: ask that one\n")
        view = None if (snapshot := self._snapshot()) is None else snapshot.impact
        if view is None:
            return Response(404, b"neither carbon intensity nor price is known here\n")
        return Response(200, exchange.dump(view.factors), b"application/json")

    def _metrics(self, request: h11.Request, client: str) -> Response:
        snapshot = self._snapshot()
        # The body may be that of the snapshot before, while the next one is being rendered.
        received = 0 if snapshot is None else snapshot.sequence - 1
        agent = request_header(request, b"user-agent")
        if not agent.startswith(_OWN_AGENT):
            declared = bool(request_header(request, _SCRAPER_HEADER))
            self._scrapes.scraped(f"{client} {agent}", received, self._clock(), declared=declared)
        if snapshot is None:
            return Response(503, b"no sample yet\n", headers=((b"Retry-After", b"1"),))
        openmetrics = prefers_openmetrics(request_header(request, b"accept"))
        gzipped = accepts_gzip(request_header(request, b"accept-encoding"))
        headers: Headers = ((b"Vary", b"Accept, Accept-Encoding"),)
        if gzipped:
            headers = (*headers, (b"Content-Encoding", b"gzip"))
        body = self._body(snapshot, openmetrics=openmetrics, gzipped=gzipped)
        return Response(200, body, (OPENMETRICS if openmetrics else TEXT).encode(), headers)

    def _ready(self, _: h11.Request, __: str) -> Response:
        return Response(503, b"no sample yet\n") if self._snapshot() is None else Response(200, b"ready\n")

    def _healthy(self, _: h11.Request, __: str) -> Response:
        """Fail when the newest sample is too old, or the first one overdue: a process that answers may have hung."""
        snapshot = self._snapshot()
        at, interval = (snapshot.monotonic_at, snapshot.interval_seconds) if snapshot else (self._started_at, 0.0)
        age, limit = self._clock() - at, max(_STALE_SECONDS, _STALE_INTERVALS * interval)
        if age <= limit:
            return Response(200, b"healthy\n")
        what = "the last sample is" if snapshot else "there is no sample, and the server is"
        return Response(503, f"unhealthy: {what} {age:.1f} s old (limit {limit:.1f} s)\n".encode())
