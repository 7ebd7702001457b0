"""A BMC that speaks Redfish over real TLS: its resources are a mapping, its faults are switches.

Resources are typed from what DMTF's public mock-ups and makers' documents say, reduced to what the exporter reads.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import ssl
import threading
from collections.abc import Callable, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import TracebackType
from typing import Any
from urllib.parse import urlsplit

import trustme

from tests.support.patience import patience

SESSIONS = "/redfish/v1/SessionService/Sessions"
USER, PASSWORD = "energy", "s3cret-Passw0rd"

Resources = dict[str, Any]


def login_file(folder: Path) -> Path:
    """A file with its login that nobody else may read."""
    path = folder / "credentials"
    path.write_text(f"{USER}:{PASSWORD}\n")
    path.chmod(0o600)
    return path


class MockBmc:
    """Serves ``resources`` by path to those who log in.

    A resource may be a function that makes it. ``status`` answers every request for a resource, ``statuses`` those for
    a path; ``hanging`` paths ("*" for all) are not answered until `release` is called. ``endless`` is said again and
    again after the head of a chunked response. ``session_answer`` is what a login gets in place of a session.
    """

    def __init__(self, resources: Mapping[str, Any], *, sessions: bool = True, authority: trustme.CA | None = None):
        self.resources: Resources = dict(resources)
        self.authority = authority or trustme.CA()
        self.sessions = sessions
        self.most_sessions = 4
        self.password = PASSWORD
        self.refuses = False
        self.refuses_sessions = False
        self.status: int | None = None
        self.statuses: dict[str, int] = {}
        self.hanging: set[str] = set()
        self.redirects: dict[str, str] = {}
        self.raw: dict[str, bytes] = {}
        self.endless: dict[str, bytes] = {}
        self.session_answer: tuple[int, dict[str, Any], dict[str, str]] | None = None
        self.asked: list[tuple[str, str]] = []
        self.tokens: dict[str, str] = {}
        self.logins = 0
        self.connections = 0
        self._released = threading.Event()
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.renew_certificate()
        bmc = self

        class Server(ThreadingHTTPServer):
            daemon_threads = True

            def get_request(self) -> tuple[Any, Any]:
                plain, address = super().get_request()
                bmc.connections += 1
                return bmc._context.wrap_socket(plain, server_side=True, do_handshake_on_connect=False), address

            def handle_error(self, *_: object) -> None:
                """A client that refuses the certificate, or goes away."""

        self._server = Server(("127.0.0.1", 0), _handler(self))
        self.url = f"https://127.0.0.1:{self._server.server_address[1]}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True)

    def __enter__(self) -> MockBmc:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.release()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(patience())

    @property
    def fingerprint(self) -> str:
        """SHA-256 of its certificate."""
        return hashlib.sha256(ssl.PEM_cert_to_DER_cert(self._pem)).hexdigest()

    def renew_certificate(self) -> None:
        """A new certificate from now on, as after a reset of the BMC."""
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        certificate = self.authority.issue_cert("127.0.0.1")
        certificate.configure_cert(self._context)
        self._pem = certificate.cert_chain_pems[0].bytes().decode()

    def reboot(self) -> None:
        """Forget all sessions."""
        self.tokens.clear()

    def release(self) -> None:
        """Answer what hangs."""
        self.hanging.clear()
        self._released.set()

    def ca_file(self, folder: Path) -> str:
        """A file with its CA's certificate."""
        path = folder / "ca.pem"
        self.authority.cert_pem.write_to_path(str(path))
        return str(path)

    def at(self, path: str) -> Any:
        """A resource that may be changed; the function itself if it is made by one."""
        return self.resources[path]

    def wait(self, path: str) -> None:
        """Wait while a path hangs."""
        if self.hanging & {path, "*"}:
            self._released.wait(patience(60))


