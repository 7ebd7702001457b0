"""One unary gRPC call to a unix socket or a port: HTTP/2 by h2, framing by hand (grpc/doc/PROTOCOL-HTTP2.md).

Imported only where there is a socket to call: h2 belongs to the extra ``kubernetes``.
"""

from __future__ import annotations

import socket
from time import monotonic
from urllib.parse import unquote

from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.events import (
    ConnectionTerminated,
    DataReceived,
    Event,
    ResponseReceived,
    StreamEnded,
    StreamReset,
    TrailersReceived,
)
from h2.exceptions import ProtocolError

from ...host import unavailable
from ...records import Reason, Unavailable

MAX_BYTES = 16 << 20
"""Maximum size of an answer, as in the kubelet's own clients (``PodResourcesMaxSize``)."""

_CHUNK = 1 << 16
_PREFIX = 5
"""Bytes before a message: the compression flag and the length."""

_REASONS: dict[str, Reason] = {"4": "timeout", "7": "permission", "12": "not_found", "16": "permission"}
"""grpc-status → reason; every other status is an error of the server."""


def call(path: str, method: str, timeout_seconds: float, message: bytes = b"") -> bytes:
    """Send a message to ``method`` (``/package.Service/Method``) and return the answer's message.

    ``path`` is that of a unix socket, or ``HOST:PORT``, which is called without TLS.

    One connection per call, so that none is stale after a restart of the server. Raises `Unavailable`, also if the
    whole call takes longer than ``timeout_seconds``.
    """
    deadline = monotonic() + timeout_seconds
    response = _Response(path)
    try:
        with _connect(path, timeout_seconds) as channel:
            connection = _request(method, timeout_seconds, message)
            while not response.complete:
                channel.sendall(connection.data_to_send())
                channel.settimeout(max(1e-3, deadline - monotonic()))
                data = channel.recv(_CHUNK)
                if not data:
                    raise Unavailable("error", f"{path}: closed before the answer was complete")
                if monotonic() > deadline:
                    raise TimeoutError
                for event in connection.receive_data(data):
                    response.feed(event)
    except TimeoutError:
        raise Unavailable("timeout", f"{path}: no answer within {timeout_seconds:g} s") from None
    except OSError as error:
        raise unavailable(error, path) from None
    except ProtocolError as error:
        raise Unavailable("implausible", f"{path}: does not speak HTTP/2: {error}") from None
    return response.message()


def _connect(path: str, timeout_seconds: float) -> socket.socket:
    host, _, port = path.rpartition(":")
    if port.isdigit() and "/" not in path:
        return socket.create_connection((host, int(port)), timeout_seconds)
    channel = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
    try:
        channel.settimeout(timeout_seconds)
        channel.connect(path)
    except BaseException:
        channel.close()
        raise
    return channel


def _request(method: str, timeout_seconds: float, message: bytes) -> H2Connection:
    connection = H2Connection(H2Configuration(header_encoding="utf-8"))
    connection.initiate_connection()
    connection.send_headers(
        1,
        [
            (":method", "POST"),
            (":scheme", "http"),
            (":path", method),
            (":authority", "localhost"),
            ("te", "trailers"),
            ("content-type", "application/grpc"),
            ("grpc-timeout", f"{round(timeout_seconds * 1000)}m"),
        ],
    )
    # The largest answer fits into the flow-control windows, so they need no further updates.
    connection.increment_flow_control_window(MAX_BYTES)
    connection.increment_flow_control_window(MAX_BYTES, 1)
    connection.send_data(1, b"\0" + len(message).to_bytes(_PREFIX - 1, "big") + message, end_stream=True)
    return connection


class _Response:
    """The part of the response received so far."""

    def __init__(self, path: str) -> None:
        self.complete = False
        self._path = path
        self._headers: dict[str, str] = {}
        self._data = bytearray()

    def feed(self, event: Event) -> None:
        """Process an event. Raises `Unavailable` if the call failed."""
        if self.complete:
            return  # a server may close the connection right after its answer
        if isinstance(event, ResponseReceived | TrailersReceived):
            self._headers |= {str(name): str(value) for name, value in event.headers}
        elif isinstance(event, DataReceived):
            self._data += event.data
            length = int.from_bytes(self._data[1:_PREFIX], "big") if len(self._data) >= _PREFIX else 0
            if max(length, len(self._data) - _PREFIX) > MAX_BYTES:
                raise Unavailable("implausible", f"{self._path}: the answer is longer than {MAX_BYTES >> 20} MiB")
        elif isinstance(event, StreamEnded):
            self.complete = True
        elif isinstance(event, StreamReset | ConnectionTerminated):
            raise Unavailable("error", f"{self._path}: the server ended the call: {event.error_code!s}")

    def message(self) -> bytes:
        """The one message. Raises `Unavailable` if the call failed or the answer is not one message."""
        status = self._headers.get("grpc-status")
        if status is None:
            http = self._headers.get(":status", "no status")
            raise Unavailable("implausible", f"{self._path}: not an answer of gRPC: HTTP {http}")
        if status != "0":
            text = unquote(self._headers.get("grpc-message", ""), errors="replace")[:200]
            raise Unavailable(_REASONS.get(status, "error"), f"{self._path}: gRPC status {status}: {text}")
        data = self._data
        if len(data) < _PREFIX or data[0] or int.from_bytes(data[1:_PREFIX], "big") != len(data) - _PREFIX:
            raise Unavailable("implausible", f"{self._path}: not one whole message")
        return bytes(data[_PREFIX:])
