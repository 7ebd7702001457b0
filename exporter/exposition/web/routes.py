"""What each path answers, and to whom."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Protocol

import h11

from ...snapshot import Snapshot
from ..metrics.negotiate import accepts_gzip, prefers_openmetrics
from ..metrics.prerender import ScrapeBody
from ..metrics.render import OPENMETRICS, TEXT
from .access import Access
from .clients import Client, Headers, Response

_STALE_SECONDS = 10.0
_STALE_INTERVALS = 5

Handlers = dict[bytes, Callable[[h11.Request], Response]]


class StatusPage(Protocol):
    """Renders the page at ``/``, as `exporter.exposition.status.page.Page` does."""

    @property
    def headers(self) -> Headers:
        """Headers the page is sent with."""

    def __call__(self, snapshot: Snapshot | None) -> bytes:
        """Return the page; None is before the first sample."""


class Routes:
    """Routes requests from the newest snapshot; ``clock`` is the one of `Snapshot.monotonic_at`.

    Without ``access`` everybody is answered. With it, the health paths still are, in one word.
    """

    def __init__(
        self,
        snapshot: Callable[[], Snapshot | None],
        body: ScrapeBody,
        page: StatusPage,
        clock: Callable[[], float],
        telemetry_path: str,
        access: Access | None,
    ) -> None:
        self._snapshot = snapshot
        self._body = body
        self._page = page
        self._clock = clock
        self._access = access
        self._started_at = clock()
        self._health: Handlers = {
            b"/-/healthy": self._healthy,
            b"/healthz": self._healthy,
            b"/-/ready": self._ready,
            b"/readyz": self._ready,
        }
        self._routes: Handlers = {b"/": self._status_page, **self._health, telemetry_path.encode(): self._metrics}

    def answer(self, request: h11.Request, client: Client) -> Response | Awaitable[Response]:
        """Answer a request, or say why not; takes a while only where a password has to be checked."""
        access = self._access
        if access is None:
            return _find(self._routes, request)
        refused = access.check_certificate(client)
        if refused is not None:
            return self._with_headers(refused)
        if _path(request) in self._health:
            return self._with_headers(_status_only(_find(self._health, request)))
        admitted = access.authorize(request, client)
        if admitted is None or isinstance(admitted, Response):
            return self._with_headers(admitted or _find(self._routes, request))
        return self._answer_authorized(request, admitted)

    def answer_health(self, request: h11.Request, client: Client) -> Response:  # noqa: ARG002 - whoever it is
        """Answer where nothing but health is served."""
        return _status_only(_find(self._health, request))

    async def _answer_authorized(self, request: h11.Request, refusal: Awaitable[Response | None]) -> Response:
        return self._with_headers(await refusal or _find(self._routes, request))

    def _with_headers(self, response: Response) -> Response:
        """The response with the operator's headers, which replace ours of the same name."""
        extra = self._access.headers if self._access is not None else ()
        names = {name.lower() for name, _ in extra}
        kept = tuple(header for header in response.headers if header[0].lower() not in names)
        return response._replace(headers=(*kept, *extra))

    # --- the paths ----------------------------------------------------------------------------------

    def _status_page(self, _: h11.Request) -> Response:
        return Response(200, self._page(self._snapshot()), b"text/html; charset=utf-8", self._page.headers)

    def _metrics(self, request: h11.Request) -> Response:
        snapshot = self._snapshot()
        if snapshot is None:
            return Response(503, b"no sample yet\n", headers=((b"Retry-After", b"1"),))
        openmetrics = prefers_openmetrics(_header(request, b"accept"))
        gzipped = accepts_gzip(_header(request, b"accept-encoding"))
        headers: Headers = ((b"Vary", b"Accept, Accept-Encoding"),)
        if gzipped:
            headers = (*headers, (b"Content-Encoding", b"gzip"))
        body = self._body(snapshot, openmetrics=openmetrics, gzipped=gzipped)
        return Response(200, body, (OPENMETRICS if openmetrics else TEXT).encode(), headers)

    def _ready(self, _: h11.Request) -> Response:
        return Response(503, b"no sample yet\n") if self._snapshot() is None else Response(200, b"ready\n")

    def _healthy(self, _: h11.Request) -> Response:
        """Tell a working process from one that serves old data, or none after its time (fault 67)."""
        snapshot = self._snapshot()
        at, interval = (snapshot.monotonic_at, snapshot.interval_seconds) if snapshot else (self._started_at, 0.0)
        age, limit = self._clock() - at, max(_STALE_SECONDS, _STALE_INTERVALS * interval)
        if age <= limit:
            return Response(200, b"healthy\n")
        what = "the last sample is" if snapshot else "there is no sample, and the server is"
        return Response(503, f"unhealthy: {what} {age:.1f} s old (limit {limit:.1f} s)\n".encode())


def _find(routes: Handlers, request: h11.Request) -> Response:
    if request.method not in {b"GET", b"HEAD"}:
        return Response(405, b"only GET and HEAD\n", headers=((b"Allow", b"GET, HEAD"),))
    respond = routes.get(_path(request))
    return Response(404, b"not found\n") if respond is None else respond(request)


def _path(request: h11.Request) -> bytes:
    return request.target.partition(b"?")[0]


def _status_only(response: Response) -> Response:
    """Without what is nobody's business who has not logged in."""
    return response._replace(body=response.body.rstrip().partition(b":")[0] + b"\n")


def _header(request: h11.Request, name: bytes) -> str:
    return ",".join([value.decode("latin-1") for key, value in request.headers if key == name])
