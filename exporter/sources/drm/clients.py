"""DRM clients of GPUs: the process that owns each, and for how long it kept its card busy."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

from ...host import Host, KeptFile
from ...records import Unavailable
from ..usage.pid_lookup import PidResolver
from .card import PARTITION
from .fdinfo import Engines, Stats, parse_fdinfo
from .files import KFD

_READ_BYTES = 16384
_QUIET_READS = 10
_QUIET_SECONDS = 5.0
"""A client without activity in ten reads is read every 5 s, because the driver walks its buffers for each read."""


@dataclass(slots=True)
class Use:
    """Use of one card by one process: busy seconds, whether it ever used the card, and the card memory it has."""

    seconds: float = 0.0
    worked: bool = False
    vram_bytes: int = 0


@dataclass(slots=True)
class _Client:
    """One client: ``seconds`` is its use up to ``read_at``; ``fds`` has one fd by pid."""

    address: str
    id: int
    engines: Engines
    stats: Stats
    read_at: float
    seconds: float
    fds: dict[int, str] = field(default_factory=dict)
    owner: int = 0
    file: KeptFile | None = None
    ratio: float = 0.0
    quiet: int = 0


class Clients:
    """Tracks every client found in an open file, and reads the active ones in every tick.

    A client is identified by card and ``drm-client-id``: several descriptors and processes may share it, and it counts
    once. ``lost`` estimates, by card, the use of closed clients after their last read: the same rate as before, for
    half of the time. ``lacks_client_ids`` is set if a driver reports no client ids (before Linux 5.19).
    """

    def __init__(self, host: Host, resolver: PidResolver) -> None:
        self._host = host
        self._resolver = resolver
        self._ticks_per_second = os.sysconf("SC_CLK_TCK")
        self._clients: dict[tuple[str, int], _Client] = {}
        self._by_fd: dict[tuple[int, str], _Client] = {}
        self._cycle_hertz: defaultdict[str, dict[str, float]] = defaultdict(dict)
        self.denied: set[int] = set()
        self.lost: dict[str, float] = {}
        self.lacks_client_ids = False

    def read(
        self,
        opened: Mapping[int, Mapping[str, str]],
        nodes: Mapping[str, str],
        active: Collection[str],
        now: float,
        window: float,
    ) -> dict[str, dict[int, Use]]:
        """Use by card and process in the last ``window`` (s); cards that are not ``active`` are not read."""
        self.lost, self.lacks_client_ids = {}, False
        self._forget_closed(opened)
        for pid, fds in opened.items():
            for fd, node in fds.items():
                if (pid, fd) not in self._by_fd and node != KFD and node in nodes:
                    address = nodes[node]
                    if address == PARTITION or address in active:
                        self._add(pid, fd, address, now, window)
        uses: dict[str, dict[int, Use]] = {address: {} for address in active}
        for client in list(self._clients.values()):
            if client.address in active:
                self._advance(client, now)
            if not client.fds:
                self.lost[client.address] = self.lost.get(client.address, 0.0) + client.ratio * window / 2
                self._drop(client)
            elif client.address in active:
                if client.owner not in client.fds:
                    client.owner = self._owner(client.fds, now)
                use = uses[client.address].setdefault(client.owner, Use())
                use.seconds += client.seconds
                use.worked = use.worked or any(client.stats.busy.values())
                use.vram_bytes += client.stats.vram_bytes
        return uses

    def close(self) -> None:
        """Forget all clients and close their files."""
        for client in list(self._clients.values()):
            self._drop(client)
        self._by_fd.clear()

    # --- opened and closed --------------------------------------------------------------------------

    def _add(self, pid: int, fd: str, address: str, now: float, window: float) -> None:
        """Read a descriptor for the first time."""
        try:
            file = self._host.keep(self._path(pid, fd))
        except Unavailable as error:
            self._note_refusal(pid, error)
            return
        try:
            stats = parse_fdinfo(file.read(_READ_BYTES))
        except Unavailable as error:
            self._note_refusal(pid, error)
            file.close()
            return
        self.denied.discard(pid)
        if stats is None:
            self.lacks_client_ids = True
            file.close()
            return
        key = (stats.address or address, stats.client)
        client = self._clients.get(key)
        if client is None:
            from_zero = self._started_after(pid, now, window)
            engines = Engines(stats, self._cycle_hertz[key[0]], from_zero=from_zero)
            client = _Client(*key, engines, stats, now, engines.advance(stats, window), file=file)
            self._clients[key] = client
        else:
            file.close()
        self._by_fd[pid, fd] = client
        client.fds.setdefault(pid, fd)
        client.owner = self._owner(client.fds, now)

    def _note_refusal(self, pid: int, error: Unavailable) -> None:
        if error.reason == "permission":
            self.denied.add(pid)

    def _started_after(self, pid: int, now: float, window: float) -> bool:
        """Whether a process started after the last read: then all of its use is new."""
        identity = self._resolver.find(pid, now)
        return identity is not None and identity.process.key.start_ticks / self._ticks_per_second > now - window

    def _forget_closed(self, opened: Mapping[int, Mapping[str, str]]) -> None:
        gone = [key for key in self._by_fd if key[1] not in opened.get(key[0], ())]
        for pid, fd in gone:
            client = self._by_fd.pop((pid, fd))
            if client.fds.get(pid) == fd:
                self._release(client, pid)
        self.denied.intersection_update(opened)

    def _release(self, client: _Client, pid: int) -> None:
        """Remove a closed descriptor of a process, which may have another one of the same client."""
        del client.fds[pid]
        for other, known in self._by_fd.items():
            if known is client and other[0] == pid:
                client.fds[pid] = other[1]
                break
        if client.file is not None:
            client.file.close()
            client.file = None

    def _drop(self, client: _Client) -> None:
        if client.file is not None:
            client.file.close()
            client.file = None
        del self._clients[client.address, client.id]
        for key in [key for key, known in self._by_fd.items() if known is client]:
            del self._by_fd[key]

    # --- reading ------------------------------------------------------------------------------------

    def _advance(self, client: _Client, now: float) -> None:
        """Read its use since the last read; a closed client has no descriptors left afterwards."""
        if client.read_at == now:
            return  # just added
        client.seconds = 0.0
        if client.quiet >= _QUIET_READS and now - client.read_at < _QUIET_SECONDS:
            return
        stats = self._stats(client)
        if stats is None:
            return
        elapsed = now - client.read_at
        client.seconds = client.engines.advance(stats, elapsed)
        client.ratio = client.seconds / elapsed
        client.quiet = client.quiet + 1 if stats.busy == client.stats.busy else 0
        client.stats, client.read_at = stats, now

    def _stats(self, client: _Client) -> Stats | None:
        while client.fds:
            pid = client.owner if client.owner in client.fds else next(iter(client.fds))
            fd = client.fds[pid]
            try:
                if client.file is None:
                    client.file = self._host.keep(self._path(pid, fd))
                stats = parse_fdinfo(client.file.read(_READ_BYTES))
            except Unavailable:
                stats = None
            if stats is not None and (stats.address or client.address, stats.client) == (client.address, client.id):
                return stats
            # Closed, or the number now belongs to another file, which is added in the next read.
            self._by_fd.pop((pid, fd), None)
            self._release(client, pid)
        return None

    def _path(self, pid: int, fd: str) -> str:
        return self._host.proc(str(pid), "fdinfo", fd)

    def _owner(self, fds: Collection[int], now: float) -> int:
        """The process that uses a client which several processes have open.

        Children that inherited it from their parent (data loaders) only keep it open. A process that received it from
        another one (a compositor, from systemd-logind) uses it, and started later than the one that opened it.
        """
        if len(fds) == 1:
            return next(iter(fds))
        born = {pid: identity.process.key.start_ticks for pid in fds if (identity := self._resolver.find(pid, now))}
        heads = [pid for pid in born if self._parent(pid) not in fds]
        return max(heads, key=lambda pid: (born[pid], -pid), default=min(fds))

    def _parent(self, pid: int) -> int:
        try:
            return int(self._host.text(self._host.proc(str(pid), "stat")).rpartition(")")[2].split()[1])
        except (Unavailable, ValueError, IndexError):
            return 0
