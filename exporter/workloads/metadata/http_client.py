"""GET over TLS, plain TCP or a unix socket, from a server that may be slow, wrong or gone."""

from __future__ import annotations

import contextlib
import errno
import http.client
import json
import socket
import ssl
import time
from collections.abc import Generator, Iterator, Mapping
from typing import Any
from urllib.parse import urlencode, urlsplit

from ...host import read_file
from ...records import Reason, Unavailable

ANSWER_SECONDS = 60.0
"""A whole answer takes no longer, however slowly it trickles."""

SILENCE_SECONDS = 10.0
"""Longest wait for a connection, and for the next byte of an answer."""

MAX_ANSWER_BYTES = 64 << 20
MAX_LINE_BYTES = 8 << 20
"""An object of Kubernetes is at most 1.5 MiB in etcd; escaped as JSON it can become some times as long."""

_PIECE = 65536

_ERRNO: dict[int, Reason] = {
    errno.ENOENT: "not_found",
    errno.ECONNREFUSED: "not_found",
    errno.EHOSTUNREACH: "not_found",
    errno.ENETUNREACH: "not_found",
    errno.EACCES: "permission",
    errno.EPERM: "permission",
    errno.ETIMEDOUT: "timeout",
}

_STATUS: dict[int, Reason] = {401: "permission", 403: "permission", 404: "not_found", 408: "timeout", 504: "timeout"}


class Refused(Unavailable):
    """The server answered, with another status than 200."""

    def __init__(self, status: int, message: str, fix: str) -> None:
        super().__init__(_STATUS.get(status, "error"), message, fix)
        self.status = status


