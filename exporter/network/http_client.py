"""HTTP GET over TLS, plain TCP or a Unix socket, with limits on the time and size of every response."""

from __future__ import annotations

import contextlib
import errno
import http.client
import json
import re
import socket
import ssl
import time
from collections.abc import Generator, Iterator, Mapping
from typing import Any
from urllib.parse import urlencode, urlsplit

from ..host import read_file
from ..records import Reason, Unavailable
from .errors import SOCKET_REASONS

RESPONSE_TIMEOUT_SECONDS = 60.0
"""Time limit of a whole response, however slowly it arrives."""

READ_TIMEOUT_SECONDS = 10.0
"""Time limit of a connection attempt, and of the wait for the next byte of a response."""

MAX_RESPONSE_BYTES = 64 << 20
MAX_LINE_BYTES = 8 << 20
"""A Kubernetes object is at most 1.5 MiB in etcd; JSON escapes can make it several times as long."""

_CHUNK_BYTES = 65536

_STATUS: dict[int, Reason] = {401: "permission", 403: "permission", 404: "not_found", 408: "timeout", 504: "timeout"}


class HttpStatusError(Unavailable):
    """The server returned a status other than 200.

    ``retry_after_seconds`` is what its header Retry-After asks for, 0.0 if it names no number of seconds.
    """

    def __init__(self, status: int, message: str, fix: str, retry_after_seconds: float = 0.0) -> None:
        super().__init__(_STATUS.get(status, "error"), message, fix)
        self.status = status
        self.retry_after_seconds = retry_after_seconds