def _handler(bmc: MockBmc) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        wbufsize = 65_536

        def do_GET(self) -> None:
            path = urlsplit(self.path).path
            bmc.asked.append(("GET", path))
            bmc.wait(path)
            if path in bmc.raw:
                self.wfile.write(bmc.raw[path])
                self.close_connection = True
                return
            if path in bmc.endless:
                self._pour(bmc.endless[path])
                return
            status = bmc.statuses.get(path, bmc.status)
            if status is None and path not in {"/redfish/v1/", "/redfish/v1"} and not self._allowed():
                status = 401
            if path in bmc.redirects:
                self._send(308, {}, {"Location": bmc.redirects[path]})
            elif status is not None:
                self._send(status, {"error": {"message": f"no: {bmc.password}"}})
            elif path in bmc.resources:
                made: Callable[[], Any] | Any = bmc.resources[path]
                self._send(200, made() if callable(made) else made)
            else:
                self._send(404, {})

        def do_POST(self) -> None:
            bmc.asked.append(("POST", self.path))
            body = json.loads(self.rfile.read(int(self.headers.get("Content-Length", "0"))))
            bmc.wait(self.path)
            if self.path != SESSIONS or not bmc.sessions:
                self._send(404, {})
                return
            bmc.logins += 1
            if bmc.session_answer is not None:
                self._send(*bmc.session_answer)
            elif bmc.refuses or bmc.refuses_sessions or (body["UserName"], body["Password"]) != (USER, bmc.password):
                self._send(401, {"error": {"message": f"{body['Password']} is wrong"}})
            elif len(bmc.tokens) >= bmc.most_sessions:
                self._send(503, {"error": {"code": "Base.1.0.SessionLimitExceeded"}})
            else:
                token = f"token-{bmc.logins}"
                bmc.tokens[token] = f"{SESSIONS}/{bmc.logins}"
                self._send(201, {}, {"X-Auth-Token": token, "Location": bmc.tokens[token]})

        def do_DELETE(self) -> None:
            bmc.asked.append(("DELETE", self.path))
            token = self.headers.get("X-Auth-Token", "")
            if bmc.tokens.get(token) == self.path:
                del bmc.tokens[token]
            self._send(200, {})

        def _pour(self, said: bytes) -> None:
            self.wfile.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
            self.close_connection = True
            with contextlib.suppress(OSError):  # until the client goes away
                while not bmc._released.is_set():
                    self.wfile.write(said)

        def _allowed(self) -> bool:
            if self.headers.get("X-Auth-Token") in bmc.tokens:
                return True
            scheme, _, given = self.headers.get("Authorization", "").partition(" ")
            wanted = f"{USER}:{bmc.password}"
            return scheme == "Basic" and _decode(given) == wanted and not bmc.refuses

        def _send(self, status: int, found: Any, headers: Mapping[str, str] | None = None) -> None:
            body = json.dumps(found).encode()
            self.send_response(status)
            for name, value in (headers or {}).items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """Requests are in ``asked``."""

    return Handler


def _decode(text: str) -> str:
    import base64

    return base64.b64decode(text).decode()


def members(collection: str, *ids: str) -> dict[str, Any]:
    """A collection with these members."""
    return {"Members": [{"@odata.id": f"{collection}/{id_}"} for id_ in ids]}


def machine(
    chassis: str = "1",
    system: str = "1",
    links: tuple[str, ...] = ("Power",),
    maker: str = "",
    more: tuple[str, ...] = (),
    chassis_type: str = "RackMount",
) -> Resources:
    """Service root, one system and its chassis, with links to ``links``; ``more`` are other chassis."""
    root = "/redfish/v1"
    at = f"{root}/Chassis/{chassis}"
    return {
        f"{root}/": {
            "RedfishVersion": "1.11.0",
            "Systems": {"@odata.id": f"{root}/Systems"},
            "Chassis": {"@odata.id": f"{root}/Chassis"},
            "Links": {"Sessions": {"@odata.id": SESSIONS}},
        },
        f"{root}/Systems": members(f"{root}/Systems", system),
        f"{root}/Systems/{system}": {
            "Id": system,
            "Manufacturer": maker,
            "Model": "Server",
            "Links": {"Chassis": [{"@odata.id": at}]},
        },
        f"{root}/Chassis": members(f"{root}/Chassis", chassis, *more),
        at: {"Id": chassis, "ChassisType": chassis_type} | {name: {"@odata.id": f"{at}/{name}"} for name in links},
    }
