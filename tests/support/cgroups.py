"""Real cgroups with real processes in them, and a reader of a source that keeps the sums."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from pathlib import Path

import pytest

from exporter.host import Host, boot_seconds
from exporter.records import CpuUse, GroupKey, ProcessKey
from exporter.sources.usage.cgroups import CgroupSource

TICK_SECONDS = 0.012
"""Kernel counters lag behind a running process by one scheduler tick: 1 to 10 ms."""

WORKER = """
import os, signal, sys, time
def spin(seconds):
    end = time.process_time() + seconds
    while time.process_time() < end:
        pass
for line in sys.stdin:
    verb, *words = line.split()
    if verb == "spin":
        spin(float(words[0]))
    elif verb == "herd":  # one child per directory, which spins when it gets SIGUSR1
        ready, tell = os.pipe()
        pids = []
        for directory in words[1:]:
            pid = os.fork()
            if pid == 0:
                signal.signal(signal.SIGUSR1, lambda *_: spin(float(words[0])))
                if directory != ".":
                    with open(directory + "/cgroup.procs", "w") as file:
                        file.write("0")
                os.write(tell, b"!")
                while True:
                    signal.pause()
            pids.append(pid)
        waiting = len(pids)
        while waiting:
            waiting -= len(os.read(ready, waiting))
        print(*pids, flush=True)
        continue
    print(time.process_time(), flush=True)
"""


class Worker:
    """A process that burns CPU time on request, and reports how much it used so far."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-S", "-E", "-c", WORKER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self.pid = self._process.pid
        self._herd: list[int] = []
        self.ask("hello")

    @property
    def key(self) -> ProcessKey:
        return ProcessKey(self.pid, start_ticks(self.pid))

    def ask(self, line: str) -> str:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(line + "\n")
        self._process.stdin.flush()
        return self._process.stdout.readline()

    def spin(self, seconds: float) -> float:
        """Burn CPU time; returns all CPU seconds it used so far by its own clock."""
        return float(self.ask(f"spin {seconds}"))

    def herd(self, spin_seconds: float, directories: list[str]) -> list[int]:
        """Fork a child into each directory ("." stays here); SIGUSR1 makes one spin."""
        self._herd = [int(pid) for pid in self.ask(" ".join(["herd", str(spin_seconds), *directories])).split()]
        return self._herd

    def stop(self) -> None:
        while self._herd:  # once: a pid that was reaped may be another process by now
            os.kill(self._herd.pop(), signal.SIGKILL)
        self._process.kill()
        self._process.communicate()


class Forest:
    """A cgroup of our own below a real hierarchy, taken as the root of everything."""

    def __init__(self, parent: str, counter: str) -> None:
        self.root = tempfile.mkdtemp(prefix=f"aee-test-{os.getpid()}-", dir=parent)
        os.chmod(self.root, 0o755)
        self.counter = counter
        self._workers: list[Worker] = []

    def make(self, path: str) -> str:
        os.makedirs(self.path(path))
        return self.path(path)

    def remove(self, path: str) -> None:
        """Remove a group as soon as the kernel has let go of its last process."""
        for _ in range(500):
            try:
                return os.rmdir(self.path(path))
            except OSError:
                time.sleep(0.002)
        raise TimeoutError(path)

    def path(self, path: str) -> str:
        return f"{self.root}/{path}".rstrip("/")

    def move(self, pid: int, path: str) -> None:
        Path(self.path(path), "cgroup.procs").write_text(str(pid))

    def worker(self, path: str) -> Worker:
        worker = Worker()
        self._workers.append(worker)
        self.move(worker.pid, path)
        return worker

    def used(self, path: str = "") -> float:
        """CPU seconds of a group and all below it, by the kernel's counter."""
        text = Path(self.path(path), self.counter).read_text()
        return int(text.split()[1]) / 1e6 if text.startswith("usage") else int(text) / 1e9

    def key(self, path: str) -> GroupKey:
        return GroupKey("/" + path, os.stat(self.path(path)).st_ino)

    def close(self) -> None:
        for worker in self._workers:
            worker.stop()
        for directory, _, _ in list(os.walk(self.root, topdown=False)):
            self.remove(os.path.relpath(directory, self.root) if directory != self.root else "")


def start_ticks(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19])


def mount_point(kind: str) -> str | None:
    for line in Path("/proc/mounts").read_text().splitlines():
        _, where, what, options, *_ = line.split()
        if (kind == "v2" and what == "cgroup2") or (
            kind == "v1" and what == "cgroup" and "cpuacct" in options.split(",")
        ):
            return where
    return None


class Ticker:
    """Reads a source and keeps the sums; ``skip`` seconds may be added to its clock."""

    def __init__(self, host: Host) -> None:
        self.source = CgroupSource(host)
        self.skip = 0.0
        self.busy = 0.0
        self.groups: defaultdict[GroupKey, float] = defaultdict(float)
        self.processes: defaultdict[ProcessKey, float] = defaultdict(float)
        self.started: list[GroupKey] = []
        self.ended: list[GroupKey] = []
        self.exited: list[ProcessKey] = []

    def read(self) -> CpuUse:
        use = self.source.read(boot_seconds() + self.skip).cpu
        assert use is not None
        total = sum(group.seconds for group in use.groups) + use.kernel_seconds + use.exited_seconds
        assert use.busy_seconds == pytest.approx(total, abs=1e-12)
        self.busy += use.busy_seconds
        for group in use.groups:
            assert group.seconds > 0
            assert sum(process.seconds for process in group.processes) <= group.seconds + 1e-9
            self.groups[group.group] += group.seconds
            for process in group.processes:
                self.processes[process.process.key] += process.seconds
        self.started += use.started
        self.ended += use.ended
        self.exited += use.exited
        return use

    def full(self) -> CpuUse:
        """A tick in which everything is looked at, as every 10 s."""
        self.skip += 11
        return self.read()


def open_fds() -> int:
    return len(os.listdir("/proc/self/fd"))
