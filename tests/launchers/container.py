"""One trial's program in a cgroup of its own, with what the kernel shows of its processes."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from exporter.host import Host
from exporter.workloads.models.commandline import split
from exporter.workloads.models.launchers import LAUNCHERS
from exporter.workloads.proc import command_line, environment, process_stat
from tests.support.live import Tree
from tests.support.patience import patience

CONTAINER_ID = f"c0ffee{os.getpid():058x}"
GROUP = f"docker/{CONTAINER_ID}"

_VARIABLES = sorted(
    {"RAY_JOB_ID"}
    | {
        name.removesuffix(",")
        for launcher in LAUNCHERS
        for name in f"{launcher.environment} {launcher.served_environment}".split()
    }
)


class Seen(NamedTuple):
    """One process: its command line, and the variables of the table that it has."""

    pid: int
    parent: int
    comm: str
    command: tuple[str, ...]
    variables: Mapping[str, str]


class Container:
    """A program that was started in the group `GROUP`, as an engine does it, and its descendants."""

    def __init__(self, tree: Tree, folder: Path, programs: Path) -> None:
        self._tree, self._folder = tree, folder
        self._path = f"PATH={programs}:{os.environ['PATH']}"
        self._started: subprocess.Popen[bytes] | None = None
        self.log = folder / f"{os.getpid()}.log"

    def start(self, words: Sequence[str], variables: Mapping[str, str]) -> None:
        """Start a program in the trials' folder; its output is in `log`."""
        self.log.write_bytes(b"")
        settings = [f"{name}={value}" for name, value in variables.items()]
        into_log = f'cd "$0" && exec "$@" > {self.log.name} 2>&1'
        command = ["/bin/sh", "-c", into_log, str(self._folder), "env", self._path, *settings, *words]
        self._started = self._tree.start(GROUP, command)

    def ended(self) -> str:
        """The last of its output if it has no process any more, else ""."""
        running = self._started is None or self._started.poll() is None or self.pids()
        return "" if running else "ended: " + self.log.read_text("utf-8", "replace")[-600:]

    def pids(self) -> list[int]:
        """Its processes, which may be gone a moment later."""
        with contextlib.suppress(OSError):
            return [int(pid) for pid in (self._tree.root / GROUP / "cgroup.procs").read_text("ascii").split()]
        return []

    def processes(self) -> Iterator[Seen]:
        """Its processes that have a command line, parents first."""
        host = Host()
        found = [stat for pid in self.pids() if (stat := process_stat(host, pid)) is not None]
        for stat in sorted(found, key=lambda stat: (stat.key.start_ticks, stat.key.pid)):
            pid = stat.key.pid
            if words := split(command_line(host, pid)):
                yield Seen(pid, stat.parent, stat.comm, tuple(words), environment(host, pid, _VARIABLES))

    def end(self) -> None:
        """Ask all processes to end, then kill what is left."""
        for number in (signal.SIGTERM, signal.SIGKILL):
            for pid in self.pids():
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, number)
            deadline = time.monotonic() + patience(2.0)
            while self.pids() and time.monotonic() < deadline:
                time.sleep(0.1)
        self._tree.remove(GROUP)


def answer(url: str, body: str = "", seconds: float = 20.0) -> str:
    """What a server answers to a request, "" if it does not, or with an error."""
    request = urllib.request.Request(url, body.encode() or None, {"Content-Type": "application/json"})
    try:
        with urllib.request.urlopen(request, timeout=seconds) as response:
            return str(response.read().decode("utf-8", "replace")) or "empty"
    except (OSError, urllib.error.URLError, ValueError):
        return ""
