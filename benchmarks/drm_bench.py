"""What a tick of the drm source costs on written files: ``python -m benchmarks.drm_bench``."""

from __future__ import annotations

import tempfile
import time
from pathlib import Path

from exporter.sources.drm.source import DrmSource
from tests.sources.drm.test_drm import AMD, Machine

CLIENTS = range(100, 164)
OTHERS = range(1000, 1400)
TICKS = 40


def main() -> None:
    """Print milliseconds per read, with all clients at work and with all of them quiet."""
    with tempfile.TemporaryDirectory() as folder:
        machine = Machine(Path(folder) / "m")
        machine.card(0, "amdgpu", AMD)
        for pid in (*CLIENTS, *OTHERS):
            machine.process(pid)
        for pid in CLIENTS:
            machine.open(pid, 5)
            machine.amd(pid, 5, pid, gfx=1.0)
        source = DrmSource(machine.host(1024))
        source.read(machine.now)
        for name, step in (("at work", 0.01), ("quiet", 0.0)):
            spent = 0.0
            for number in range(TICKS):
                for pid in CLIENTS:
                    machine.amd(pid, 5, pid, gfx=2.0 + number * step)
                machine.now += 1.0
                began = time.perf_counter()
                source.read(machine.now)
                spent += time.perf_counter() - began
            print(f"{len(CLIENTS)} clients {name}, {len(OTHERS)} other processes: {spent / TICKS * 1000:.1f} ms")
        source.close()


if __name__ == "__main__":
    main()
