"""What the server knows of its clients: their requests' answers, their deadlines, and who waits for what."""

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
    """Seconds a client may take: to send a request, to read the answer, and to stay between two requests.

    No dripped byte prolongs any of them; the first request's includes the TLS handshake. Prometheus keeps its
    connection between scrapes, so idling is allowed for longer than any sensible scrape interval. ``login`` is how
    long it waits for the check of its password.
    """

    request: float = 5.0
    login: float = 10.0
    write: float = 10.0
    idle: float = 300.0


class OpenConnection(Protocol):
    """A connection in a queue, since when (the loop's clock), and of whom: its address, or its network of IPv6."""

    since: float
    client_key: str

    def abort(self) -> None:
        """Close at once, whatever is under way."""

    def close(self) -> None:
        """Close if it idles."""


Queue = OrderedDict[OpenConnection, None]

_READ_BYTES = 16 * 1024
_SLOW_SECONDS = 1.0
_STALLED_SECONDS = 0.2
"""An answer takes milliseconds; who takes this long gives way where there is no room for another."""


@dataclass(frozen=True, slots=True)
class Clients:
    """Every open connection, each in at most one queue, ordered by who has been in it longest.

    ``buffer`` is what all of them read to, one after the other.
    """

    connections: set[OpenConnection] = field(default_factory=set)
    reading: Queue = field(default_factory=OrderedDict)
    authenticating: Queue = field(default_factory=OrderedDict)
    writing: Queue = field(default_factory=OrderedDict)
    idle: Queue = field(default_factory=OrderedDict)
    buffer: bytearray = field(default_factory=lambda: bytearray(_READ_BYTES))

    def evict(self, now: float) -> None:
        """Drop one: who waits longest without a complete request, else idles, else logs in, else reads its answer.

        Where few are waiting, and none for long, the one that just came may be among them: who idles goes first.
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
        """Whose answer is to be given up for one to this place; None if that is to wait.

        The oldest, if it makes no headway, else the oldest of the place with the most, if it has more than this one.
        """
        oldest = next(iter(self.writing))
        if now - oldest.since >= _STALLED_SECONDS:
            return oldest
        answers = Counter(client.client_key for client in self.writing)
        busiest, most = answers.most_common(1)[0]
        return (
            next(one for one in self.writing if one.client_key == busiest) if most > answers[client_key] + 1 else None
        )


class Client(NamedTuple):
    """Whose request it is: its address, and under which TLS policy it showed which certificate, if any.

    ``client_key`` is whom to blame for it: the address, or its network of IPv6.
    """

    host: str
    client_key: str
    tls: TlsPolicy | None
    certificate: Certificate | None


@dataclass(frozen=True, slots=True)
class Listener:
    """What is behind a listener. ``answer`` is called with each complete request; ``failed`` with the address of a
    client and why its TLS handshake failed. ``turns`` says whose handshake is next.
    """

    answer: Callable[[h11.Request, Client], Response | Awaitable[Response]]
    failed: Callable[[str, str], None]
    queue: FairQueue