class HttpClient:
    """Client of one server, used by one thread. Each request opens a connection and reads the token and CA files.

    ``url`` is ``https://HOST:PORT``, ``http://HOST:PORT`` or ``unix:///PATH``. The token is sent over TLS only.
    ``fixes`` maps a status, a reason, or "token", "ca" (the file is missing) and "tls" (the certificate is not
    trusted) to the ``fix`` of the `Unavailable` that is raised.
    """

    def __init__(
        self,
        url: str,
        fixes: Mapping[int | str, str],
        *,
        token_file: str = "",
        ca_file: str = "",
        user_agent: str = "",
        read_timeout_seconds: float = READ_TIMEOUT_SECONDS,
        response_timeout_seconds: float = RESPONSE_TIMEOUT_SECONDS,
        max_response_bytes: int = MAX_RESPONSE_BYTES,
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
        self._user_agent = user_agent
        self._read_timeout_seconds = read_timeout_seconds
        self._response_timeout_seconds = response_timeout_seconds
        self._max_response_bytes = max_response_bytes
        self._socket: socket.socket | None = None
        self._interrupted = False

    def json(self, path: str, query: Mapping[str, str] | None = None, headers: Mapping[str, str] | None = None) -> Any:
        """The response body, parsed. Raises `Unavailable`, and `HttpStatusError` for any status but 200.

        ``headers`` are sent in addition to, or in place of, the usual ones.
        """
        deadline = time.monotonic() + self._response_timeout_seconds
        chunks = []
        size = 0
        with self._get(path, query, headers) as response:
            while (chunk := self._read(response, deadline)) != b"":
                if chunk is None:
                    raise self._failed("timeout", f"response not complete after {self._response_timeout_seconds:g} s")
                chunks.append(chunk)
                size += len(chunk)
                if size > self._max_response_bytes:
                    raise self._failed("implausible", f"response longer than {self._max_response_bytes >> 20} MiB")
            if response.length:
                raise self._failed("error", "connection closed in the middle of the response")
        return self.parse(b"".join(chunks))

    def lines(self, path: str, query: Mapping[str, str], seconds: float) -> Generator[bytes, None, None]:
        """Lines as they arrive, until the server ends the response or ``seconds`` have passed.

        The first line is empty and marks the response headers (status 200). An incomplete last line is dropped.
        Raises `Unavailable`, and `HttpStatusError` for any status but 200.
        """
        deadline = time.monotonic() + seconds
        pending: list[bytes] = []
        size = 0
        with self._get(path, query) as response:
            yield b""
            while chunk := self._read(response, deadline, idle_seconds=seconds):
                head, newline, tail = chunk.rpartition(b"\n")
                if newline:
                    yield from filter(None, b"".join((*pending, head)).split(b"\n"))
                    pending, size = [], 0
                pending.append(tail)
                size += len(tail)
                if size > MAX_LINE_BYTES:
                    raise self._failed("implausible", f"line longer than {MAX_LINE_BYTES >> 20} MiB")

    def parse(self, text: bytes) -> Any:
        """Parse JSON, leaving out the members of `_UNUSED_MEMBERS`. Raises `Unavailable`."""
        try:
            return json.loads(text, object_pairs_hook=_without_unused)
        except (ValueError, RecursionError) as error:
            raise self._failed("implausible", f"not JSON: {error}") from None

    def interrupt(self) -> None:
        """End the current read and refuse later requests; called from another thread."""
        self._interrupted = True
        if (open_socket := self._socket) is not None:
            with contextlib.suppress(OSError):
                # SSLSocket.shutdown() would drop the TLS state while the reader uses it.
                socket.socket.shutdown(open_socket, socket.SHUT_RDWR)

    @contextlib.contextmanager
    def _get(
        self, path: str, query: Mapping[str, str] | None, headers: Mapping[str, str] | None = None
    ) -> Iterator[http.client.HTTPResponse]:
        target = f"{self._path if self._scheme != 'unix' else ''}{path}{'?' + urlencode(query) if query else ''}"
        try:
            connection = self._connection()
            with contextlib.closing(connection):
                connection.connect()
                self._socket = connection.sock
                if self._interrupted:
                    raise ConnectionAbortedError(errno.ECONNABORTED, "closed")
                self._keep_alive(connection.sock)
                connection.request("GET", target, headers={**self._headers(), **(headers or {})})
                with connection.getresponse() as response:
                    if response.status != 200:
                        wait = response.headers.get("Retry-After", "")
                        raise self._status_error(response.status, response.read(_CHUNK_BYTES), wait)
                    yield response
        except ssl.SSLCertVerificationError as error:
            raise Unavailable("error", f"{self.url}: {error.verify_message}", self._fixes.get("tls", "")) from None
        except TimeoutError:
            raise self._failed("timeout", "no response") from None
        except OSError as error:
            reason = (
                "not_found" if isinstance(error, socket.gaierror) else SOCKET_REASONS.get(error.errno or 0, "error")
            )
            raise self._failed(reason, error.strerror or str(error)) from None
        except (http.client.HTTPException, ValueError) as error:
            reason = "error" if isinstance(error, http.client.IncompleteRead) else "implausible"
            raise self._failed(reason, f"{type(error).__name__}: {error}") from None
        finally:
            self._socket = None

    def _connection(self) -> http.client.HTTPConnection:
        if self._scheme == "unix":
            return _UnixConnection(self._path, self._read_timeout_seconds)
        if self._scheme == "http":
            return http.client.HTTPConnection(self._host, self._port, timeout=self._read_timeout_seconds)
        try:
            context = ssl.create_default_context(cafile=self._ca_file or None)
        except OSError as error:
            raise Unavailable(
                "not_found", f"{self.url}: {self._ca_file}: {error.strerror}", self._fixes.get("ca", "")
            ) from None
        # A default since Python 3.13 that the CAs of EKS and MicroK8s do not meet (awslabs/mcp#3791).
        context.verify_flags &= ~ssl.VERIFY_X509_STRICT
        return http.client.HTTPSConnection(self._host, self._port, timeout=self._read_timeout_seconds, context=context)

    def _headers(self) -> dict[str, str]:
        headers = {"Accept": "application/json", "User-Agent": self._user_agent, "Connection": "close"}
        if self._scheme == "https" and self._token_file:
            try:
                token = read_file(self._token_file, _CHUNK_BYTES).decode("ascii", "replace").strip()
            except Unavailable as error:
                raise Unavailable(error.reason, error.message, self._fixes.get("token", error.fix)) from None
            headers["Authorization"] = f"Bearer {token}"
        return headers

    def _keep_alive(self, open_socket: socket.socket) -> None:
        """Detect a dead peer within a minute, however long a watch is idle."""
        if self._scheme != "unix" and hasattr(socket, "TCP_KEEPIDLE"):
            open_socket.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            open_socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 30)
            open_socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 10)
            open_socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 3)

    def _read(
        self, response: http.client.HTTPResponse, deadline: float, idle_seconds: float | None = None
    ) -> bytes | None:
        """Next chunk, b"" at the end of the response, None at ``deadline``.

        Raises TimeoutError when the server sends nothing for the read timeout. With ``idle_seconds`` it may be idle
        that long, and the result is then None.
        """
        left = deadline - time.monotonic()
        if left <= 0:
            return None
        if self._socket is not None:
            self._socket.settimeout(min(left, self._read_timeout_seconds if idle_seconds is None else idle_seconds))
        try:
            return response.read1(_CHUNK_BYTES)
        except TimeoutError:
            if idle_seconds is None:
                raise
            return None

    def _status_error(self, status: int, body: bytes, retry_after: str) -> HttpStatusError:
        try:
            message = json.loads(body)["message"]
        except (ValueError, TypeError, KeyError, RecursionError):
            message = http.client.responses.get(status, "")
        return HttpStatusError(
            status,
            f"{self.url}: status {status}: {str(message)[:300]}",
            self._fixes.get(status, ""),
            float(retry_after) if re.fullmatch(r"\d{1,6}", retry_after, re.ASCII) else 0.0,
        )

    def _failed(self, reason: Reason, what: str) -> Unavailable:
        return Unavailable(reason, f"{self.url}: {what}", self._fixes.get(reason, ""))


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: str, timeout: float) -> None:
        super().__init__("localhost", timeout=timeout)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)


_UNUSED_MEMBERS = {
    *("managedFields", "conditions", "volumes", "volumeMounts", "tolerations", "affinity", "resources", "lifecycle"),
    *("allocatedResources", "securityContext", "livenessProbe", "readinessProbe", "startupProbe"),
}
"""Most of the bytes of a pod, none of them used: dropped while parsing, to bound the memory."""


def _without_unused(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    # A label may have one of these names; its value is a string.
    return {key: value for key, value in pairs if key not in _UNUSED_MEMBERS or type(value) is str}
