"""A node for the exporter to watch: real processes in real cgroups, and written RAPL meters."""

from __future__ import annotations

import contextlib
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from . import groups
from .native import CannotMeasure, build

BURN_MICROSECONDS = 200
"""What an active process uses of each second; a thousand of them are a fifth of one core."""


@dataclass(frozen=True, slots=True)
class Crowd:
    """``active`` are the pids that run every second; ``flags`` make the exporter take this for its node."""

    processes: int
    groups: int
    active: tuple[int, ...]
    cgroupfs: Path
    sysfs: Path

    @property
    def flags(self) -> list[str]:
        """Command line of an exporter that watches this crowd and nothing else."""
        return [f"--path.cgroupfs={self.cgroupfs}", f"--path.sysfs={self.sysfs}", "--attribution.cpu-scope=machine"]

    def reads(self) -> list[str]:
        """Files that every tick must read: usage of the root and of each group, and the meters."""
        usage = [self.cgroupfs / "cpu.stat", *sorted(self.cgroupfs.glob("*/cpu.stat"))]
        return [str(path) for path in [*usage, *sorted(self.sysfs.glob("class/powercap/*/energy_uj"))]]


@contextlib.contextmanager
def crowd(processes: int, group_count: int, stride: int = 10, *, packed: bool = False) -> Iterator[Crowd]:
    """Start a crowd and end it. Raises `CannotMeasure`.

    One process in ``stride`` is active, spread over all groups; ``packed``: all those of one group in ``stride``.
    """
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        program = build("crowd", folder)
        write_powercap(folder / "sys")
        root = stack.enter_context(groups.subtree("ai-energy-bench"))
        lines = []
        for number in range(group_count):
            group = root / groups.container(number)
            group.mkdir()
            lines.append(f"{processes // group_count} {group}")
        starter = stack.enter_context(
            subprocess.Popen(
                [program, str(stride), str(BURN_MICROSECONDS), str(int(packed))],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
        )
        assert starter.stdin
        assert starter.stdout
        stack.callback(starter.stdin.close)
        starter.stdin.write("\n".join(lines) + "\nready\n")
        starter.stdin.flush()
        active = []
        for line in starter.stdout:
            if line == "ready\n":
                break
            active.append(int(line))
        else:
            assert starter.stderr
            raise CannotMeasure(f"no {processes} processes here: {starter.stderr.read().strip()}")
        yield Crowd(processes, group_count, tuple(active), root, folder / "sys")


def write_powercap(sysfs: Path, cpus: int = 2) -> None:
    """Write a package and a DRAM zone that stand still."""
    for zone, name in (("intel-rapl:0", "package-0"), ("intel-rapl:0:0", "dram")):
        folder = sysfs / "class/powercap" / zone
        folder.mkdir(parents=True)
        (folder / "name").write_text(f"{name}\n")
        (folder / "energy_uj").write_text("1000000\n")
        (folder / "max_energy_range_uj").write_text("262143328850\n")
    folder = sysfs / "devices/system/cpu"
    folder.mkdir(parents=True)
    (folder / "online").write_text(f"0-{cpus - 1}\n")
