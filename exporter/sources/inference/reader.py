"""Reads the page of one model server, and accumulates its counts until they are taken."""

from __future__ import annotations

import logging
import threading
from collections.abc import Collection, Iterator
from typing import NamedTuple
from urllib.parse import quote

from ...availability.tracker import Backoff
from ...host import Host
from ...network.addresses import HeldByAnother, reachable_address
from ...network.http_get import REFUSED, Answer, NotPlainHttp, Request, http_get_by_key
from ...records import CountKind, Problem, TokenUse, Unavailable
from ...workloads.protocol import ModelServer
from .dialects import DIALECTS, Dialect
from .page import Counts, counts, line_filter
from .server_counts import ServerCounts

_log = logging.getLogger("inference")

POLL_SECONDS = 5.0
"""Time between two pages of a server."""

TIMEOUT_SECONDS = 2.0
"""Time limit of one page, however slowly it arrives."""

MAX_PAGE_BYTES = 8 << 20
"""Longest page; those of real servers are below 1 MiB. Only the lines that matter are kept of it."""

_ACCEPT = "text/plain; version=0.0.4"
_SLOW_SECONDS = 0.5
"""A server that takes longer to respond is reported before its time limit."""

_LOADING_SECONDS = 15.0
"""A server that does not listen yet is asked again within this time, however long its model takes to load."""

_FAILING_SECONDS = 30.0
"""The same for one that hangs or refuses."""

_OTHERS_SECONDS = 60.0
"""When a server that is read through another process is looked at again."""


class _Place(NamedTuple):
    """Where a page is."""

    address: str
    port: int
    path: str
    tls: bool = False

    @property
    def url(self) -> str:
        address = f"[{self.address}]" if ":" in self.address else self.address
        return f"{'https' if self.tls else 'http'}://{address}:{self.port}{self.path}"


class _ReadElsewhere(Exception):  # noqa: N818 - the state of the world, not a mistake
    """Another process counts what this one would: an older one at the same address, or those behind a router."""


