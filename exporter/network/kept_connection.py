"""HTTP/1.1 over one connection that is kept, with a deadline for each exchange and a choice of what is trusted."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import hmac
import socket
import ssl
import time
from collections.abc import Mapping
from typing import NamedTuple
from urllib.parse import urlsplit

import h11

from ..records import Unavailable
from .errors import SOCKET_REASONS

_CHUNK_BYTES = 65_536
_MAX_HEAD_BYTES = 65_536

_MAX_CHUNKS = 5000
"""Of a response. Each takes 20 µs of a core: an endless response of chunks of a byte ends after a tenth of a second."""


class Trust(NamedTuple):
    """Whose certificate is accepted: the system's CAs, those of ``ca_file``, one ``fingerprint``, or any.

    ``fingerprint`` is the SHA-256 of the certificate in lower-case hexadecimal digits.
    """

    ca_file: str = ""
    fingerprint: str = ""
    insecure: bool = False


class Response(NamedTuple):
    """Status, headers by lower-case name, and body."""

    status: int
    headers: Mapping[str, str]
    body: bytes


class KeptConnection:
    """The connection to one server, used by one thread, except `interrupt`.

    ``url`` is ``https://HOST[:PORT]`` or ``http://HOST[:PORT]``. ``seconds`` is the time limit of one exchange, with
    connecting, however slowly the response arrives. ``fixes`` has the keys "not_found", "timeout", "ca" (the CA file
    cannot be read), "tls" (the certificate is not trusted) and "fingerprint" (it is not the pinned one).
    """

    def __init__(
        self,
        url: str,
        trust: Trust,
        fixes: Mapping[str, str],
        *,
        seconds: float = 20.0,
        max_bytes: int = 2 << 20,
        user_agent: str = "",
    ) -> None:
        parts = urlsplit(url)
        self.url = url
        self._tls = parts.scheme == "https"
        self._host = parts.hostname or ""
        self._port = parts.port or (443 if self._tls else 80)
        self._authority = parts.netloc
        self._trust = trust
        self._fixes = fixes
        self._seconds = seconds
        self._max_bytes = max_bytes
        self._user_agent = user_agent
        self._socket: socket.socket | None = None
        self._h11 = h11.Connection(h11.CLIENT)
        self._interrupted = False

    def exchange(self, method: str, path: str, headers: Mapping[str, str] | None = None, body: bytes = b"") -> Response:
        """Send a request and read the response. Raises `Unavailable`.

        A kept connection that the server has closed meanwhile is opened again, once.
        """
        deadline = time.monotonic() + self._seconds
        kept = self._socket is not None
        try:
            try:
                return self._exchange(method, path, headers or {}, body, deadline)
            except (ConnectionError, h11.RemoteProtocolError, ssl.SSLError):
                if not kept or self._interrupted:
                    raise
                self.close()
                return self._exchange(method, path, headers or {}, body, deadline)
        except Unavailable:
            self.close()
            raise
        except ssl.SSLCertVerificationError as error:
            self.close()
            raise self._failed("permission", f"its certificate is not trusted: {error.verify_message}", "tls") from None
        except TimeoutError:
            self.close()
            raise self._failed("timeout", f"no whole response within {self._seconds:g} s", "timeout") from None
        except h11.RemoteProtocolError as error:
            self.close()
            raise self._failed("implausible", f"not a response of HTTP/1.1: {error}") from None
        except OSError as error:
            self.close()
            absent = isinstance(error, socket.gaierror)
            reason = "not_found" if absent else SOCKET_REASONS.get(error.errno or 0, "error")
            raise self._failed(reason, error.strerror or type(error).__name__, reason) from None

    def close(self) -> None:
        """Close the connection; the next exchange opens another one."""
        if (open_socket := self._socket) is not None:
            self._socket = None
            with contextlib.suppress(OSError):
                open_socket.close()

    def interrupt(self) -> None:
        """End the current exchange and refuse later ones; called from another thread."""
        self._interrupted = True
        if (open_socket := self._socket) is not None:
            with contextlib.suppress(OSError):
                # SSLSocket.shutdown() would drop the TLS state while the reader uses it.
                socket.socket.shutdown(open_socket, socket.SHUT_RDWR)

    def _exchange(self, method: str, path: str, headers: Mapping[str, str], body: bytes, deadline: float) -> Response:
        if self._interrupted:
            raise ConnectionAbortedError(errno.ECONNABORTED, "closed")
        connection = self._socket or self._connect(deadline)
        self._socket = connection
        sent = {"Host": self._authority, "User-Agent": self._user_agent, "Accept": "application/json", **headers}
        if body:
            sent |= {"Content-Type": "application/json", "Content-Length": str(len(body))}
        request = h11.Request(method=method, target=path, headers=list(sent.items()))
        data = self._h11.send(request) or b""
        if body:
            data += self._h11.send(h11.Data(body)) or b""
        data += self._h11.send(h11.EndOfMessage()) or b""
        connection.settimeout(_left(deadline))
        connection.sendall(data)
        response = self._read(connection, deadline)
        if self._h11.our_state is h11.DONE and self._h11.their_state is h11.DONE:
            self._h11.start_next_cycle()
        else:
            self.close()
        return response

    def _read(self, connection: socket.socket, deadline: float) -> Response:
        status, headers, chunks, size = 0, {}, [], 0
        while True:
            event = self._h11.next_event()
            if event is h11.NEED_DATA:
                connection.settimeout(_left(deadline))
                chunk = connection.recv(_CHUNK_BYTES)
                if not chunk and self._h11.their_state is h11.SEND_RESPONSE:
                    raise ConnectionResetError(errno.ECONNRESET, "connection closed before the response")
                self._h11.receive_data(chunk)
            elif isinstance(event, h11.Response):
                status = event.status_code
                headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in event.headers}
            elif isinstance(event, h11.Data):
                chunks.append(bytes(event.data))
                size += len(event.data)
                if size > self._max_bytes or len(chunks) > _MAX_CHUNKS:
                    limit = f"{self._max_bytes >> 10} KiB or {_MAX_CHUNKS} chunks"
                    raise self._failed("implausible", f"a response longer than {limit}")
            elif isinstance(event, h11.EndOfMessage):
                return Response(status, headers, b"".join(chunks))

    def _connect(self, deadline: float) -> socket.socket:
        self._h11 = h11.Connection(h11.CLIENT, max_incomplete_event_size=_MAX_HEAD_BYTES)
        plain = socket.create_connection((self._host, self._port), timeout=_left(deadline))
        if not self._tls:
            return plain
        try:
            plain.settimeout(_left(deadline))
            secure = self._context().wrap_socket(plain, server_hostname=self._host)
        except BaseException:
            plain.close()
            raise
        if self._trust.fingerprint:
            found = hashlib.sha256(secure.getpeercert(binary_form=True) or b"").hexdigest()
            if not hmac.compare_digest(found, self._trust.fingerprint):
                secure.close()
                what = f"its certificate is not the pinned one: its SHA-256 is {found}"
                raise self._failed("permission", what, "fingerprint")
        return secure

    def _context(self) -> ssl.SSLContext:
        trust = self._trust
        if trust.fingerprint or trust.insecure:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
            return context
        try:
            context = ssl.create_default_context(cafile=trust.ca_file or None)
        except OSError as error:
            raise self._failed("not_found", f"{trust.ca_file}: {error.strerror or error}", "ca") from None
        # A default since Python 3.13 that many private CAs do not meet.
        context.verify_flags &= ~ssl.VERIFY_X509_STRICT
        return context

    def _failed(self, reason: str, what: str, fix: str = "") -> Unavailable:
        return Unavailable(reason, f"{self.url}: {what}", self._fixes.get(fix, ""))  # type: ignore[arg-type]


def _left(deadline: float) -> float:
    left = deadline - time.monotonic()
    if left <= 0:
        raise TimeoutError
    return left
