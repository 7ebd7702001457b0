"""One HTTP client: it waits for a request, gets its answer piece by piece, idles, and starts over."""

from __future__ import annotations

import asyncio
import logging
import socket
import ssl
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import NamedTuple

import h11

log = logging.getLogger(__name__)

_MAX_HEAD_BYTES = 16 * 1024
_MAX_REQUEST_BODY_BYTES = 64 * 1024
_PIECE_BYTES = 128 * 1024
_LINGER_SECONDS = 1.0

Headers = tuple[tuple[bytes, bytes], ...]
Queue = OrderedDict["Connection", None]


class Response(NamedTuple):
    """What to answer. ``close`` ends the connection after it."""

    status: int
    body: bytes
    content_type: bytes = b"text/plain; charset=utf-8"
    headers: Headers = ()
    close: bool = False


@dataclass(frozen=True, slots=True)
class Deadlines:
    """Seconds a client may take: to send a request, to read the answer, and to stay between two requests.

    No dripped byte prolongs any of them. Prometheus keeps its connection between scrapes, so idling is
    allowed for longer than any sensible scrape interval.
    """

    request: float = 5.0
    write: float = 10.0
    idle: float = 300.0


@dataclass(frozen=True, slots=True)
class Clients:
    """Every open connection, each in at most one queue, ordered by who has been in it longest."""

    every: set[Connection] = field(default_factory=set)
    waiting: Queue = field(default_factory=OrderedDict)
    writing: Queue = field(default_factory=OrderedDict)
    idle: Queue = field(default_factory=OrderedDict)

    def evict(self) -> None:
        """Drop one: who waits longest without a complete request, else idles, else reads its answer."""
        for queue in (self.waiting, self.idle, self.writing):
            if queue:
                next(iter(queue)).abort()
                return


