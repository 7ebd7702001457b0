"""``make runtimes-check``: start real runtimes, one after the other, and compare the rows of what runs in them.

As root, outside the suite: the programs are Debian's, none is installed here, and a trial without its program is left
out. It prints what the kernel says of each process (``/proc/PID/cgroup``) with the version of the runtime: the fixtures
of tests/workloads and tests/sources/usage.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import NamedTuple

from exporter.config.settings import Settings
from exporter.records import Workload
from exporter.service.assembly import make_host, make_sampler
from tests.runtimes import engines, slurm
from tests.runtimes.trial import Started

TICKS = 8


class Trial(NamedTuple):
    """One runtime: the programs it needs, and a context in which its workloads run."""

    name: str
    programs: tuple[str, ...]
    start: Callable[[Path], AbstractContextManager[Started]]


TRIALS = (
    Trial("runc", ("runc", "busybox"), engines.runc),
    Trial("ctr", ("containerd", "ctr", "busybox"), engines.ctr),
    *(
        Trial(f"slurm {plugin}", ("slurmctld", "slurmd", "srun", "munged", "busybox"), slurm.starter(plugin))
        for plugin in slurm.PLUGINS
    ),
)


def rows() -> dict[tuple[str, str], float]:
    """Joules of each container, by name and runtime, in some seconds of the exporter's own ticks."""
    settings = Settings()
    sampler = make_sampler(settings, make_host(settings))
    try:
        for _ in range(TICKS):
            snapshot = sampler.tick()
            time.sleep(1.0)
        found: dict[tuple[str, str], float] = {}
        for row in snapshot.energy.containers:
            if isinstance(row.owner, Workload):
                found[row.owner.container, row.owner.runtime] = sum(row.joules)
        return found
    finally:
        sampler.close()


def check(trial: Trial, folder: Path) -> list[str]:
    """What is wrong with the rows of a trial; prints what was seen."""
    with trial.start(folder) as started:
        time.sleep(2.0)
        found = rows()
        print(f"\n{trial.name}: {started.version}")
        for line in _cgroups(started.mark):
            print(f"  {line}")
    busy = {key: joules for key, joules in found.items() if joules > 0}
    print("  rows:", ", ".join(f"{name} ({runtime}) {joules:.1f} J" for (name, runtime), joules in busy.items()))
    return [f"{trial.name}: no joules for {key}" for key in started.rows if not found.get(key)]


def _cgroups(mark: str) -> Iterator[str]:
    """Lines of the first process whose command line has the mark."""
    for pid in filter(str.isdigit, os.listdir("/proc")):
        with contextlib.suppress(OSError):
            words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
            if mark.encode() in words[1:] and words[0].endswith(b"sh"):
                yield from Path(f"/proc/{pid}/cgroup").read_text(encoding="utf-8").splitlines()
                return


def main() -> int:
    """Run the trials named on the command line, or all. Returns the exit status."""
    wanted = sys.argv[1:]
    problems: list[str] = []
    for trial in TRIALS:
        if wanted and not any(trial.name.startswith(word) for word in wanted):
            continue
        missing = [program for program in trial.programs if shutil.which(program) is None]
        if missing:
            print(f"{trial.name}: left out, not installed: {', '.join(missing)}")
            continue
        with tempfile.TemporaryDirectory(prefix="aee-") as folder:
            try:
                problems += check(trial, Path(folder))
            except (OSError, subprocess.SubprocessError) as error:
                problems.append(f"{trial.name}: not started: {error}")
    print("\n" + ("\n".join(problems) if problems else "all rows as expected"))
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
