"""The exporter's side of the regions' socket, as far as tests of the client need it."""

from __future__ import annotations

import json
import socket
import threading
from collections import defaultdict
from pathlib import Path
from typing import Any


class RegionServer:
    """Collects the messages of each connection."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.connections: list[list[dict[str, Any]]] = []
        self._sockets: list[socket.socket] = []
        self._listening = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._listening.bind(str(path))
        self._listening.listen(64)
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listening.accept()
            except OSError:
                return
            messages: list[dict[str, Any]] = []
            self.connections.append(messages)
            self._sockets.append(connection)
            threading.Thread(target=self._read, args=(connection, messages), daemon=True).start()

    def _read(self, connection: socket.socket, messages: list[dict[str, Any]]) -> None:
        try:
            while data := connection.recv(1 << 20):
                messages.append(json.loads(data))
        except OSError:
            pass

    def close(self) -> None:
        """As an exporter that ends."""
        self._listening.shutdown(socket.SHUT_RDWR)
        self._listening.close()
        for connection in self._sockets:
            connection.shutdown(socket.SHUT_RDWR)
            connection.close()
        self.path.unlink()

    def totals(self, connection: int | None = None) -> Totals:
        """Everything that arrived, of one connection or of all."""
        chosen = self.connections if connection is None else [self.connections[connection]]
        totals = Totals()
        for messages in chosen:
            names = {0: "outside"}
            for message in list(messages):
                names |= {int(number): name for number, name in message.get("names", {}).items()}
                totals.add(message, names)
        return totals


class Totals:
    """Sums by name of region."""

    def __init__(self) -> None:
        self.seconds: defaultdict[str, float] = defaultdict(float)
        self.runs: defaultdict[str, int] = defaultdict(int)
        self.units: defaultdict[tuple[str, str], float] = defaultdict(float)
        self.pieces: list[list[int]] = []
        self.cpu: dict[str, tuple[int, int]] = {}  # the last that was sent, and of how many nanoseconds
        self.lost = 0
        self.device: list[tuple[str, int, int]] = []

    def add(self, message: dict[str, Any], names: dict[int, str]) -> None:
        """Add one message."""
        for piece in message.get("pieces", ()):
            self.pieces.append(piece)
            for number, nanoseconds in zip(piece[1::2], piece[2::2], strict=True):
                self.seconds[names[number]] += nanoseconds / 1e9
        for number, runs in message.get("runs", {}).items():
            self.runs[names[int(number)]] += runs
        for number, units in message.get("units", {}).items():
            for unit, count in units.items():
                self.units[names[int(number)], unit] += count
        for number, (busy, length) in message.get("cpu", {}).items():
            self.cpu[names[int(number)]] = busy, length
        self.device += [(names[number], start, length) for number, start, length in message.get("device", ())]
        self.lost += message.get("lost", 0)