class Connection(asyncio.Protocol):
    """A client's connection. ``answer`` is called with each complete request."""

    def __init__(self, clients: Clients, deadlines: Deadlines, answer: Callable[[h11.Request], Response]) -> None:
        self.since = 0.0
        self._clients = clients
        self._deadlines = deadlines
        self._answer = answer
        self._loop = asyncio.get_running_loop()
        self._opening: asyncio.Task[None] | None = None
        self._transport: asyncio.Transport | None = None
        self._h11 = h11.Connection(h11.SERVER, max_incomplete_event_size=_MAX_HEAD_BYTES)
        self._request: h11.Request | None = None
        self._received = 0
        self._rest = memoryview(b"")
        self._paused = False
        self._closing = False
        self._queue: Queue | None = None
        self._timer: asyncio.TimerHandle | None = None

    # --- life ---------------------------------------------------------------------------------------

    def open(self, peer: socket.socket, tls: ssl.SSLContext | None) -> None:
        """Take over an accepted socket; the deadline of the first request includes the TLS handshake."""
        self._clients.every.add(self)
        self._enter(self._clients.waiting, self._deadlines.request)
        self._opening = self._loop.create_task(self._connect(peer, tls))
        self._opening.add_done_callback(lambda task: self._opened(task, peer))

    async def _connect(self, peer: socket.socket, tls: ssl.SSLContext | None) -> None:
        await self._loop.connect_accepted_socket(
            lambda: self, peer, ssl=tls, ssl_handshake_timeout=self._deadlines.request if tls else None
        )

    def _opened(self, task: asyncio.Task[None], peer: socket.socket) -> None:
        error = None if task.cancelled() else task.exception()
        if error is not None:
            log.debug("connection failed: %s", error)
        if error is not None or task.cancelled():
            peer.close()
            self._leave()

    def abort(self) -> None:
        """Close at once, whatever is under way."""
        if self._transport is not None:
            self._transport.abort()
        elif self._opening is not None:
            self._opening.cancel()
        self._leave()

    def _leave(self) -> None:
        self._clients.every.discard(self)
        self._enter(None, 0.0)
        self._rest = memoryview(b"")

    def _enter(self, queue: Queue | None, seconds: float) -> None:
        """Change queues; the deadline starts anew."""
        if self._queue is not None:
            self._queue.pop(self, None)
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._queue = queue
        if queue is not None:
            queue[self] = None
            self.since = self._loop.time()
            self._timer = self._loop.call_later(seconds, self.abort)

    # --- what asyncio calls -------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Get ready to read."""
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        # Paused as soon as the kernel takes no more: what is not paused has left this process.
        transport.set_write_buffer_limits(high=1, low=0)
        if self not in self._clients.every:  # dropped while it was being opened
            transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - why does not matter
        """Forget the client."""
        self._leave()

    def data_received(self, data: bytes) -> None:
        """Read on, and answer what is complete."""
        if self._closing:
            return
        if self._queue is self._clients.idle:
            self._enter(self._clients.waiting, self._deadlines.request)
        self._h11.receive_data(data)
        self._advance()

    def pause_writing(self) -> None:
        """Stop feeding a client that does not read."""
        self._paused = True

    def resume_writing(self) -> None:
        """Go on feeding it, and with what it sent meanwhile."""
        self._paused = False
        self._write()
        self._advance()

    # --- a request ----------------------------------------------------------------------------------

    def _advance(self) -> None:
        """Handle complete requests until the client has to send, or to read, more."""
        while self._queue is self._clients.waiting and not self._closing:
            try:
                event = self._h11.next_event()
            except h11.RemoteProtocolError as error:
                self._refuse(error.error_status_hint)
                return
            if isinstance(event, h11.Request):
                self._request = event
                self._received = 0
                if len(event.target) + sum(len(name) + len(value) for name, value in event.headers) > _MAX_HEAD_BYTES:
                    self._refuse(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE)
            elif isinstance(event, h11.Data):
                self._received += len(event.data)
                if self._received > _MAX_REQUEST_BODY_BYTES:
                    self._refuse(HTTPStatus.REQUEST_ENTITY_TOO_LARGE)
            elif isinstance(event, h11.EndOfMessage):
                assert self._request is not None
                self._send(self._respond(self._request))
            else:  # it has to send more
                return

    def _respond(self, request: h11.Request) -> Response:
        try:
            return self._answer(request)
        except Exception:
            log.exception("answering %r failed", request.target)
            return Response(HTTPStatus.INTERNAL_SERVER_ERROR, b"internal error: see the log\n", close=True)

    def _refuse(self, status: int) -> None:
        self._send(Response(status, f"{HTTPStatus(status).phrase}\n".encode(), close=True))

    # --- its answer ---------------------------------------------------------------------------------

    def _send(self, response: Response) -> None:
        assert self._transport is not None
        headers: list[tuple[bytes, bytes]] = [
            (b"Content-Type", response.content_type),
            (b"Content-Length", b"%d" % len(response.body)),
            (b"Cache-Control", b"no-store"),
            (b"X-Content-Type-Options", b"nosniff"),
            *response.headers,
        ]
        if response.close:
            headers.append((b"Connection", b"close"))
        reason = HTTPStatus(response.status).phrase.encode()
        head = self._h11.send(h11.Response(status_code=response.status, headers=headers, reason=reason))
        body = b"" if self._request is not None and self._request.method == b"HEAD" else response.body
        if body:
            self._h11.send_with_data_passthrough(h11.Data(data=memoryview(body)))  # type: ignore[arg-type]
        self._h11.send(h11.EndOfMessage())
        self._enter(self._clients.writing, self._deadlines.write)
        self._rest = memoryview(body)[_PIECE_BYTES:]
        self._transport.write((head or b"") + body[:_PIECE_BYTES])
        self._write()
        if self._queue is self._clients.writing:
            self._transport.pause_reading()  # what it sends meanwhile stays in the kernel

    def _write(self) -> None:
        """Hand over the body in pieces: a client that does not read costs a piece of memory, not a body."""
        while self._rest and not self._paused and self._transport is not None:
            piece, self._rest = self._rest[:_PIECE_BYTES], self._rest[_PIECE_BYTES:]
            self._transport.write(piece)
        if self._queue is self._clients.writing and not self._rest and not self._paused:
            self._finish()

    def _finish(self) -> None:
        assert self._transport is not None
        self._transport.resume_reading()
        if self._h11.our_state is not h11.DONE or self._h11.their_state is not h11.DONE:
            self._close()
            return
        self._h11.start_next_cycle()
        self._request = None
        if self._h11.trailing_data[0]:
            self._enter(self._clients.waiting, self._deadlines.request)
        else:
            self._enter(self._clients.idle, self._deadlines.idle)

    def _close(self) -> None:
        """Close so that the answer arrives: a socket closed with unread input resets the connection."""
        assert self._transport is not None
        self._closing = True
        if self._transport.can_write_eof():
            self._transport.write_eof()
            self._enter(self._clients.waiting, _LINGER_SECONDS)
        else:
            self._transport.close()
