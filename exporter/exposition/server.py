"""Serve scrapes over HTTP from a thread of its own, so that no client can delay another or the sampler.

asyncio and h11, because a waiting client costs them a timer and not a thread. uvicorn has no deadline for a
request's head and answers 503 when its connections are used up instead of dropping the slowest; waitress speaks no
TLS, and each dripped byte restarts its timeout; cheroot and http.server hold a thread for each slow client.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import socket
import ssl
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Protocol

import h11

from ..snapshot import Snapshot
from .connection import Clients, Connection, Deadlines, Headers, Response
from .negotiate import accepts_gzip, prefers_openmetrics
from .prepared import ScrapeBody
from .render import OPENMETRICS, TEXT

log = logging.getLogger(__name__)

_BACKLOG = 1024
_ACCEPT_BATCH = 64
_ACCEPT_PAUSE_SECONDS = 0.1
_STALLED_SECONDS = 1.0
_STOP_SECONDS = 1.0
_STALE_SECONDS = 10.0
_STALE_INTERVALS = 5
_NO_ROOM = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})


class StatusPage(Protocol):
    """Renders the page at ``/``, as `exporter.exposition.page.Page` does."""

    @property
    def headers(self) -> Headers:
        """Headers the page is sent with."""

    def __call__(self, snapshot: Snapshot | None) -> bytes:
        """Return the page; None is before the first sample."""


@dataclass(frozen=True, slots=True)
class ServerOptions:
    """How to serve; ``listen`` takes ``host:port``, ``[v6]:port`` and ``:port``, which is every address.

    ``max_requests`` answers are on their way at once, more get a 503. ``max_connections`` are open at
    once: when one more comes, the client that has been slowest to ask is dropped (fault 61).
    """

    listen: tuple[str, ...] = ("127.0.0.1:9400",)
    telemetry_path: str = "/metrics"
    max_requests: int = 40
    max_connections: int = 512
    deadlines: Deadlines = field(default_factory=Deadlines)
    tls: ssl.SSLContext | None = None


class ListenError(Exception):
    """An address cannot be listened on; the message is one line for the operator (fault 68)."""


def parse_address(text: str) -> tuple[str, int]:
    """Split ``host:port``, ``[v6]:port`` or ``:port`` (host ""). Raises ValueError."""
    host, colon, port = text.rpartition(":")
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
    elif ":" in host:
        raise ValueError("an IPv6 address needs brackets, as in [::1]:9400")
    if not colon or not port.isascii() or not port.isdigit() or int(port) > 65535:
        raise ValueError("expected host:port or :port")
    return host, int(port)


def listen(address: str) -> list[socket.socket]:
    """Open a listening socket on every address the host name stands for. Raises `ListenError`."""
    sockets: list[socket.socket] = []
    try:
        host, port = parse_address(address)
        if not host:
            dual = socket.has_dualstack_ipv6()
            family = socket.AF_INET6 if dual else socket.AF_INET
            return [socket.create_server(("", port), family=family, dualstack_ipv6=dual, backlog=_BACKLOG)]
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        for family, name in dict.fromkeys((entry[0], str(entry[4][0])) for entry in found):
            sockets.append(socket.create_server((name, port), family=family, backlog=_BACKLOG))
    except (OSError, ValueError) as error:
        for opened in sockets:
            opened.close()
        reason = str(error)
        if isinstance(error, OSError) and error.errno is not None:
            reason = "the port is in use" if error.errno == errno.EADDRINUSE else str(error.strerror)
        raise ListenError(f"cannot listen on {address}: {reason}") from error
    return sockets


class Server:
    """The HTTP server. ``clock`` is the one of `Snapshot.monotonic_at`; ``snapshot`` is called without a lock."""

    def __init__(
        self,
        snapshot: Callable[[], Snapshot | None],
        body: ScrapeBody,
        page: StatusPage,
        clock: Callable[[], float],
        options: ServerOptions | None = None,
    ) -> None:
        self.options = options or ServerOptions()
        self._snapshot = snapshot
        self._body = body
        self._page = page
        self._clock = clock
        self._routes: dict[bytes, Callable[[h11.Request], Response]] = {
            b"/": self._status_page,
            b"/-/healthy": self._healthy,
            b"/healthz": self._healthy,
            b"/-/ready": self._ready,
            b"/readyz": self._ready,
            self.options.telemetry_path.encode(): self._metrics,
        }
        self._started_at = 0.0
        self._listeners: list[socket.socket] = []
        self._clients = Clients()
        self._loop = asyncio.new_event_loop()
        self._stopping = asyncio.Event()
        self._thread: threading.Thread | None = None

    # --- life ---------------------------------------------------------------------------------------

    def start(self) -> list[tuple[str, int]]:
        """Listen and serve; returns the bound addresses. Raises `ListenError`."""
        try:
            for address in self.options.listen:
                self._listeners += listen(address)
        except ListenError:
            self._close_listeners()
            self._loop.close()
            raise
        addresses = [listener.getsockname()[:2] for listener in self._listeners]
        self._started_at = self._clock()
        self._thread = threading.Thread(target=self._run, name="http", daemon=True)
        self._thread.start()
        return addresses

    def stop(self) -> None:
        """Stop listening, let answers on their way arrive for a second, close the rest. Ends within 2 s."""
        if self._thread is not None:
            self._loop.call_soon_threadsafe(self._stopping.set)
            self._thread.join(2 * _STOP_SECONDS)
            self._thread = None

    def _run(self) -> None:
        self._loop.set_exception_handler(_log_failure)
        try:
            self._loop.run_until_complete(self._serve())
        finally:
            self._close_listeners()
            self._loop.close()

    async def _serve(self) -> None:
        for listener in self._listeners:
            listener.setblocking(False)
            self._loop.add_reader(listener, self._accept, listener)
        await self._stopping.wait()
        for listener in self._listeners:
            self._loop.remove_reader(listener)
        self._close_listeners()
        clients = self._clients
        for client in clients.every - clients.writing.keys():
            client.abort()
        deadline = self._loop.time() + _STOP_SECONDS
        while clients.writing and self._loop.time() < deadline:
            await asyncio.sleep(0.02)
        for client in tuple(clients.every):
            client.abort()
        await asyncio.sleep(0.01)  # asyncio closes the aborted sockets in its next round

    def _close_listeners(self) -> None:
        for listener in self._listeners:
            listener.close()

    # --- clients ------------------------------------------------------------------------------------

    def _accept(self, listener: socket.socket) -> None:
        for _ in range(_ACCEPT_BATCH):
            try:
                peer, _ = listener.accept()
            except OSError as error:  # nobody left, or a client that gave up
                if error.errno in _NO_ROOM:
                    self._pause(listener, error)
                return
            peer.setblocking(False)
            if len(self._clients.every) >= self.options.max_connections:
                self._clients.evict()
            Connection(self._clients, self.options.deadlines, self.answer).open(peer, self.options.tls)

    def _pause(self, listener: socket.socket, error: OSError) -> None:
        """Make room and come back a little later: accepting would fail again at once (fault 60)."""
        log.warning("no more connections can be accepted for now: %s", error.strerror)
        self._clients.evict()
        self._loop.remove_reader(listener)
        self._loop.call_later(_ACCEPT_PAUSE_SECONDS, self._resume, listener)

    def _resume(self, listener: socket.socket) -> None:
        if listener.fileno() >= 0:
            self._loop.add_reader(listener, self._accept, listener)

    def _room(self) -> bool:
        """Say whether one more may be answered; a client that stalls while reading gives way (fault 62)."""
        writing = self._clients.writing
        if len(writing) < self.options.max_requests:
            return True
        oldest = next(iter(writing))
        if self._loop.time() - oldest.since < _STALLED_SECONDS:
            return False
        oldest.abort()
        return True

    # --- answers ------------------------------------------------------------------------------------

    def answer(self, request: h11.Request) -> Response:
        """Answer one request. Runs in the server's thread."""
        if not self._room():
            return Response(503, b"too many requests at once\n", headers=((b"Retry-After", b"1"),), close=True)
        if request.method not in {b"GET", b"HEAD"}:
            return Response(405, b"only GET and HEAD\n", headers=((b"Allow", b"GET, HEAD"),))
        respond = self._routes.get(request.target.partition(b"?")[0])
        return Response(404, b"not found\n") if respond is None else respond(request)

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


def _header(request: h11.Request, name: bytes) -> str:
    return ",".join([value.decode("latin-1") for key, value in request.headers if key == name])


def _log_failure(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:  # noqa: ARG001 - asyncio's shape
    log.warning("http: %s", context.get("exception") or context["message"])
