"""Faults of pages and clients, each over plain HTTP and over TLS."""

from __future__ import annotations

import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import replace

import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse_text

from exporter.exposition.metrics.prerender import ScrapeBody
from exporter.exposition.web.clients import Deadlines
from exporter.exposition.web.server import ServerOptions
from exporter.records import Workload
from exporter.snapshot import Snapshot
from tests.exposition.conftest import make_row
from tests.support.patience import patience, wait_for
from tests.support.served import (
    BIG,
    LOCAL,
    Answer,
    Exporter,
    WebFolder,
    big_body,
    is_closed,
    read_all,
    status,
)

HOSTILE = ('quote" back\\slash', "line\nbreak", "nul\0", "\udcff\udcfe", "\u202eright to left", "x" * 1_000_000, "")
PATIENT = Deadlines(request=3600.0, write=3600.0)


class Site:
    """A server and matching clients."""

    def __init__(self, serve: Callable[..., Exporter], web: WebFolder, *, tls: bool) -> None:
        self._serve = serve
        self._path = web.serve_tls() if tls else None
        self.tls: ssl.SSLContext | None = web.trusting() if tls else None

    def open(self, options: ServerOptions | None = None, body: ScrapeBody | None = None) -> None:
        self.exporter = self._serve(options or ServerOptions(listen=LOCAL, deadlines=PATIENT), body, self._path)

    def get(self, path: str = "/metrics", source: str = "127.0.0.1", **headers: str) -> Answer:
        return self.exporter.get(path, tls=self.tls, source=source, **headers)

    @contextmanager
    def client(self, source: str = "127.0.0.1") -> Iterator[socket.socket]:
        with ExitStack() as stack:
            plain = stack.enter_context(self.exporter.connect(source=source))
            if self.tls is None:
                yield plain
            else:
                yield stack.enter_context(self.tls.wrap_socket(plain, server_hostname="127.0.0.1"))


@pytest.fixture(params=["plain", "tls"])
def site(request: pytest.FixtureRequest, serve: Callable[..., Exporter], web: WebFolder) -> Site:
    """A server in plain HTTP, or with TLS."""
    return Site(serve, web, tls=request.param == "tls")


def request(path: str = "/metrics", more: str = "") -> bytes:
    return f"GET {path} HTTP/1.1\r\nHost: x\r\n{more}\r\n".encode()


# --- pages ---------------------------------------------------------------------------------------------


def test_hostile_labels(site: Site) -> None:
    """Fault 45: every series arrives, in both formats."""
    site.open()
    snapshot = site.exporter.snapshot
    assert snapshot is not None
    rows = [
        make_row(1000 + n, Workload(text, text, text, "docker", f"id-{n}", text, text), {("cpu", "active"): 1.0})
        for n, text in enumerate(HOSTILE)
    ]
    site.exporter.snapshot = replace(snapshot, energy=replace(snapshot.energy, containers=tuple(rows)))
    text = site.get()[1].decode()
    openmetrics = site.get(Accept="application/openmetrics-text; version=1.0.0")[1].decode()
    for families in (list(parse_text(text)), list(parse_openmetrics(openmetrics))):  # type: ignore[no-untyped-call]
        found = {
            sample.labels["container_id"]
            for family in families
            for sample in family.samples
            if sample.name == "energy_container_info"
        }
        assert found == {f"id-{n}" for n in range(len(HOSTILE))}
    assert len(text) < 1_000_000


def test_old_data_behind_a_healthy_port(site: Site) -> None:
    """Fault 67."""
    site.open()
    assert site.get("/-/healthy")[0].status == 200
    site.exporter.now += 60
    assert site.get("/-/healthy")[0].status == 503
    assert site.get()[0].status == 200


# --- clients -------------------------------------------------------------------------------------------


def test_many_scrapers_at_once(site: Site) -> None:
    """Fault 62: one snapshot for all."""
    site.open()
    with ThreadPoolExecutor(8) as pool:
        assert len({body for _, body in pool.map(lambda _: site.get(), range(24))}) == 1


def test_a_response_that_is_not_read_is_displaced(site: Site) -> None:
    """Faults 61 and 62: at once by another address, after a moment by its own."""
    site.open(ServerOptions(listen=LOCAL, max_requests=3, deadlines=PATIENT), big_body)
    with ExitStack() as stack:
        for _ in range(3):
            stuck = stack.enter_context(site.client("127.0.0.2"))
            stuck.sendall(request())
            stuck.recv(1)
        assert len(site.get()[1]) == len(BIG)
        wait_for(lambda: site.get("/-/ready", "127.0.0.2")[0].status == 200)


def test_a_client_that_disconnects_during_a_response(site: Site) -> None:
    """Fault 63."""
    site.open(ServerOptions(listen=LOCAL, max_requests=1, deadlines=PATIENT), big_body)
    for _ in range(3):
        with site.client() as client:
            client.sendall(request())
            client.recv(1000)
        wait_for(lambda: site.get("/-/ready")[0].status == 200)


@pytest.mark.parametrize(
    ("sent", "expected"),
    [
        (b"GET / HTTP/1.1\r\nHost: x\r\nX: " + b"a" * 1_000_000 + b"\r\n\r\n", 431),
        (b"GET / HTTP/1.1\r\nHost: x\r\nX: " + b"a" * 20_000, 431),
        (b"BREW / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", 405),
        (request("/../metrics", "Connection: close\r\n"), 404),
        (request("/metrics", "Accept: \x00\x01\r\n"), 400),
        (b"\x00\x01\x02\r\n\r\n", 400),
    ],
)
def test_malformed_requests_get_a_response(site: Site, sent: bytes, expected: int) -> None:
    """Fault 64."""
    site.open()
    with site.client() as client:
        client.sendall(sent)
        assert status(read_all(client)) == expected


def test_thousands_of_pipelined_requests_share_the_server_fairly(site: Site) -> None:
    """Fault 61: a client that pipelines requests does not get all responses first."""
    order: list[bool] = []
    go = threading.Event()

    def body(snapshot: Snapshot, *, openmetrics: bool, gzipped: bool) -> bytes:
        assert go.wait(patience())
        order.append(openmetrics)
        time.sleep(0.001)
        return b"x"

    site.open(body=body)
    with site.client("127.0.0.2") as flood, site.client() as honest:
        flood.sendall(500 * request())
        honest.sendall(request("/metrics", "Accept: application/openmetrics-text\r\n"))
        go.set()
        assert status(honest.recv(1000)) == 200
        assert order.index(True) < 250
        answered = 0
        while answered < 500:
            answered += flood.recv(1 << 16).count(b"HTTP/1.1 200")


def test_idle_connections_are_dropped_before_a_new_one(site: Site) -> None:
    """Fault 61: for example, all connections are held by clients that requested health, which needs no login."""
    site.open(ServerOptions(listen=LOCAL, max_connections=8, deadlines=PATIENT))
    with ExitStack() as stack:
        idle = [stack.enter_context(site.client("127.0.0.2")) for _ in range(8)]
        for client in idle:
            client.sendall(request("/-/healthy"))
            assert status(client.recv(1000)) == 200
        with site.exporter.connect() as plain:  # before its handshake or request
            wait_for(lambda: is_closed(idle[0]))
            more = stack.enter_context(site.client("127.0.0.2"))
            more.sendall(request("/-/healthy"))
            assert status(more.recv(1000)) == 200
            honest = plain
            if site.tls is not None:
                honest = stack.enter_context(site.tls.wrap_socket(plain, server_hostname="127.0.0.1"))
            honest.sendall(request("/-/ready"))
            assert status(honest.recv(1000)) == 200
