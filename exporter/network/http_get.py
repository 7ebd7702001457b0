"""HTTP GET from a server of this machine, with limits on the time and size of the whole exchange."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable
from typing import NamedTuple

from ..records import Unavailable
from .errors import SOCKET_REASONS
from .secret import secret

_CHUNK_BYTES = 65_536
_MAX_HEAD_BYTES = 65_536

REFUSED = (401, 403)
"""Statuses of a response to a request without the right key."""

TLS_ALERT = b"\x15\x03"
"""How a TLS server responds to plain text (RFC 8446, section 6)."""


class NotPlainHttp(Unavailable):
    """The response is none of HTTP: the server may want TLS."""


class Request(NamedTuple):
    """What to get.

    ``keep`` reduces each block of whole lines as it arrives; ``max_bytes`` limits what it is given. ``key`` is sent as
    a bearer token, ``user_agent`` says which client asks, "" for none.
    """

    path: str
    accept: str
    seconds: float
    max_bytes: int
    keep: Callable[[bytes], bytes] | None = None
    key: str = ""
    user_agent: str = ""


class Answer(NamedTuple):
    """Status and body of a response."""

    status: int
    body: bytes


def http_get(address: str, port: int, request: Request, *, tls: bool = False) -> Answer:
    """Send a request and read the response. Takes at most ``request.seconds``. Raises `Unavailable`.

    HTTP/1.0, so that the response is not chunked and ends with the connection. With ``tls`` the certificate is not
    verified: the address is known to be this machine's.
    """
    deadline = time.monotonic() + request.seconds
    place = f"{f'[{address}]' if ':' in address else address}:{port}"
    url = f"{'https' if tls else 'http'}://{place}{request.path}"
    try:
        with (
            socket.create_connection((address, port), timeout=request.seconds) as plain,
            _secure(plain) if tls else plain as connection,
        ):
            key = f"Authorization: Bearer {request.key}\r\n" if request.key else ""
            agent = f"User-Agent: {request.user_agent}\r\n" if request.user_agent else ""
            head = f"GET {request.path} HTTP/1.0\r\nHost: {place}\r\nAccept: {request.accept}\r\n{agent}{key}\r\n"
            connection.sendall(head.encode())
            return _read(connection, request, deadline, url)
    except TimeoutError:
        raise Unavailable("timeout", f"{url}: no whole response within {request.seconds:g} s") from None
    except ConnectionResetError as error:
        raise NotPlainHttp("error", f"{url}: {error.strerror}") from None
    except OSError as error:
        reason = SOCKET_REASONS.get(error.errno or 0, "error")
        raise Unavailable(reason, f"{url}: {error.strerror or error}") from None


def http_get_by_key(address: str, port: int, request: Request, key_file: str = "", *, tls: bool = False) -> Answer:
    """`http_get`; where that is refused, once more with the key in ``key_file``, if there is one."""
    answer = http_get(address, port, request, tls=tls)
    if answer.status not in REFUSED or not key_file:
        return answer
    return http_get(address, port, request._replace(key=secret(key_file)), tls=tls)


def _secure(plain: socket.socket) -> socket.socket:
    import ssl  # noqa: PLC0415 - 3 MiB, only where a server has TLS

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context.wrap_socket(plain)


def _read(connection: socket.socket, request: Request, deadline: float, url: str) -> Answer:
    head, rest = _read_head(connection, deadline, url)
    lines = head.decode("latin-1").split("\r\n")
    words = lines[0].split(" ", 2)
    headers = {name.strip().lower(): value.strip() for name, _, value in (line.partition(":") for line in lines[1:])}
    if not words[0].startswith("HTTP/1.") or len(words) < 2 or not words[1].isdecimal():
        raise NotPlainHttp("implausible", f"{url}: not a response of HTTP/1")
    if headers.get("transfer-encoding", "identity") != "identity":
        raise Unavailable("implausible", f"{url}: a chunked response to a request of HTTP/1.0")
    length = headers.get("content-length", "")
    expected = int(length) if length.isdecimal() else None
    kept, pending, size = bytearray(), rest, len(rest)
    while expected is None or size < expected:
        if request.keep is not None:
            whole, newline, pending = pending.rpartition(b"\n")
            kept += request.keep(whole) if newline else b""
        if size > request.max_bytes or len(kept) + len(pending) > request.max_bytes:
            raise Unavailable("implausible", f"{url}: longer than {request.max_bytes} bytes")
        chunk = _receive(connection, deadline)
        if not chunk:
            break
        size += len(chunk)
        pending += chunk
    if expected is not None and size < expected:
        raise Unavailable("error", f"{url}: connection closed in the middle of the response")
    if request.keep is not None:
        pending = request.keep(pending)
    return Answer(int(words[1]), bytes(kept) + pending)


def _read_head(connection: socket.socket, deadline: float, url: str) -> tuple[bytes, bytes]:
    received = b""
    while (end := received.find(b"\r\n\r\n")) < 0:
        chunk = _receive(connection, deadline)
        if not chunk:
            raise NotPlainHttp("error", f"{url}: connection closed before the response")
        received += chunk
        if received.startswith(TLS_ALERT):
            raise NotPlainHttp("implausible", f"{url}: it has TLS")
        if len(received) > _MAX_HEAD_BYTES + _CHUNK_BYTES:
            raise Unavailable("implausible", f"{url}: headers longer than {_MAX_HEAD_BYTES} bytes")
    return received[:end], received[end + 4 :]


def _receive(connection: socket.socket, deadline: float) -> bytes:
    left = deadline - time.monotonic()
    if left <= 0:
        raise TimeoutError
    connection.settimeout(left)
    return connection.recv(_CHUNK_BYTES)
