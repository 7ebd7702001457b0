"""A running server for tests, clients over real sockets, and web configuration files."""

from __future__ import annotations

import base64
import datetime
import http.client
import os
import socket
import ssl
from contextlib import closing
from pathlib import Path

import bcrypt
import trustme

from exporter.config.value_types import Address
from exporter.exposition.metrics.collector import Instruments, exporter_registry
from exporter.exposition.metrics.prerender import ScrapeBody
from exporter.exposition.metrics.render import Renderer
from exporter.exposition.status.history import History
from exporter.exposition.status.page import Page
from exporter.exposition.web.access import Access
from exporter.exposition.web.server import Server, ServerOptions
from exporter.service.endpoints import Endpoints
from exporter.service.scrapers import ScrapeLog
from exporter.snapshot import Snapshot
from tests.support.patience import patience

LOCAL = (Address("127.0.0.1", 0),)
BIG = b"x" * 64 * 1024 * 1024
PASSWORD = "open sesame"
HASH = bcrypt.hashpw(PASSWORD.encode(), b"$2b$04$abcdefghijklmnopqrstuu").decode()

Answer = tuple[http.client.HTTPResponse, bytes]


class Exporter:
    """A running server, with the snapshot and clock that a test may change."""

    def __init__(
        self,
        options: ServerOptions,
        body: ScrapeBody | None = None,
        access: Access | None = None,
        telemetry_path: str = "/metrics",
        *,
        shares_factors: bool = True,
    ) -> None:
        self.snapshot: Snapshot | None = None
        self.now = 1000.0
        self.scrapes = ScrapeLog()
        self.instruments = Instruments()
        renderer = Renderer(exporter_registry(self.instruments))
        page = Page(History(), "node-7", telemetry_path)
        endpoints = Endpoints(
            lambda: self.snapshot,
            body or renderer.body,
            page,
            lambda: self.now,
            self.scrapes,
            shares_factors=shares_factors,
        )
        self.server = Server(
            endpoints.pages(telemetry_path),
            endpoints.health(),
            options,
            access,
            lambda status: self.instruments.http_requests.labels(status).inc(),
        )
        self.addresses = self.server.start()
        self.port = self.addresses[0][1]

    def connect(self, timeout: float | None = None, source: str = "127.0.0.1") -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.port), timeout or patience(), (source, 0))

    def client(self, tls: ssl.SSLContext | None = None, source: str = "127.0.0.1") -> http.client.HTTPConnection:
        """An HTTP client of this address; HTTPS if ``tls`` is given."""
        if tls is None:
            return http.client.HTTPConnection("127.0.0.1", self.port, timeout=patience(), source_address=(source, 0))
        return http.client.HTTPSConnection(
            "127.0.0.1", self.port, timeout=patience(), source_address=(source, 0), context=tls
        )

    def get(
        self,
        path: str = "/metrics",
        method: str = "GET",
        tls: ssl.SSLContext | None = None,
        source: str = "127.0.0.1",
        **headers: str,
    ) -> Answer:
        with closing(self.client(tls, source)) as client:
            return fetch(client, path, method, **headers)

    def raw(self, request: bytes) -> bytes:
        """Send bytes, and read until the server closes."""
        with self.connect() as client:
            client.sendall(request)
            return read_all(client)


class WebFolder:
    """A web configuration, its certificates, and the authority that issues them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.authority = trustme.CA()
        self.path = folder / "web.yml"

    def write(self, text: str) -> str:
        """Write the file, as a whole at once; returns its path."""
        self.replace("web.yml", text.encode())
        return str(self.path)

    def replace(self, name: str, content: bytes) -> Path:
        """Write a file beside it, as a whole at once."""
        fresh = self.folder / f"{name}.new"
        fresh.write_bytes(content)
        os.replace(fresh, self.folder / name)
        return self.folder / name

    def issue(
        self, *names: str, authority: trustme.CA | None = None, ended: bool = False, name: str = "server"
    ) -> None:
        """Issue a certificate for these names and write it and its key; ``ended`` is one that expired yesterday."""
        made = (authority or self.authority).issue_cert(*(names or ("127.0.0.1",)), not_after=_yesterday(ended))
        self.replace(f"{name}.crt", b"".join(blob.bytes() for blob in made.cert_chain_pems))
        self.replace(f"{name}.key", made.private_key_pem.bytes())

    def serve_tls(self, more: str = "", rest: str = "") -> str:
        """Issue a certificate and write a configuration with it; returns its path."""
        self.issue()
        self.replace("ca.crt", self.authority.cert_pem.bytes())
        return self.write(f"tls_server_config:\n  cert_file: server.crt\n  key_file: server.key\n{more}{rest}")

    def serve_mtls(self, more: str = "", rest: str = "") -> str:
        """The same, for clients with a certificate only."""
        both = "  client_ca_file: ca.crt\n  client_auth_type: RequireAndVerifyClientCert\n"
        return self.serve_tls(both + more, rest)

    def trusting(self, *names: str, authority: trustme.CA | None = None, ended: bool = False) -> ssl.SSLContext:
        """A client that trusts the server's authority; with ``names`` it has a certificate for them."""
        context = ssl.create_default_context()
        self.authority.configure_trust(context)
        if names:
            issued = (authority or self.authority).issue_cert(*names, not_after=_yesterday(ended))
            issued.configure_cert(context)
        return context


def _yesterday(ended: bool) -> datetime.datetime | None:
    return datetime.datetime.now(datetime.UTC) - datetime.timedelta(days=1) if ended else None


def users(**hashes: str) -> str:
    """The section of a web configuration with these users."""
    return "basic_auth_users:\n" + "".join(f"  {name}: {value}\n" for name, value in hashes.items())


def basic(name: str, password: str) -> str:
    """Value of an Authorization header."""
    return "Basic " + base64.b64encode(f"{name}:{password}".encode()).decode()


def fetch(client: http.client.HTTPConnection, path: str = "/metrics", method: str = "GET", **headers: str) -> Answer:
    """One request on a connection that is kept."""
    client.request(method, path, headers={key.replace("_", "-"): value for key, value in headers.items()})
    answer = client.getresponse()
    return answer, answer.read()


def read_all(client: socket.socket) -> bytes:
    parts = []
    try:
        while part := client.recv(65536):
            parts.append(part)
    except ConnectionResetError:
        pass
    return b"".join(parts)


def status(answer: bytes) -> int:
    return int(answer.split(b" ", 2)[1])


def is_closed(client: socket.socket) -> bool:
    try:
        return client.recv(1) == b""
    except ConnectionResetError:
        return True


def big_body(snapshot: Snapshot, *, openmetrics: bool, gzipped: bool) -> bytes:
    """More than any socket buffer takes."""
    return BIG