class ServerReader:
    """`poll` is called by the poller's thread, `take` and `problem` by any.

    ``age_seconds`` is the age of the process if the exporter saw it start: then all that it has counted is new. Else
    None. ``router`` is the server that started it, if that is one; ``key_file`` has the key for a page that wants one.
    """

    def __init__(
        self,
        server: ModelServer,
        host: Host,
        age_seconds: float | None = None,
        router: ModelServer | None = None,
        key_file: str = "",
        timeout_seconds: float = TIMEOUT_SECONDS,
    ) -> None:
        self.server = server
        self.due = float("-inf")
        self._host = host
        self._router = router
        self._key_file = key_file
        self._timeout_seconds = timeout_seconds
        self._dialect = DIALECTS.get(server.dialect, Dialect(none=f"unknown dialect {server.dialect}"))
        self._counts = ServerCounts(self._dialect, server.role, newborn=age_seconds is not None)
        self._since = host.clock() - (age_seconds or 0.0)
        self._keep = line_filter(self._counts.names)
        self._place: _Place | None = None
        self._backoff = Backoff(POLL_SECONDS)
        self._lock = threading.Lock()
        self._pending: dict[CountKind, float] = {}
        self._problem: Problem | None = None
        self._read = False
        self._started: float | None = None

    @property
    def endpoint(self) -> tuple[str, int] | None:
        """Address and port of its page, None while it is not read."""
        return None if self._place is None else self._place[:2]

    def poll(self, taken: Collection[tuple[str, int]]) -> None:
        """Read its page once, unless another server's is at that address (``taken``). Never raises."""
        now = self._started = self._host.clock()
        try:
            increase = self._counts.update(self._page(taken), now - self._since)
        except _ReadElsewhere:
            self._finish(None, read=False)
            self.due = now + _OTHERS_SECONDS
        except Unavailable as error:
            self._failed(Problem(error.reason, f"{self._name}: {error.message}", self._fix(error)))
        except Exception as error:  # noqa: BLE001 - no page may end the thread
            _log.debug("%s: %r", self._name, error)
            self._failed(Problem("error", f"{self._name}: {type(error).__name__}", "this is a bug: please report it"))
        else:
            self._since = now
            self._backoff.reset()
            self.due = now + POLL_SECONDS
            names = ", ".join(increase.implausible)
            problem = Problem("implausible", f"{self._name}: no server counts as fast as {names} rose")
            self._finish(problem if names else None, read=True, counted=increase.counts)

    def take(self) -> tuple[TokenUse | None, Problem | None]:
        """What it counted since the last call, None if nothing is to be counted here, and why its page is not read."""
        with self._lock:
            taken, self._pending = self._pending, {}
            problem, read = self._problem, self._read
        if self._started is not None and self._host.clock() - self._started > _SLOW_SECONDS:
            problem = Problem("timeout", f"{self._name}: it has not responded so far")
        if not (taken or problem or read):
            return None, None
        server, dialect, counted = self.server, self._dialect, self._counts
        use = TokenUse(
            server.process, server.group, server.dialect, counted.served, dialect.method, read, taken, counted.step
        )
        return use, problem

    def _fix(self, error: Unavailable) -> str:
        if error.reason == "timeout":
            return "see its log; if a network policy keeps the exporter from it, allow egress to its port"
        return error.fix or (self._dialect.fix if error.reason == "not_found" else "")

    @property
    def _name(self) -> str:
        return f"{self.server.dialect} of pid {self.server.process.key.pid}"

    def _failed(self, problem: Problem) -> None:
        self._place = None
        delay = self._backoff.next()
        longest = _LOADING_SECONDS if problem.reason == "not_found" else _FAILING_SECONDS
        self.due = self._host.clock() + min(delay, longest)
        self._finish(problem, read=False)

    def _finish(self, problem: Problem | None, *, read: bool, counted: dict[CountKind, float] | None = None) -> None:
        with self._lock:
            self._problem, self._read, self._started = problem, read, None
            for kind, count in (counted or {}).items():
                self._pending[kind] = self._pending.get(kind, 0.0) + count

    def _page(self, taken: Collection[tuple[str, int]]) -> Counts:
        """The counters, from where they were found last, else from the first place that has some."""
        if self._dialect.none:
            raise Unavailable("not_found", self._dialect.none, "none: its energy is attributed all the same")
        if self._place is not None:
            return self._counts_at(self._place)
        failure = Unavailable("not_found", "it has no page")
        for place in self._places(taken):
            try:
                self._place, found = self._first_read(place)
            except Unavailable as error:
                if error.reason == "timeout":
                    raise
                # A page without counters says more than one that does not exist.
                failure = error if failure.reason == "not_found" else failure
            else:
                return found
        raise failure

    def _first_read(self, place: _Place) -> tuple[_Place, Counts]:
        """The counters at a place; over TLS if the server does not respond to plain HTTP as such."""
        try:
            return place, self._counts_at(place)
        except NotPlainHttp as error:
            secure = place._replace(tls=True)
            try:
                return secure, self._counts_at(secure)
            except Unavailable:
                raise error from None

    def _places(self, taken: Collection[tuple[str, int]]) -> Iterator[_Place]:
        server = self.server
        if not server.port:
            raise Unavailable("not_found", "the port of its metrics is not known")
        query = ""
        try:
            address = reachable_address(self._host, server.process.key.pid, server.port)
        except Unavailable as error:
            if isinstance(error, HeldByAnother) and (error.address, server.port) in taken:
                raise _ReadElsewhere from None  # a worker, whose command line is that of the server which started it
            if self._router is None or not server.model:
                raise
            # The servers behind a router listen on its loopback. A model that is not loaded stays so.
            query = f"?autoload=false&model={quote(server.model, safe='')}"
            server = self._router
            address = reachable_address(self._host, server.process.key.pid, server.port)
        if not query and (address, server.port) in taken:
            raise _ReadElsewhere
        for path in self._dialect.pages:
            yield _Place(address, server.port, path + query)

    def _counts_at(self, place: _Place) -> Counts:
        request = Request(place.path, _ACCEPT, self._timeout_seconds, MAX_PAGE_BYTES, self._keep)
        answer = http_get_by_key(place.address, place.port, request, self._key_file, tls=place.tls)
        if answer.status == 400 and self.server.dialect == "llama.cpp" and "?" not in place.path:
            raise _ReadElsewhere  # a router, which wants to know whose metrics
        return self._parsed(answer, place.url)

    def _parsed(self, answer: Answer, url: str) -> Counts:
        if answer.status in REFUSED:
            fix = (
                f"write a key of this server into {self._key_file}"
                if self._key_file
                else "name a file with a key of this server (--models.key-file), or let its page be read without one"
            )
            raise Unavailable("permission", f"{url}: status {answer.status}", fix)
        if answer.status != 200:
            raise Unavailable("not_found", f"{url}: status {answer.status}")
        found = counts(answer.body, self._counts.names, url)
        if not found:
            raise Unavailable("not_found", f"{url}: it has no counters of tokens or requests")
        return found
