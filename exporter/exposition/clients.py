"""What the server knows of its clients: their requests' answers, their deadlines, and who waits for what."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

import h11

from .tls import Certificate, TlsPolicy
from .turns import Turns

Headers = tuple[tuple[bytes, bytes], ...]


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

    No dripped byte prolongs any of them; the first request's includes the TLS handshake. Prometheus keeps its
    connection between scrapes, so idling is allowed for longer than any sensible scrape interval. ``login`` is how
    long it waits for the check of its password.
    """

    request: float = 5.0
    login: float = 10.0
    write: float = 10.0
    idle: float = 300.0


class Open(Protocol):
    """A connection in a queue, since when (the loop's clock)."""

    since: float

    def abort(self) -> None:
        """Close at once, whatever is under way."""

    def close(self) -> None:
        """Close if it idles."""


Queue = OrderedDict[Open, None]


@dataclass(frozen=True, slots=True)
class Clients:
    """Every open connection, each in at most one queue, ordered by who has been in it longest."""

    every: set[Open] = field(default_factory=set)
    waiting: Queue = field(default_factory=OrderedDict)
    asking: Queue = field(default_factory=OrderedDict)
    writing: Queue = field(default_factory=OrderedDict)
    idle: Queue = field(default_factory=OrderedDict)

    def evict(self) -> None:
        """Drop one: who waits longest without a complete request, else idles, else logs in, else reads its answer."""
        for queue in (self.waiting, self.idle, self.asking, self.writing):
            if queue:
                next(iter(queue)).abort()
                return


class Client(NamedTuple):
    """Whose request it is: its address, and under which TLS policy it showed which certificate, if any."""

    host: str
    tls: TlsPolicy | None
    certificate: Certificate | None


@dataclass(frozen=True, slots=True)
class Door:
    """What is behind a listener. ``answer`` is called with each complete request; ``failed`` with the address of a
    client and why its TLS handshake failed. ``turns`` says whose handshake is next.
    """

    answer: Callable[[h11.Request, Client], Response | Awaitable[Response]]
    failed: Callable[[str, str], None]
    turns: Turns
