"""One HTTP connection: TLS handshake, request, response in pieces, idle, next request."""

from __future__ import annotations

import asyncio
import logging
import socket
import ssl
from collections.abc import Callable
from functools import partial
from http import HTTPStatus

import h11

from .basic_auth import client_key
from .clients import Client, Clients, Deadlines, Listener, Queue
from .response import Response
from .tls import Tls, TlsPolicy, failure_reason

log = logging.getLogger(__name__)

_MAX_HEAD_BYTES = 16 * 1024
_MAX_REQUEST_BODY_BYTES = 64 * 1024
_PIECE_BYTES = 128 * 1024
_LINGER_SECONDS = 1.0
_TLS_REQUIRED = b"HTTP/1.0 400 Bad Request\r\nContent-Type: text/plain\r\n\r\nthis port requires TLS: use https\n"


class Connection(asyncio.BufferedProtocol):
    """A client's connection; ``tls`` is None for plain HTTP."""

    def __init__(
        self, clients: Clients, deadlines: Deadlines, listener: Listener, host: str, tls: TlsPolicy | None
    ) -> None:
        self.since = 0.0
        self.client_key = client_key(host)
        self._clients = clients
        self._deadlines = deadlines
        self._listener = listener
        self._client = Client(host, self.client_key, tls, None)
        self._tls = Tls(tls) if tls is not None else None
        self._pending: asyncio.Future[Response] | None = None
        self._loop = asyncio.get_running_loop()
        self._opening: asyncio.Task[None] | None = None
        self._transport: asyncio.Transport | None = None
        self._h11 = h11.Connection(h11.SERVER, max_incomplete_event_size=_MAX_HEAD_BYTES)
        self._request: h11.Request | None = None
        self._received = 0
        self._unsent = memoryview(b"")
        self._paused = False
        self._closing = False
        self._queue: Queue | None = None
        self._timer: asyncio.TimerHandle | None = None

    # --- life ---------------------------------------------------------------------------------------

    def open(self, peer: socket.socket) -> None:
        """Start serving an accepted socket."""
        self._clients.connections.add(self)
        self._move_to(self._clients.reading, self._deadlines.request)
        self._opening = self._loop.create_task(self._connect(peer))
        self._opening.add_done_callback(lambda task: self._opened(task, peer))

    async def _connect(self, peer: socket.socket) -> None:
        await self._loop.connect_accepted_socket(lambda: self, peer)

    def _opened(self, task: asyncio.Task[None], peer: socket.socket) -> None:
        error = None if task.cancelled() else task.exception()
        if error is not None:
            log.debug("connection failed: %s", error)
        if error is not None or task.cancelled():
            peer.close()
            self._deregister()

    def abort(self) -> None:
        """Close at once, whatever is in progress."""
        if self._transport is not None:
            self._transport.abort()
        elif self._opening is not None:
            self._opening.cancel()
        self._deregister()

    def close(self) -> None:
        """Close if idle, with a TLS close_notify, so that the client can distinguish it from a truncation."""
        if self._queue is self._clients.idle:
            self._close()

    def _deregister(self) -> None:
        self._clients.connections.discard(self)
        self._move_to(None, 0.0)
        self._unsent = memoryview(b"")
        if self._pending is not None:
            self._pending.cancel()

    def _move_to(self, queue: Queue | None, seconds: float) -> None:
        """Move to another queue and restart the deadline; None leaves all queues."""
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
        """Store the transport."""
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        # Pause as soon as the kernel buffer is full: without a pause, everything written has left this process.
        transport.set_write_buffer_limits(high=1, low=0)
        if self not in self._clients.connections:  # dropped while it was being opened
            transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - the reason does not matter
        """Remove the connection from every queue."""
        self._deregister()

    def get_buffer(self, sizehint: int) -> bytearray:  # noqa: ARG002 - asyncio's signature
        """Return the buffer shared by all connections, small enough that no client blocks the loop for long."""
        return self._clients.buffer

    def buffer_updated(self, nbytes: int) -> None:
        """Parse what arrived and respond to complete requests."""
        if self._closing:
            return
        data = bytes(memoryview(self._clients.buffer)[:nbytes])
        if self._queue is self._clients.idle:
            self._move_to(self._clients.reading, self._deadlines.request)
        if self._tls is None:
            self._h11.receive_data(data)
            self._advance()
        elif self._tls.established:
            self._decrypt(self._tls, data)
        else:  # a handshake takes a millisecond of CPU, so it goes through the fair queue
            self._schedule(partial(self._decrypt, self._tls, data))

    def pause_writing(self) -> None:
        """Stop writing to a client that does not read."""
        self._paused = True

    def resume_writing(self) -> None:
        """Continue with the response, and with requests that arrived meanwhile."""
        self._paused = False
        # After this call asyncio shuts down the socket of a response that ended in it once more, and raises ENOTCONN
        # where the client has closed its side by then (CPython selector_events.py, _write_ready).
        self._loop.call_soon(self._continue)

    def _continue(self) -> None:
        if self in self._clients.connections and not self._paused:
            self._write()
            self._advance()

    def _schedule(self, step: Callable[[], None]) -> None:
        """Run a step through the fair queue; input that arrives meanwhile stays in the kernel."""
        assert self._transport is not None
        self._transport.pause_reading()
        self._listener.queue.add(self.client_key, lambda: self._run_step(step))

    def _run_step(self, step: Callable[[], None]) -> None:
        assert self._transport is not None
        if self in self._clients.connections:
            self._transport.resume_reading()
            step()

    # --- TLS ----------------------------------------------------------------------------------------

    def _decrypt(self, tls: Tls, data: bytes) -> None:
        assert self._transport is not None
        was_established = tls.established
        try:
            for plain in tls.receive(data):
                self._h11.receive_data(plain)
        except ssl.SSLError as error:
            if was_established:
                self.abort()
            else:
                self._fail_handshake(tls, error)
            return
        if records := tls.send(b""):
            self._transport.write(records)
        if tls.established and not was_established:
            self._client = self._client._replace(certificate=tls.certificate())
        self._advance()
        if (
            tls.ended
            and not self._closing
            and (self._queue is self._clients.reading or self._queue is self._clients.idle)
        ):
            self._close()

    def _fail_handshake(self, tls: Tls, error: ssl.SSLError) -> None:
        assert self._transport is not None
        self._listener.failed(self._client.host, failure_reason(error))
        if error.reason == "HTTP_REQUEST":
            self._transport.write(_TLS_REQUIRED)
        else:
            self._transport.write(tls.send(b""))  # the TLS alert with the reason
        self._close()

    def _transmit(self, data: bytes | memoryview) -> None:
        assert self._transport is not None
        self._transport.write(data if self._tls is None else self._tls.send(data))

    # --- a request ----------------------------------------------------------------------------------

    def _advance(self) -> None:
        """Process received events up to one complete request; pipelined ones go through the fair queue."""
        while self._queue is self._clients.reading and not self._closing:
            try:
                event = self._h11.next_event()
            except h11.RemoteProtocolError as error:
                self._send_error(error.error_status_hint)
                return
            if isinstance(event, h11.Request):
                self._request = event
                self._received = 0
                if len(event.target) + sum(len(name) + len(value) for name, value in event.headers) > _MAX_HEAD_BYTES:
                    self._send_error(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE)
            elif isinstance(event, h11.Data):
                self._received += len(event.data)
                if self._received > _MAX_REQUEST_BODY_BYTES:
                    self._send_error(HTTPStatus.REQUEST_ENTITY_TOO_LARGE)
            elif isinstance(event, h11.EndOfMessage):
                assert self._request is not None
                self._respond(self._request)
                if self._queue is self._clients.reading and not self._closing:  # the next one may be pipelined
                    self._schedule(self._advance)
                return
            else:  # h11 needs more data
                return

    def _respond(self, request: h11.Request) -> None:
        try:
            response = self._listener.answer(request, self._client)
        except Exception:  # noqa: BLE001 - logged, and reported to the client as status 500
            response = _internal_error(request)
        if isinstance(response, Response):
            self._send(response)
            return
        assert self._transport is not None
        self._move_to(self._clients.authenticating, self._deadlines.login)
        self._transport.pause_reading()
        self._pending = asyncio.ensure_future(response)
        self._pending.add_done_callback(lambda done: self._response_ready(request, done))

    def _response_ready(self, request: h11.Request, done: asyncio.Future[Response]) -> None:
        self._pending = None
        if done.cancelled() or self._queue is not self._clients.authenticating:
            return
        self._send(done.result() if done.exception() is None else _internal_error(request, done.exception()))
        self._advance()

    def _send_error(self, status: int) -> None:
        self._send(Response(status, f"{HTTPStatus(status).phrase}\n".encode(), close=True))

    # --- the response ------------------------------------------------------------------------------

    def _send(self, response: Response) -> None:
        assert self._transport is not None
        self._listener.answered(response.status)
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
        self._move_to(self._clients.writing, self._deadlines.write)
        self._unsent = memoryview(body)[_PIECE_BYTES:]
        self._transmit((head or b"") + body[:_PIECE_BYTES])
        self._write()
        if self._queue is self._clients.writing:
            self._transport.pause_reading()  # input that arrives meanwhile stays in the kernel

    def _write(self) -> None:
        """Write the body in pieces, so that a client that does not read pins one piece in memory and not a body."""
        while self._unsent and not self._paused and self._transport is not None:
            piece, self._unsent = self._unsent[:_PIECE_BYTES], self._unsent[_PIECE_BYTES:]
            self._transmit(piece)
        if self._queue is self._clients.writing and not self._unsent and not self._paused:
            self._finish()

    def _finish(self) -> None:
        assert self._transport is not None
        self._transport.resume_reading()
        ended = self._tls is not None and self._tls.ended
        if ended or self._h11.our_state is not h11.DONE or self._h11.their_state is not h11.DONE:
            self._close()
            return
        self._h11.start_next_cycle()
        self._request = None
        if self._h11.trailing_data[0]:
            self._move_to(self._clients.reading, self._deadlines.request)
        else:
            self._move_to(self._clients.idle, self._deadlines.idle)

    def _close(self) -> None:
        """Close, but keep reading for a while: a socket closed with unread input is reset and may lose the response."""
        assert self._transport is not None
        self._closing = True
        if self._tls is not None:
            self._transport.write(self._tls.close())
        try:
            self._transport.write_eof()
        except OSError:  # the client is gone
            self.abort()
        else:
            self._move_to(self._clients.reading, _LINGER_SECONDS)


def _internal_error(request: h11.Request, error: BaseException | None = None) -> Response:
    log.error("answering %r failed", request.target, exc_info=error or True)
    return Response(HTTPStatus.INTERNAL_SERVER_ERROR, b"internal error: see the log\n", close=True)
