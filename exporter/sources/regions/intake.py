"""The socket on which programs report their regions, read by a thread of its own."""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import selectors
import socket
import struct
import threading
import time
from collections import Counter

from ...host import Host, unavailable
from ...records import RegionReport, Unavailable
from ..usage.pid_lookup import PidResolver, ProcessIdentity
from .messages import MAX_BYTES, Rejected, Rejection
from .peer import Peer

_log = logging.getLogger("regions")

_FIX_SERVED = (
    "another exporter on this machine serves this socket: as it should if this is doctor or --once beside it; else set "
    "--regions.socket"
)

MAX_PEERS = 512
"""Processes that may be connected at the same time."""

_MESSAGES_AT_ONCE = 16
"""Messages read of one process before it is the next one's turn."""

_MESSAGES_AT_LAST = 500
_CLOSE_SECONDS = 1.0

_OFFSET_SECONDS = 1.0

_CREDENTIALS = struct.Struct("3i")
_FIX = (
    "make its directory writable for this user (in a systemd unit RuntimeDirectory=ai-energy-exporter), or set "
    "--regions.socket; --no-source.regions switches it off"
)


class Intake:
    """Listens at ``path`` and collects what connected processes send. `take` may be called from another thread.

    A process is whatever the kernel says is at the other end (SO_PEERCRED); nothing in a message says who sent it.
    """

    def __init__(self, host: Host, path: str) -> None:
        self._host = host
        self._path = path
        self._resolver = PidResolver(host)
        self._lock = threading.Lock()
        self._peers: dict[socket.socket, Peer] = {}
        self._ended: list[Peer] = []
        self._rejected: Counter[Rejection] = Counter()
        self._refused = False
        self._lost = 0
        self._selector: selectors.BaseSelector | None = None
        self._listening: socket.socket | None = None
        self._inode = 0  # of its path
        self._thread: threading.Thread | None = None
        self._stop = threading.Event()
        self._offset_seconds, self._offset_at = 0.0, float("-inf")
        self._own_clock_ahead = 0.0
        self._own_clock_ahead = self._clock_ahead("self")

    def open(self) -> None:
        """Listen, and start the thread; again where the socket was removed. Raises `Unavailable`."""
        if self._listening is not None and os.path.lexists(self._path):
            return
        listening = self._listen()
        if self._selector is None:
            self._selector = selectors.DefaultSelector()
            self._thread = threading.Thread(target=self._run, args=(self._selector,), name="regions", daemon=True)
            self._thread.start()
        before, self._listening = self._listening, listening
        self._selector.register(listening, selectors.EVENT_READ)
        if before is not None:
            self._selector.unregister(before)
            before.close()

    def _listen(self) -> socket.socket:
        self._make_folder()
        listening = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        try:
            self._bind(listening)
            os.chmod(self._path, 0o666)  # who reports is known by pid; what it may report is limited
            listening.listen(128)
            listening.setblocking(False)
        except OSError as error:
            listening.close()
            found = unavailable(error, self._path)
            fix = _FIX_SERVED if error.errno == errno.EADDRINUSE else _FIX
            raise Unavailable(found.reason, found.message, fix) from None
        self._inode = os.stat(self._path).st_ino
        return listening

    def _make_folder(self) -> None:
        """Make the socket's directory, which other users may enter. Raises `Unavailable`."""
        folder = os.path.dirname(self._path)
        if not folder or os.path.isdir(folder):
            return
        try:
            os.makedirs(folder, exist_ok=True)
            os.chmod(folder, 0o755)  # whatever the umask is
        except OSError as error:  # nothing is set up here for regions, as for a user who starts the exporter by hand
            message = f"{folder}: no such directory, and it cannot be made: {error.strerror or error}"
            raise Unavailable("not_found", message, _FIX) from None

    def _bind(self, listening: socket.socket) -> None:
        try:
            listening.bind(self._path)
        except OSError as error:
            if error.errno != errno.EADDRINUSE or self._is_served():
                raise
            os.unlink(self._path)  # of an exporter that ended
            listening.bind(self._path)

    def _is_served(self) -> bool:
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as probe:
            try:
                probe.setblocking(False)
                probe.connect(self._path)
            except BlockingIOError:
                return True
            except OSError:
                return False
            return True

    def take(self) -> RegionReport:
        """What was reported since the last call."""
        with self._lock:
            found = [peer.take(ended=False) for peer in self._peers.values()]
            found += [peer.take(ended=True) for peer in self._ended]
            lost = self._lost + sum([peer.lost for peer in self._peers.values()])
            self._ended, self._refused = [], False
            processes = tuple([each for each in found if each is not None])
            return RegionReport(processes, {str(reason): count for reason, count in self._rejected.items()}, lost)

    @property
    def has_news(self) -> bool:
        """Whether a process is connected, or was since the last `take`, or was refused since then."""
        return bool(self._peers or self._ended or self._refused)

    def close(self) -> None:
        """Stop listening, remove the socket, and read what was sent: `take` has it."""
        if self._listening is not None and not self._stop.is_set():
            self._stop.set()
            with contextlib.suppress(OSError):
                if os.stat(self._path).st_ino == self._inode:  # else it is that of the exporter which came after
                    os.unlink(self._path)
            with contextlib.suppress(OSError):
                self._listening.shutdown(socket.SHUT_RDWR)  # wakes the thread
            if self._thread is not None:
                self._thread.join(_CLOSE_SECONDS)

    # --- the thread ---------------------------------------------------------------------------------

    def _run(self, selector: selectors.BaseSelector) -> None:
        while not self._stop.is_set():
            for key, _ in selector.select():
                if self._stop.is_set():
                    break
                connection = key.fileobj
                assert isinstance(connection, socket.socket)
                try:
                    if connection not in self._peers:
                        self._accept(connection, selector)
                    elif not self._read(connection):
                        self._drop(connection, selector)
                except Exception as error:  # noqa: BLE001 - no client may end the thread
                    _log.debug("regions: %r", error)
                    if connection in self._peers:
                        self._drop(connection, selector)
        for connection in list(self._peers):
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RD)  # from here on the client cannot send, and keeps what it has
            self._read(connection, _MESSAGES_AT_LAST)
            self._drop(connection, selector)
        if self._listening is not None:
            self._listening.close()
        selector.close()

    def _accept(self, listening: socket.socket, selector: selectors.BaseSelector) -> None:
        try:
            connection, _ = listening.accept()
        except BlockingIOError:
            return
        except OSError:  # no descriptor left: not in a loop that takes a whole CPU
            self._stop.wait(0.1)
            return
        if len(self._peers) >= MAX_PEERS:
            self._reject("too_many_clients")
            connection.close()
            return
        identity = self._identify(connection)
        if identity is None:
            self._reject("no_process")
            connection.close()
            return
        connection.setblocking(False)
        ahead = self._clock_ahead(str(identity.process.key.pid))
        peer = Peer(identity.process, identity.group, self._host.clock, lambda: self._offset() - ahead)
        with self._lock:
            self._peers[connection] = peer
        selector.register(connection, selectors.EVENT_READ)

    def _identify(self, connection: socket.socket) -> ProcessIdentity | None:
        """The process at the other end; None if it is in a pid namespace that cannot be seen from here."""
        raw = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
        pid, _, _ = _CREDENTIALS.unpack(raw)
        if pid <= 0 or self._resolver.foreign:
            return None
        now = self._host.clock()
        self._resolver.expire(now)
        return self._resolver.find(pid, now)

    def _clock_ahead(self, pid: str) -> float:
        """Seconds by which CLOCK_MONOTONIC of a process is ahead of ours: it has a time namespace (Linux 5.6)."""
        with contextlib.suppress(Unavailable, ValueError, IndexError):
            for line in self._host.text(self._host.proc(pid, "timens_offsets")).splitlines():
                words = line.split()
                if words[0] == "monotonic":
                    return int(words[1]) + int(words[2]) / 1e9 - self._own_clock_ahead
        return 0.0

    def _offset(self) -> float:
        """Seconds since boot less CLOCK_MONOTONIC, which changes only while the machine sleeps."""
        if time.monotonic() - self._offset_at > _OFFSET_SECONDS:
            # Of several pairs of reads the one between which the thread was not interrupted.
            pairs = [(time.monotonic(), self._host.clock(), time.monotonic()) for _ in range(5)]
            before, at, after = min(pairs, key=lambda pair: pair[2] - pair[0])
            self._offset_seconds, self._offset_at = at - (before + after) / 2, after
        return self._offset_seconds

    def _read(self, connection: socket.socket, most: int = _MESSAGES_AT_ONCE) -> bool:
        """Read what a process sent; False if it has closed the connection."""
        peer = self._peers[connection]
        for _ in range(most):
            try:
                data, _, flags, _ = connection.recvmsg(MAX_BYTES)
            except BlockingIOError:
                return True
            except OSError:
                return False
            if not data:
                return False
            try:
                if flags & socket.MSG_TRUNC:
                    raise Rejected("too_large")
                with self._lock:
                    peer.receive(data)
            except Rejected as rejected:
                self._reject(rejected.reason)
        return True

    def _drop(self, connection: socket.socket, selector: selectors.BaseSelector) -> None:
        selector.unregister(connection)
        with self._lock:
            peer = self._peers.pop(connection)
            self._lost += peer.lost
            self._ended.append(peer)
        connection.close()

    def _reject(self, reason: Rejection) -> None:
        with self._lock:
            self._rejected[reason] += 1
            self._refused = True
