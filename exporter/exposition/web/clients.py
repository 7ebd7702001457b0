"""State of all open connections: their deadlines, their queues, and which one to drop when there is no room."""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

import h11

from .fair_queue import FairQueue
from .response import Response
from .tls import Certificate, TlsPolicy


@dataclass(frozen=True, slots=True)
class Deadlines:
    """Seconds that a client may take.

    ``request``: to send a complete request, the first one including the TLS handshake. ``login``: to wait for the check
    of its password. ``write``: to read the response. ``idle``: between two requests; longer than any sensible scrape
    interval, because Prometheus keeps its connection. Bytes that arrive meanwhile extend none of them.
    """

    request: float = 5.0
    login: float = 10.0
    write: float = 10.0
    idle: float = 300.0


class OpenConnection(Protocol):
    """A connection in a queue since ``since`` (the loop's clock, in seconds); ``client_key`` is that of `Client`."""

    since: float
    client_key: str

    def abort(self) -> None:
        """Close at once, whatever is in progress."""

    def close(self) -> None:
        """Close if idle."""


Queue = OrderedDict[OpenConnection, None]

_READ_BYTES = 16 * 1024
_SLOW_SECONDS = 1.0
_STALLED_SECONDS = 0.2
"""A response takes milliseconds; one that takes this long is aborted when the limit is reached."""


@dataclass(frozen=True, slots=True)
class Clients:
    """Every open connection, each in at most one queue, ordered by the time it entered.

    ``buffer`` is shared: each connection copies what it received before the next one reads.
    """

    connections: set[OpenConnection] = field(default_factory=set)
    reading: Queue = field(default_factory=OrderedDict)
    authenticating: Queue = field(default_factory=OrderedDict)
    writing: Queue = field(default_factory=OrderedDict)
    idle: Queue = field(default_factory=OrderedDict)
    buffer: bytearray = field(default_factory=lambda: bytearray(_READ_BYTES))

    def evict(self, now: float) -> None:
        """Drop the oldest connection without a complete request, else an idle, authenticating or writing one.

        Idle connections go first while the requests that are being read are few and recent: the newest connection may
        be among them.
        """
        slowest = next(iter(self.reading), None)
        fresh = slowest is None or (
            2 * len(self.reading) < len(self.connections) and now - slowest.since < _SLOW_SECONDS
        )
        first = (self.idle, self.reading) if fresh else (self.reading, self.idle)
        for queue in (*first, self.authenticating, self.writing):
            if queue:
                next(iter(queue)).abort()
                return

    def preemptible(self, client_key: str, now: float) -> OpenConnection | None:
        """Return the response to abort in favour of one to ``client_key``, None if there is none.

        The oldest, if it has stalled; else the oldest of the client with the most responses, if it has more than this
        one would have.
        """
        oldest = next(iter(self.writing))
        if now - oldest.since >= _STALLED_SECONDS:
            return oldest
        responses = Counter(client.client_key for client in self.writing)
        busiest, most = responses.most_common(1)[0]
        return (
            next(one for one in self.writing if one.client_key == busiest) if most > responses[client_key] + 1 else None
        )


class Client(NamedTuple):
    """The client of a request: its address, the TLS policy of its connection, and its certificate, if any.

    ``client_key`` identifies it for limits: the IPv4 address or IPv6 /64 network.
    """

    host: str
    client_key: str
    tls: TlsPolicy | None
    certificate: Certificate | None


@dataclass(frozen=True, slots=True)
class Listener:
    """Callbacks of a listening socket.

    ``answer`` is called with each complete request, ``failed`` with the address of a client and the reason why its TLS
    handshake failed, ``answered`` with the status of each response. ``queue`` orders handshakes and pipelined requests.
    """

    answer: Callable[[h11.Request, Client], Response | Awaitable[Response]]
    failed: Callable[[str, str], None]
    answered: Callable[[int], None]
    queue: FairQueue
