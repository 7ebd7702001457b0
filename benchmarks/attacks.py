"""One attack on the exporter's port, until stdin ends.

``python -m benchmarks.attacks NAME PORT FROM FOLDER``: FROM is ``same``, the loopback address of the honest clients,
or ``others``, twenty more; FOLDER has ``ca.crt`` where the port speaks TLS, and ``expired.crt`` and its key.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import resource
import select
import socket
import ssl
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

from tests.support.served import PASSWORD, basic

CLIENTS = 2000
COMEBACKS = 200
"""Of the clients that were dropped, so many come back each second."""

_THREADS = 8
_HEAD = b"GET /metrics HTTP/1.1\r\nHost: x\r\n"
_TIMEOUT = 5.0
_REFUSED = (OSError, ValueError)  # ValueError: a socket that was closed by another thread


class Attacker:
    """Opens connections to the port; what each attack does with them is one of its methods."""

    def __init__(self, port: int, hosts: Iterator[str], folder: Path) -> None:
        self._port = port
        self._hosts = hosts
        self._tls: ssl.SSLContext | None = None
        self._folder = folder
        if (folder / "ca.crt").exists():
            self._tls = ssl.create_default_context(cafile=str(folder / "ca.crt"))
        self._hello = _hello() if self._tls else b""
        self._tokens, self._filled_at = float(CLIENTS), time.monotonic()
        self._lock = threading.Lock()

    def tcp(self) -> socket.socket:
        """One connection."""
        return socket.create_connection(("127.0.0.1", self._port), _TIMEOUT, (next(self._hosts), 0))

    def client(self) -> socket.socket:
        """One connection with the handshake made, if the port speaks TLS."""
        return self._shake_hands(self.tcp(), self._tls)

    def _shake_hands(self, connection: socket.socket, tls: ssl.SSLContext | None) -> socket.socket:
        if tls is None:
            return connection
        try:
            return tls.wrap_socket(connection, server_hostname="127.0.0.1")
        except OSError:
            connection.close()
            raise

    def _may_come(self, per_second: float) -> bool:
        with self._lock:
            now = time.monotonic()
            self._tokens = min(float(CLIENTS), self._tokens + (now - self._filled_at) * per_second)
            self._filled_at = now
            if self._tokens < 1.0:
                return False
            self._tokens -= 1.0
            return True

    # --- who stays ----------------------------------------------------------------------------------

    def _crowd(self, connect: Callable[[], socket.socket], say: Callable[[int], bytes]) -> None:
        """2,000 clients that each say a little once a second; who is dropped comes back, so many a second."""
        for part in range(_THREADS):
            threading.Thread(target=self._stay, args=(CLIENTS // _THREADS, connect, say, part), daemon=True).start()

    def _stay(self, count: int, connect: Callable[[], socket.socket], say: Callable[[int], bytes], part: int) -> None:
        clients: list[socket.socket | None] = [None] * count
        said = [0] * count
        time.sleep(part / _THREADS)  # so that not all speak at the same instant
        while True:
            began = time.monotonic()
            for number, client in enumerate(clients):
                try:
                    if client is None:
                        if self._may_come(COMEBACKS):
                            clients[number], said[number] = connect(), 0
                    elif data := say(said[number]):
                        said[number] += client.send(data)
                    elif _hung_up(client):
                        raise ConnectionResetError
                except _REFUSED:
                    if client is not None:
                        client.close()
                    clients[number] = None
            time.sleep(max(0.05, 1.0 - (time.monotonic() - began)))

    def slow(self) -> None:
        """A request's head, a byte a second."""
        text = b"GET /metrics HTTP/1.1\r\nHost: "
        self._crowd(self.client, lambda said: text[said : said + 1] or b"x")

    def silent(self) -> None:
        """A connection and not a byte."""
        self._crowd(self.tcp, lambda _: b"")

    def hello(self) -> None:
        """A ClientHello, and nothing after it."""
        self._crowd(self.tcp, lambda said: b"" if said else self._hello)

    def hello_drip(self) -> None:
        """A ClientHello, a byte a second."""
        self._crowd(self.tcp, lambda said: self._hello[said : said + 1])

    def idle(self) -> None:
        """A request for health, which needs no login, and then nothing."""
        self._crowd(self.client, lambda said: b"" if said else b"GET /-/healthy HTTP/1.1\r\nHost: x\r\n\r\n")

    # --- who comes, so many a second ----------------------------------------------------------------

    def _storm(self, per_second: float, visit: Callable[[], None]) -> None:
        self._tokens = 1.0
        for _ in range(_THREADS):
            threading.Thread(target=self._come, args=(per_second, visit), daemon=True).start()

    def _come(self, per_second: float, visit: Callable[[], None]) -> None:
        while True:
            if not self._may_come(per_second):
                time.sleep(0.5 / per_second)
                continue
            with suppress(*_REFUSED):
                visit()

    def _say(self, data: bytes) -> None:
        with self.client() as client:
            client.sendall(data)
            client.recv(1000)

    def giant(self) -> None:
        """A header of 1 MiB, 100 times a second."""
        self._storm(100, lambda: self._say(_HEAD + b"X: " + b"a" * (1 << 20) + b"\r\n\r\n"))

    def garbage(self) -> None:
        """64 KiB of noise, 200 times a second."""

        def visit() -> None:
            with self.tcp() as client:
                client.sendall(os.urandom(1 << 16))
                client.recv(1000)

        self._storm(200, visit)

    def connects(self) -> None:
        """A connection that is closed at once, 1,000 times a second."""
        self._storm(1000, lambda: self.tcp().close())

    def handshakes(self) -> None:
        """A whole handshake, 100 times a second."""
        self._storm(100, lambda: self.client().close())

    def expired(self) -> None:
        """A handshake with an expired certificate, 50 times a second."""
        assert self._tls is not None
        tls = self._tls
        tls.load_cert_chain(self._folder / "expired.crt", self._folder / "expired.key")

        def visit() -> None:
            with self._shake_hands(self.tcp(), tls) as client:
                client.recv(1000)  # in TLS 1.3 a client hears only now that it was refused

        self._storm(50, visit)

    # --- who does not stop --------------------------------------------------------------------------

    def _forever(self, count: int, visit: Callable[[], None]) -> None:
        for _ in range(count):
            threading.Thread(target=self._come, args=(100, visit), daemon=True).start()

    def endless(self) -> None:
        """A header that never ends, 1 MiB/s of it, on 20 connections."""

        def visit() -> None:
            with self.client() as client:
                client.sendall(_HEAD + b"X: ")
                while True:
                    client.sendall(b"a" * 10_000)
                    time.sleep(0.01)

        self._forever(20, visit)

    def pipelined(self) -> None:
        """2,000 requests at once without a login, every second on each of two connections."""
        burst = 2000 * (_HEAD + b"\r\n")

        def send(client: socket.socket) -> None:
            with contextlib.suppress(*_REFUSED):
                client.sendall(burst)

        def visit() -> None:
            with self.client() as client:
                while True:
                    began = time.monotonic()
                    threading.Thread(target=send, args=(client,), daemon=True).start()
                    answered = 0
                    while answered < 2000:
                        if not (part := client.recv(1 << 16)):
                            return
                        answered += part.count(b"HTTP/1.1 401")
                    time.sleep(max(0.0, 1.0 - (time.monotonic() - began)))

        self._forever(2, visit)

    def guesses(self) -> None:
        """Wrong passwords of one user, as fast as 32 connections go."""
        self._guess(itertools.repeat("prometheus"))

    def guesses_of_many(self) -> None:
        """Wrong passwords of a new user each time, as fast as 32 connections go."""
        self._guess(f"user{number}" for number in itertools.count())

    def _guess(self, names: Iterator[str]) -> None:
        guesses = itertools.count()

        def visit() -> None:
            with self.client() as client:
                while True:
                    with self._lock:
                        login = basic(next(names), f"guess {next(guesses)}")
                    client.sendall(_HEAD + f"Authorization: {login}\r\n\r\n".encode())
                    if not client.recv(1 << 16):
                        return

        self._forever(32, visit)

    def stuck(self) -> None:
        """1,000 requests with the right password at once, on 100 connections, whose answers are never read."""
        login = basic("prometheus", PASSWORD)
        requests = 1000 * (_HEAD + f"Authorization: {login}\r\n\r\n".encode())

        def visit() -> None:
            with self.client() as client:
                client.sendall(requests)
                time.sleep(1.0)
                while not _hung_up(client):
                    time.sleep(0.2)

        self._forever(100, visit)


def _hung_up(client: socket.socket) -> bool:
    """Whether the server closed it, also behind what was not read."""
    poll = select.poll()
    poll.register(client, select.POLLRDHUP)
    return bool(poll.poll(0))


def _hello() -> bytes:
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    with suppress(ssl.SSLWantReadError):
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).wrap_bio(incoming, outgoing, server_hostname="127.0.0.1").do_handshake()
    return outgoing.read()


def main(name: str, port: int, whence: str, folder: Path) -> None:
    """Attack until stdin ends."""
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    threading.stack_size(1 << 18)
    hosts = ["127.0.0.1"] if whence == "same" else [f"127.0.0.{number}" for number in range(2, 22)]
    getattr(Attacker(port, itertools.cycle(hosts), folder), name)()
    sys.stdin.read()
    os._exit(0)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), sys.argv[3], Path(sys.argv[4]))
