"""The HTTP server, in a thread of its own: no client can delay another client or the rest of the process.

asyncio and h11, because a waiting client costs them a timer and not a thread. uvicorn has no deadline for a request's
head, and responds 503 when its connections are used up instead of dropping the slowest; waitress has no TLS, and each
received byte restarts its timeout; cheroot and http.server hold a thread for each slow client. docs/faults.md has the
faults that this covers (60 to 68).
"""

from __future__ import annotations

import asyncio
import errno
import logging
import socket
import threading
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import h11

from ...config.value_types import Address
from .access import Access
from .clients import Client, Clients, Deadlines, Listener
from .connection import Connection
from .fair_queue import FairQueue
from .response import Handler, Response
from .routes import Routes

log = logging.getLogger(__name__)

_BACKLOG = 1024
_ACCEPT_BATCH = 16
_ACCEPT_PAUSE_SECONDS = 0.1
_FEWEST_CONNECTIONS = 8
_REDUCED_LIMIT_SECONDS = 60.0
_STOP_SECONDS = 1.0
_REFRESH_SECONDS = 1.0
_NO_ROOM = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})


@dataclass(frozen=True, slots=True)
class ServerOptions:
    """How to serve; an empty host in ``listen`` is every interface, port 0 any free one.

    ``listen_health`` are addresses that serve the health paths and nothing else, without TLS or login, for probes that
    have no certificate. At most ``max_requests`` responses are written at the same time: a new one displaces one that
    is not read, or is a 503. At most ``max_connections`` are open at the same time: a new one displaces the slowest.
    """

    listen: tuple[Address, ...] = (Address("127.0.0.1", 9400),)
    listen_health: tuple[Address, ...] = ()
    max_requests: int = 40
    max_connections: int = 512
    deadlines: Deadlines = field(default_factory=Deadlines)


class ListenError(Exception):
    """An address cannot be listened on; the message is one line for the operator."""