class Channel:
    """One server, asked by one thread. Each request is a connection of its own, and reads token and CA anew.

    ``url`` is ``https://HOST:PORT``, ``http://HOST:PORT`` or ``unix:///PATH``. ``token_file`` is sent over TLS only.
    ``fixes`` says what to do by status, by reason, and under "tls" where the server's certificate is not trusted.
    """

    def __init__(
        self,
        url: str,
        fixes: Mapping[int | str, str],
        *,
        token_file: str = "",
        ca_file: str = "",
        agent: str = "",
        silence_seconds: float = SILENCE_SECONDS,
        answer_seconds: float = ANSWER_SECONDS,
    ) -> None:
        parts = urlsplit(url)
        self.url = url
        self._scheme = parts.scheme
        self._host = parts.hostname or ""
        self._port = parts.port or (443 if parts.scheme == "https" else 80)
        self._path = parts.path.rstrip("/")
        self._fixes = fixes
        self._token_file = token_file
        self._ca_file = ca_file
        self._agent = agent
        self._silence_seconds = silence_seconds
        self._answer_seconds = answer_seconds
        self._socket: socket.socket | None = None
        self._interrupted = False

    def json(self, path: str, query: Mapping[str, str] | None = None) -> Any:
        """The whole answer, as the value it stands for. Raises `Unavailable`, `Refused` for a status but 200."""
        deadline = time.monotonic() + self._answer_seconds
        parts = []
        size = 0
        with self._get(path, query) as response:
            while part := self._read(response, deadline):
                parts.append(part)
                size += len(part)
                if size > MAX_ANSWER_BYTES or part is _LATE:
                    raise self._failed("timeout" if part is _LATE else "implausible", "the answer has no end")
            if response.length:
                raise self._failed("error", "the answer broke off")
        return self.parse(b"".join(parts))

    def lines(self, path: str, query: Mapping[str, str], seconds: float) -> Generator[bytes, None, None]:
        """Lines as they come, until the server or ``seconds`` end it; an unfinished line is dropped.

        The first one is empty, and says that the server has agreed.
        Raises `Unavailable`, `Refused` for a status but 200.
        """
        deadline = time.monotonic() + seconds
        pending: list[bytes] = []
        size = 0
        with self._get(path, query) as response:
            yield b""
            while (part := self._read(response, deadline, seconds)) and part is not _LATE:
                head, newline, tail = part.rpartition(b"\n")
                if newline:
                    yield from filter(None, b"".join((*pending, head)).split(b"\n"))
                    pending, size = [], 0
                pending.append(tail)
                size += len(tail)
                if size > MAX_LINE_BYTES:
                    raise self._failed("implausible", "a line has no end")

    def parse(self, text: bytes) -> Any:
        """JSON without what nobody here asks for. Raises `Unavailable`."""
        try:
            return json.loads(text, object_pairs_hook=_needed)
        except (ValueError, RecursionError) as error:
            raise self._failed("implausible", f"not JSON: {error}") from None

    def interrupt(self) -> None:
        """End what is being read, from another thread, and for good."""
        self._interrupted = True
        if (open_socket := self._socket) is not None:
            with contextlib.suppress(OSError):
                # An SSLSocket's own method would take the TLS state away from under the reader.
                socket.socket.shutdown(open_socket, socket.SHUT_RDWR)

    @contextlib.contextmanager
    def _get(self, path: str, query: Mapping[str, str] | None) -> Iterator[http.client.HTTPResponse]:
        target = f"{self._path if self._scheme != 'unix' else ''}{path}{'?' + urlencode(query) if query else ''}"
        try:
            connection = self._connection()
            with contextlib.closing(connection):
                connection.connect()
                self._socket = connection.sock
                if self._interrupted:
                    raise ConnectionAbortedError(errno.ECONNABORTED, "closed")
                self._keep_alive(connection.sock)
                connection.request("GET", target, headers=self._headers())
                with connection.getresponse() as response:
                    if response.status != 200:
                        raise self._refused(response.status, response.read(_PIECE))
                    yield response
        except ssl.SSLCertVerificationError as error:
            raise Unavailable("error", f"{self.url}: {error.verify_message}", self._fixes.get("tls", "")) from None
        except TimeoutError:
            raise self._failed("timeout", "no answer") from None
        except OSError as error:
            reason = "not_found" if isinstance(error, socket.gaierror) else _ERRNO.get(error.errno or 0, "error")
            raise self._failed(reason, error.strerror or str(error)) from None
        except (http.client.HTTPException, ValueError) as error:
            reason = "error" if isinstance(error, http.client.IncompleteRead) else "implausible"
            raise self._failed(reason, f"{type(error).__name__}: {error}") from None
        finally:
            self._socket = None

    def _connection(self) -> http.client.HTTPConnection:
        if self._scheme == "unix":
            return _UnixConnection(self._path, self._silence_seconds)
        if self._scheme == "http":
            return http.client.HTTPConnection(self._host, self._port, timeout=self._silence_seconds)
        try:
            context = ssl.create_default_context(cafile=self._ca_file or None)
        except OSError as error:
            raise Unavailable(
                "not_found", f"{self.url}: {self._ca_file}: {error.strerror}", self._fixes.get("ca", "")
            ) from None
        # Python 3.13 made this a default, and the CAs of EKS and MicroK8s lack what it asks for (awslabs/mcp#3791).
        context.verify_flags &= ~ssl.VERIFY_X509_STRICT
        return http.client.HTTPSConnection(self._host, self._port, timeout=self._silence_seconds, context=context)

    def _headers(self) -> dict[str, str]:
        headers = {"Accept": "application/json", "User-Agent": self._agent, "Connection": "close"}
        if self._scheme == "https" and self._token_file:
            try:
                token = read_file(self._token_file, _PIECE).decode("ascii", "replace").strip()
            except Unavailable as error:
                raise Unavailable(error.reason, error.message, self._fixes.get("token", error.fix)) from None
            headers["Authorization"] = f"Bearer {token}"
        return headers

    def _keep_alive(self, open_socket: socket.socket) -> None:
        """Notice within a minute that the other machine is gone, however long a watch is silent."""
        if self._scheme != "unix" and hasattr(socket, "TCP_KEEPIDLE"):
            open_socket.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            open_socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 30)
            open_socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 10)
            open_socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 3)

    def _read(self, response: http.client.HTTPResponse, deadline: float, silence_seconds: float = 0.0) -> bytes:
        """What came, b"" at the end, `_LATE` after ``deadline``. With ``silence_seconds`` being silent is no fault."""
        left = deadline - time.monotonic()
        if left <= 0:
            return _LATE
        if self._socket is not None:
            self._socket.settimeout(min(left, silence_seconds or self._silence_seconds))
        try:
            return response.read1(_PIECE)
        except TimeoutError:
            if silence_seconds:
                return _LATE
            raise

    def _refused(self, status: int, body: bytes) -> Refused:
        try:
            said = json.loads(body)["message"]
        except (ValueError, TypeError, KeyError, RecursionError):
            said = http.client.responses.get(status, "")
        return Refused(status, f"{self.url} answers {status}: {str(said)[:300]}", self._fixes.get(status, ""))

    def _failed(self, reason: Reason, what: str) -> Unavailable:
        return Unavailable(reason, f"{self.url}: {what}", self._fixes.get(reason, ""))


_LATE = b"late"


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: str, timeout: float) -> None:
        super().__init__("localhost", timeout=timeout)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)


_HEAVY = {
    *("managedFields", "conditions", "volumes", "volumeMounts", "tolerations", "affinity", "resources", "lifecycle"),
    *("allocatedResources", "securityContext", "livenessProbe", "readinessProbe", "startupProbe"),
}
"""Most of a pod, and nothing of it is asked for: dropped while parsing, so that it never adds up."""


def _needed(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    # A label may be called like one of these; its value is text.
    return {key: value for key, value in pairs if key not in _HEAVY or type(value) is str}
