"""Which processes have a GPU open: scans /proc/PID/fd, a bounded number of links per read."""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable, Iterator

from ...host import Host

KFD = "kfd"
"""Name of ROCm's compute node (/dev/kfd); the others are those of /dev/dri."""

PASS_SECONDS = 10.0
"""How often a pass over all processes starts, to find those that open a card long after their start."""

_RECENT_SECONDS = 10.0
"""How long a new process is scanned in every read: most open their card soon after their start."""

_LINKS_PER_READ = 1000
_LINKS_FIRST_READ = 20_000
_LINKS_PER_PROCESS = 200
"""Reading one link takes 4–5 µs: a pass over 10,000 open files takes 5 ms a second for ten seconds."""

_LATE_SECONDS = 60.0


def _node_of(target: str) -> str | None:
    if target.startswith("/dev/dri/"):
        return target[len("/dev/dri/") :]
    return KFD if target == "/dev/kfd" else None


class OpenFiles:
    """The open nodes by pid and descriptor, as of the last scan of each process.

    Each read first scans new processes, then continues the pass over all of them. ``denied`` is set if some processes
    hide their files from this user, ``late`` if a pass takes more than a minute.
    """

    def __init__(self, host: Host, node_of: Callable[[str], str | None] = _node_of) -> None:
        """``node_of`` returns the name of the node that a device file is, None for files of no interest."""
        self._host = host
        self._node_of = node_of
        self.opened: dict[int, dict[str, str]] = {}
        self._since: dict[int, float] = {}
        self._denied: set[int] = set()
        self._pass: Iterator[None] | None = None
        self._pass_at = float("-inf")
        self._is_first = True
        self.late = False

    @property
    def denied(self) -> bool:
        """Whether the open files of some processes are hidden from this user."""
        return bool(self._denied)

    def refresh(self, now: float) -> None:
        """Continue the scan. A /proc that cannot be listed has no processes."""
        try:
            pids = {int(name) for name in os.listdir(self._host.procfs) if name.isdigit()}
        except OSError:
            pids = set()
        for pid in self._since.keys() - pids:
            del self._since[pid]
            self.opened.pop(pid, None)
            self._denied.discard(pid)
        for pid in sorted(pids - self._since.keys()):
            self._since[pid] = float("-inf") if self._is_first else now
        left = _LINKS_FIRST_READ if self._is_first else _LINKS_PER_READ
        self._is_first = False
        for pid, since in list(self._since.items()):
            if now - since < _RECENT_SECONDS and left > 0:
                left -= _take(self._scan(pid), min(left, _LINKS_PER_PROCESS))
        self._continue_pass(now, left)

    def has_card_open(self, pid: int) -> bool:
        """Whether this process has a card open; scans it now if that is not known."""
        if pid not in self.opened:
            _take(self._scan(pid), _LINKS_PER_PROCESS)
        return pid in self.opened

    def _continue_pass(self, now: float, left: int) -> None:
        if self._pass is None:
            if now - self._pass_at < PASS_SECONDS:
                return
            self._pass_at = now
            self._pass = itertools.chain.from_iterable(self._scan(pid) for pid in list(self._since))
        if _take(self._pass, left) < left:
            self._pass, self.late = None, False
        elif now - self._pass_at > _LATE_SECONDS:
            self.late = True

    def _scan(self, pid: int) -> Iterator[None]:
        """Scan one process; yields before each link, so that the caller can pause the scan."""
        folder = self._host.proc(str(pid), "fd")
        found: dict[str, str] = {}
        yield
        try:
            names = os.listdir(folder)
        except PermissionError:
            self._denied.add(pid)
            return
        except OSError:
            names = []
        for name in names:
            yield
            try:
                target = os.readlink(f"{folder}/{name}")
            except PermissionError:
                self._denied.add(pid)
                return
            except OSError:
                continue  # closed meanwhile
            node = self._node_of(target)
            if node is None:
                continue
            found[name] = node
            self.opened.setdefault(pid, {})[name] = found[name]
        self._denied.discard(pid)
        if found:
            self.opened[pid] = found
        else:
            self.opened.pop(pid, None)


def _take(links: Iterator[None], most: int) -> int:
    """Scan at most ``most`` links; returns their number."""
    return sum(1 for _ in itertools.islice(links, most))