def listen(address: Address) -> list[socket.socket]:
    """Open a listening socket on every address the host name resolves to. Raises `ListenError`."""
    sockets: list[socket.socket] = []
    try:
        host, port = address
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
    """The HTTP server. ``pages`` and ``health`` map paths to handlers; health needs no login.

    Without ``access`` every client is authorized, and the server speaks plain HTTP. ``answered`` is called with the
    status of each response.
    """

    def __init__(
        self,
        pages: Mapping[str, Handler],
        health: Mapping[str, Handler],
        options: ServerOptions | None = None,
        access: Access | None = None,
        answered: Callable[[int], None] | None = None,
    ) -> None:
        self.options = options or ServerOptions()
        self._access = access
        self._routes = Routes(pages, health, access)
        failed = access.handshake_failed if access is not None else _ignore
        answered = answered or _ignore_status
        self._listener = Listener(self._answer, failed, answered, FairQueue())
        self._health_listener = Listener(self._routes.answer_health, failed, answered, self._listener.queue)
        self._listeners: dict[socket.socket, Listener] = {}
        self.health_addresses: list[Address] = []
        self._clients = Clients()
        self._max_connections = self.options.max_connections
        self._limit_timer: asyncio.TimerHandle | None = None
        self._loop = asyncio.new_event_loop()
        self._stopping = asyncio.Event()
        self._thread: threading.Thread | None = None

    # --- life ---------------------------------------------------------------------------------------

    def start(self) -> list[Address]:
        """Listen and serve; returns the bound addresses other than `health_addresses`. Raises `ListenError`."""
        try:
            for listener, addresses in (
                (self._listener, self.options.listen),
                (self._health_listener, self.options.listen_health),
            ):
                for address in addresses:
                    self._listeners.update(dict.fromkeys(listen(address), listener))
        except ListenError:
            self._close_listeners()
            self._loop.close()
            raise
        self.health_addresses, bound = self._bound(self._health_listener), self._bound(self._listener)
        self._thread = threading.Thread(target=self._run, name="http", daemon=True)
        self._thread.start()
        return bound

    def _bound(self, wanted: Listener) -> list[Address]:
        return [Address(*sock.getsockname()[:2]) for sock, listener in self._listeners.items() if listener is wanted]

    def stop(self) -> None:
        """Stop listening, give responses in progress a second to complete, close the rest. Returns within 2 s."""
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
        for sock in self._listeners:
            sock.setblocking(False)
            self._loop.add_reader(sock, self._accept, sock)
        if self._access is not None:
            self._loop.call_later(_REFRESH_SECONDS, self._refresh, self._access)
        await self._stopping.wait()
        if self._access is not None:
            self._access.stop()
        for sock in self._listeners:
            self._loop.remove_reader(sock)
        self._close_listeners()
        clients = self._clients
        for client in clients.connections - clients.writing.keys():
            client.abort()
        deadline = self._loop.time() + _STOP_SECONDS
        while clients.writing and self._loop.time() < deadline:
            await asyncio.sleep(0.02)
        for client in tuple(clients.connections):
            client.abort()
        await asyncio.sleep(0.01)  # asyncio closes aborted sockets in its next iteration

    def _refresh(self, access: Access) -> None:
        """Reload certificates and users; close idle connections that were made under other TLS settings."""
        try:
            if access.refresh():
                for client in tuple(self._clients.idle):
                    client.close()
        finally:
            self._loop.call_later(_REFRESH_SECONDS, self._refresh, access)

    def _close_listeners(self) -> None:
        for sock in self._listeners:
            sock.close()

    # --- clients ------------------------------------------------------------------------------------

    def _accept(self, sock: socket.socket) -> None:
        for _ in range(_ACCEPT_BATCH):
            try:
                peer, (host, *_) = sock.accept()
            except OSError as error:  # no more to accept, or a client that disconnected
                if error.errno in _NO_ROOM:
                    self._pause(sock, error)
                return
            peer.setblocking(False)
            while len(self._clients.connections) >= self._max_connections:
                self._clients.evict(self._loop.time())
            listener = self._listeners[sock]
            tls = self._access.tls if self._access is not None and listener is self._listener else None
            Connection(self._clients, self.options.deadlines, listener, host, tls).open(peer)

    def _pause(self, sock: socket.socket, error: OSError) -> None:
        """Out of descriptors or memory: drop connections and retry a little later, since accept would fail at once.

        The limit is lowered for a minute, so that the next clients of the backlog can be accepted too.
        """
        self._max_connections = max(
            _FEWEST_CONNECTIONS, min(self._max_connections, len(self._clients.connections)) - _ACCEPT_BATCH
        )
        if self._limit_timer is None:
            log.warning("limited to %d connections for now: %s", self._max_connections, error.strerror)
        else:
            self._limit_timer.cancel()
        self._limit_timer = self._loop.call_later(_REDUCED_LIMIT_SECONDS, self._restore_limit)
        while len(self._clients.connections) > self._max_connections:
            self._clients.evict(self._loop.time())
        self._loop.remove_reader(sock)
        self._loop.call_later(_ACCEPT_PAUSE_SECONDS, self._resume, sock)

    def _restore_limit(self) -> None:
        self._max_connections, self._limit_timer = self.options.max_connections, None

    def _resume(self, sock: socket.socket) -> None:
        if sock.fileno() >= 0:
            self._loop.add_reader(sock, self._accept, sock)

    def _has_capacity(self, client: Client) -> bool:
        """Whether one more response may be written; aborts one that a client has stopped reading."""
        if len(self._clients.writing) < self.options.max_requests:
            return True
        preempted = self._clients.preemptible(client.client_key, self._loop.time())
        if preempted is not None:
            preempted.abort()
        return preempted is not None

    def _answer(self, request: h11.Request, client: Client) -> Response | Awaitable[Response]:
        if not self._has_capacity(client):
            return Response(503, b"too many requests at once\n", headers=((b"Retry-After", b"1"),), close=True)
        return self._routes.answer(request, client)


def _ignore(host: str, reason: str) -> None:
    """No handshake fails without TLS."""


def _ignore_status(status: int) -> None:
    """Responses are not counted."""


def _log_failure(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:  # noqa: ARG001 - asyncio's signature
    log.warning("http: %s", context.get("exception") or context["message"])
