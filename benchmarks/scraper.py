"""One scraper: asks at given instants on a kept-open connection, as Prometheus does, and prints what each answer took.

``python -m benchmarks.scraper PORT ENCODING FIRST PERIOD COUNT``: ENCODING is gzip or identity, the times are
monotonic seconds; prints seconds and bytes per scrape.
"""

from __future__ import annotations

import socket
import sys
import time

_REQUEST = "GET /metrics HTTP/1.1\r\nHost: localhost\r\nAccept-Encoding: {}\r\n\r\n"


def main(port: int, encoding: str, first: float, period: float, count: int) -> None:
    """Scrape."""
    buffer, request = bytearray(1 << 22), _REQUEST.format(encoding).encode()
    with socket.create_connection(("127.0.0.1", port)) as connection:
        for number in range(count):
            time.sleep(max(0.0, first + number * period - time.monotonic()))
            began = time.perf_counter()
            connection.sendall(request)
            size = receive(connection, buffer)
            print(f"{time.perf_counter() - began:.6f} {size}", flush=True)


def receive(connection: socket.socket, buffer: bytearray) -> int:
    """Read one answer to its end; returns its bytes."""
    have, view = 0, memoryview(buffer)
    while (head := buffer.find(b"\r\n\r\n", 0, have)) < 0:
        have += _more(connection, view[have:])
    fields = buffer[:head].lower()
    assert fields.startswith(b"http/1.1 200"), bytes(fields)
    size = head + 4 + int(fields.partition(b"content-length:")[2].split(b"\r\n")[0])
    while have < size:
        have += _more(connection, view[have:])
    return size


def _more(connection: socket.socket, into: memoryview) -> int:
    got = connection.recv_into(into)
    assert got, "the server hung up"
    return got


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2], float(sys.argv[3]), float(sys.argv[4]), int(sys.argv[5]))
