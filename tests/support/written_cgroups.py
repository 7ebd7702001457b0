"""A machine of plain files with cgroup trees of both versions, for what no kernel does on demand."""

from __future__ import annotations

import os
from collections import defaultdict
from pathlib import Path

from exporter.host import FdBudget, Host
from exporter.records import CpuUse, GroupKey, ProcessKey
from exporter.sources.usage.cgroups import CgroupSource


class WrittenMachine:
    """/proc and one counting tree, ``tree`` below /sys/fs/cgroup ("" is a pure cgroup2 machine). Times in seconds."""

    def __init__(self, root: Path, tree: str = "cpuacct") -> None:
        self.root = root
        self.tree = tree
        self.v1 = tree not in ("", "unified")
        self.now = 100.0
        self.used: dict[str, float] = {"/": 1.0}
        self.members: defaultdict[str, list[int]] = defaultdict(list)
        self.seconds: dict[int, float] = {}
        self.comms: dict[int, str] = {}
        self.groups: defaultdict[GroupKey, float] = defaultdict(float)
        self.processes: defaultdict[int, float] = defaultdict(float)
        self.shown: dict[int, str] = {}
        self.started: list[GroupKey] = []
        self.ended: list[GroupKey] = []
        (root / "proc").mkdir(parents=True)
        self.source = CgroupSource(self.host)

    @property
    def host(self) -> Host:
        """A host with these files and this clock."""
        return Host(str(self.root / "proc"), str(self.root / "sys"), clock=lambda: self.now, fds=FdBudget(100))

    def group(self, path: str, *pids: int) -> None:
        """A cgroup of the counting tree, with the processes in its member list."""
        for depth in range(1, path.count("/") + 1):
            self.used.setdefault("/".join(path.split("/")[: depth + 1]), 1.0)
        self.members[path] += pids

    def process(self, pid: int, cgroup: str = "", comm: str = "worker") -> ProcessKey:
        """A process with the lines of its /proc/PID/cgroup."""
        self.seconds.setdefault(pid, 1.0)
        self.comms[pid] = comm
        (self.root / f"proc/{pid}").mkdir(exist_ok=True)
        (self.root / f"proc/{pid}/cgroup").write_text(cgroup + "\n")
        return ProcessKey(pid, 100)

    def run(self, path: str, pid: int, seconds: float) -> None:
        """A process uses CPU time that counts in a group."""
        self.used[path] += seconds
        self.seconds[pid] += seconds

    def tick(self, seconds: float = 1.0) -> CpuUse:
        """Write all files and read the source once."""
        self._write()
        self.now += seconds
        use = self.source.read(self.now).cpu
        assert use is not None
        total = sum(group.seconds for group in use.groups) + use.kernel_seconds
        assert abs(total - use.busy_seconds) < 1e-9
        for group, used, processes, *_ in use.groups:
            assert sum(process.seconds for process in processes) <= used + 1e-9
            self.groups[group] += used
            for process, own in processes:
                self.processes[process.key.pid] += own
                self.shown[process.key.pid] = process.comm
        self.started += use.started
        self.ended += use.ended
        return use

    def by_path(self) -> dict[str, float]:
        """CPU seconds so far by the path of the group, rounded to milliseconds."""
        return {group.path: round(seconds, 3) for group, seconds in self.groups.items() if seconds > 1e-6}

    def _write(self) -> None:
        base = self.root / "sys/fs/cgroup" / self.tree
        for path in self.used:
            below = path.rstrip("/") + "/"
            total = sum(used for other, used in self.used.items() if other == path or other.startswith(below))
            directory = base / path.strip("/")
            directory.mkdir(parents=True, exist_ok=True)
            (directory / "cgroup.procs").write_text("".join(f"{pid}\n" for pid in self.members[path]))
            if self.v1:
                (directory / "cpuacct.usage").write_text(f"{round(total * 1e9)}\n")
            else:
                micros = round(total * 1e6)
                (directory / "cpu.stat").write_text(f"usage_usec {micros}\nuser_usec {micros}\nsystem_usec 0\n")
                if path != "/":
                    (directory / "cgroup.events").write_text("populated 1\n")
        for pid, seconds in self.seconds.items():
            ticks = round(seconds * os.sysconf("SC_CLK_TCK"))
            tail = ["S", "1", "1", "1", "0", "-1", "0", *["0"] * 4, str(ticks), *["0"] * 7, "100", "0", "0"]
            (self.root / f"proc/{pid}/stat").write_text(f"{pid} ({self.comms[pid]}) {' '.join(tail)}\n")
