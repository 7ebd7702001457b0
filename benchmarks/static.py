"""A server that does nothing but send the same bytes: what the machine and the scrapers themselves take of a scrape.

``python -m benchmarks.static BYTES`` prints its port and serves until stdin ends.
"""

from __future__ import annotations

import selectors
import socket
import sys


def main(size: int) -> None:
    """Answer every request with ``size`` bytes."""
    answer = f"HTTP/1.1 200 OK\r\nContent-Length: {size}\r\n\r\n".encode() + bytes(size)
    selector = selectors.DefaultSelector()
    selector.register(sys.stdin, selectors.EVENT_READ)
    with selector, socket.create_server(("127.0.0.1", 0)) as listener:
        selector.register(listener, selectors.EVENT_READ)
        print(listener.getsockname()[1], flush=True)
        while True:
            for key, _ in selector.select():
                if key.fileobj is sys.stdin:
                    return
                if key.fileobj is listener:
                    selector.register(listener.accept()[0], selectors.EVENT_READ)
                elif isinstance(key.fileobj, socket.socket):
                    if key.fileobj.recv(4096):
                        key.fileobj.sendall(answer)
                    else:
                        selector.unregister(key.fileobj)
                        key.fileobj.close()


if __name__ == "__main__":
    main(int(sys.argv[1]))
