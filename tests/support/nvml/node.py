"""A machine with scripted cards: written /proc, /sys and cgroups, and a clock that advances on request."""

from __future__ import annotations

import ctypes
import importlib.util
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from exporter.host import Host
from exporter.records import GroupKey
from tests.support.nvml.control import FakeDriver, Gpu

IDLE_WATTS = 60.0


def fresh_bindings(library: Path) -> Any:
    """A fresh pynvml module, with the scripted library in place of the one that the system would find."""
    spec = importlib.util.find_spec("pynvml")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, "pynvml", module)  # it looks for itself there while it is loaded
        spec.loader.exec_module(module)
    vars(module)["nvmlLib"] = ctypes.CDLL(str(library))
    return module


class Node:
    """A machine with scripted cards, written /proc, /sys and cgroups, and a clock that advances on request."""

    def __init__(self, root: Path, driver: FakeDriver, bindings: Any) -> None:
        self.root = root
        self.driver = driver
        self.now = 1_000.0
        self.bindings = bindings
        self.set_back = 0.0
        self.host = Host(
            str(root / "proc"), str(root / "sys"), clock=lambda: self.now, wall=lambda: self.now - self.set_back
        )
        self.write("sys/fs/cgroup/cpu.stat", "usage_usec 0\n")
        self.write("sys/devices/system/cpu/online", "0-3\n")

    def write(self, path: str, text: str) -> Path:
        file = self.root / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
        return file

    def process(self, pid: int, group: str = "", comm: str = "python", start_ticks: int = 4711) -> GroupKey:
        """Write a process and its cgroup; returns the key of the group."""
        group = group or f"/job-{pid}"
        fields = ["S", "1", *["0"] * 17, str(start_ticks), *["0"] * 10]
        self.write(f"proc/{pid}/stat", f"{pid} ({comm}) {' '.join(fields)}\n")
        self.write(f"proc/{pid}/cgroup", f"0::{group}\n")
        self.write(f"sys/fs/cgroup{group}/cpu.stat", "usage_usec 0\n")
        return GroupKey(group, (self.root / f"sys/fs/cgroup{group}").stat().st_ino)

    def end(self, pid: int) -> None:
        """Let a process exit: its /proc folder is gone."""
        for file in (self.root / f"proc/{pid}").iterdir():
            file.unlink()
        (self.root / f"proc/{pid}").rmdir()

    def step(self, loads: Mapping[Gpu, Mapping[int, int]], seconds: float = 1.0, watts: float = 0.0) -> None:
        """Let time pass: cards burn idle power and ``watts`` more, processes use percents of their SMs' time."""
        self.now += seconds
        for gpu, busy in loads.items():
            gpu.energy_joules += (IDLE_WATTS + watts) * seconds
            gpu.power_watts = IDLE_WATTS + watts
            for pid, percent in busy.items():
                gpu.sample(pid, percent, timestamp_us=round((self.host.wall() - 0.05) * 1e6) + pid % 7)

    def sleep(self, seconds: float) -> None:
        """Let time pass without samples or joules."""
        self.now += seconds
