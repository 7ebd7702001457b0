"""A /proc with processes written by tests: pid, parent, start time, command line, cgroup."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from exporter.host import Host
from exporter.records import Process, ProcessKey

CONTAINER_A = "/kubepods.slice/cri-containerd-" + "a" * 64 + ".scope"


@dataclass
class Clock:
    """Boot-time seconds that the test advances."""

    now: float = 1000.0

    def __call__(self) -> float:
        return self.now


@dataclass
class WrittenProc:
    """A /proc below ``root``."""

    root: Path
    clock: Clock

    @property
    def host(self) -> Host:
        """A host with this /proc and clock."""
        return Host(procfs=str(self.root), clock=self.clock)

    def add(
        self,
        pid: int,
        words: Sequence[str] | bytes,
        *,
        parent: int = 1,
        start: int | None = None,
        comm: str = "",
        cgroup: str = CONTAINER_A,
        environ: Mapping[str, str] | None = None,
    ) -> Process:
        """Write or replace one process; returns it as a source would."""
        folder = self.root / str(pid)
        folder.mkdir(exist_ok=True)
        raw = words if isinstance(words, bytes) else b"".join(word.encode() + b"\0" for word in words)
        (folder / "cmdline").write_bytes(raw)
        name = comm or raw.split(b"\0")[0].rpartition(b"/")[2].decode(errors="replace")[:15]
        ticks = pid * 10 if start is None else start
        tail = " ".join(["S", str(parent), *["0"] * 17, str(ticks), *["0"] * 30])
        (folder / "stat").write_bytes(f"{pid} ({name}) {tail}\n".encode())
        (folder / "cgroup").write_text(f"0::{cgroup}\n")
        if environ is not None:
            (folder / "environ").write_bytes(b"".join(f"{k}={v}\0".encode() for k, v in environ.items()))
        return Process(ProcessKey(pid, ticks), name)


@pytest.fixture
def clock() -> Clock:
    """A clock that only the test advances."""
    return Clock()


@pytest.fixture
def proc(tmp_path: Path, clock: Clock) -> WrittenProc:
    """An empty /proc."""
    root = tmp_path / "proc"
    root.mkdir()
    return WrittenProc(root, clock)
