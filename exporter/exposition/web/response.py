"""HTTP responses and the handlers that return them."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import h11

Headers = tuple[tuple[bytes, bytes], ...]


class Response(NamedTuple):
    """A complete response; ``close`` ends the connection after it."""

    status: int
    body: bytes
    content_type: bytes = b"text/plain; charset=utf-8"
    headers: Headers = ()
    close: bool = False


Handler = Callable[[h11.Request, str], Response]
"""Returns the response to a GET or HEAD request of a client, named by its address.

Runs in the server's thread and must not block.
"""


def request_header(request: h11.Request, name: bytes) -> str:
    """Return the values of a request header, joined by commas; "" if it was not sent. ``name`` is lower case."""
    return ",".join([value.decode("latin-1") for key, value in request.headers if key == name])
