"""``make runtimes-check``: start real runtimes, one after the other, and compare the rows of what runs in them.

As root, outside the suite: the programs are Debian's, none is installed here, and a trial without its program is left
out. While the exporter runs, containers are restarted and removed; their rows stay. It prints what the kernel says of
each process (``/proc/PID/cgroup``) with the version of the runtime: the fixtures of tests/workloads and
tests/sources/usage. Two more trials run the exporter's own image (`own_image`).
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from exporter.records import Workload
from exporter.sampling.sampler import Sampler
from exporter.service.assembly import make_host, make_sampler
from exporter.snapshot import Snapshot
from tests.runtimes import docker, engines, lxc, nspawn, own_image, podman, slurm
from tests.runtimes.booted import booted
from tests.runtimes.trial import LABELS, MARK, Row, Started, Trial

TICKS = 6
_INSIDE = "--inside"

_DOCKER = ("/usr/bin/docker", "dockerd", "containerd", "runc", "busybox")
_PODMAN = ("podman", "conmon", "runc", "busybox")
_LXC = ("lxc-start", "lxc-attach", "busybox")

TRIALS = (
    Trial("runc", ("runc", "busybox"), engines.runc),
    Trial("ctr", ("containerd", "ctr", "busybox"), engines.ctr),
    Trial("docker cgroupfs", _DOCKER, docker.starter("cgroupfs", "/teams/nlp", nested=False)),
    Trial("podman cgroupfs", _PODMAN, podman.starter("cgroupfs")),
    Trial("lxc", _LXC, lxc.start),
    *(
        Trial(f"slurm {plugin}", ("slurmctld", "slurmd", "srun", "munged", "busybox"), slurm.starter(plugin))
        for plugin in slurm.PLUGINS
    ),
    Trial("booted runc", ("runc", "busybox"), engines.runc_systemd, booted=True),
    Trial("booted docker systemd", _DOCKER, docker.starter("systemd", "ml-nlp.slice", nested=True), booted=True),
    Trial("booted docker cgroupfs", _DOCKER, docker.starter("cgroupfs", "/teams/nlp", nested=True), booted=True),
    Trial("booted podman systemd", _PODMAN, podman.starter("systemd"), booted=True),
    Trial("booted podman rootless", (*_PODMAN, "newuidmap"), podman.rootless, booted=True),
    Trial("booted lxc", _LXC, lxc.start, booted=True),
    Trial("booted nspawn", ("systemd-nspawn", "machinectl", "busybox"), nspawn.start, booted=True),
)
_ENGINES = frozenset(("docker", "podman", "containerd", "runc", "crun", "unknown"))
"""Runtimes of which every row is expected; ``systemd`` and ``host`` have others."""

_NOISE_JOULES = 0.1
"""The group of a pod and its infra container have rows, too."""


def rows(started: Started) -> dict[Row, float]:
    """Joules of each row in some seconds of the exporter's own ticks, before, during and after what changes."""
    sampler = make_sampler(started.settings, make_host(started.settings))
    try:
        for _ in range(TICKS):
            _tick(sampler)
        for line in sorted(set(_cgroups())):
            print(f"  {line}")
        with ThreadPoolExecutor(1) as other:
            changed = other.submit(started.change)
            while not changed.done():
                _tick(sampler)
            changed.result()
        for _ in range(TICKS):
            snapshot = _tick(sampler)
    finally:
        sampler.close()
    found: dict[Row, float] = {}
    for row in snapshot.energy.containers:
        if isinstance(owner := row.owner, Workload):
            labels = tuple(label for label in owner.labels if label[0] in LABELS)
            name = Row(owner.container, owner.runtime, owner.pod, owner.image, labels)
            found[name] = found.get(name, 0.0) + sum(row.joules)
    return found


def _tick(sampler: Sampler) -> Snapshot:
    time.sleep(1.0)
    return sampler.tick()


def check(trial: Trial, folder: Path) -> list[str]:
    """What is wrong with the rows of a trial; prints what was seen."""
    with trial.start(folder) as started:
        print(f"\n{trial.name}: {started.version}", flush=True)
        found = rows(started)
    for row, joules in sorted(found.items()):
        if joules > 0 and (row in started.rows or trial.booted):
            labels = ", ".join(f"{name}={value}" for name, value in row.labels)
            print(f"  {joules:6.1f} J  {row.runtime:8} {row.pod or '-'} / {row.container}  {row.image} {labels}")
    missing = [f"{trial.name}: no joules for {row}" for row in started.rows if not found.get(row)]
    # Only there nobody else makes cgroups.
    strange = [row for row in found.keys() - {*started.rows} if trial.booted and row.runtime in _ENGINES]
    return missing + [f"{trial.name}: unexpected {row}" for row in strange if found[row] > _NOISE_JOULES]


def _cgroups() -> Iterator[str]:
    """The groups of each workload, with the controllers of each path."""
    for pid in filter(str.isdigit, os.listdir("/proc")):
        with contextlib.suppress(OSError):
            words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
            if MARK.encode() in words[1:] and words[0].endswith(b"sh"):
                yield _by_path(Path(f"/proc/{pid}/cgroup").read_text(encoding="utf-8"))


def _by_path(text: str) -> str:
    paths: dict[str, list[str]] = {}
    for line in text.splitlines():
        _, controllers, path = line.split(":", 2)
        if path != "/":
            paths.setdefault(path, []).append(controllers or "0")
    return "; ".join(f"{','.join(controllers)}:{path}" for path, controllers in paths.items()) or "/"


def _left_out(name: str, programs: Sequence[str]) -> bool:
    """Whether a program is not installed; then it says so."""
    if missing := [program for program in programs if shutil.which(program) is None]:
        print(f"\n{name}: left out, not installed: {', '.join(missing)}")
    return bool(missing)


def run(trials: Sequence[Trial]) -> list[str]:
    """Run trials here; returns what is wrong."""
    problems: list[str] = []
    for trial in trials:
        if _left_out(trial.name, trial.programs):
            continue
        with tempfile.TemporaryDirectory(prefix="aee-", ignore_cleanup_errors=True) as folder:
            try:
                problems += check(trial, Path(folder))
            except (OSError, subprocess.SubprocessError) as error:
                problems.append(f"{trial.name}: not started: {error}")
    return problems


def main() -> int:
    """Run the trials named on the command line, or all. Returns the exit status."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # everything that was started ends with the contexts
    words = [word for word in sys.argv[1:] if word != _INSIDE]
    wanted = [trial for trial in TRIALS if not words or any(word in trial.name for word in words)]
    inside = _INSIDE in sys.argv
    problems = run([trial for trial in wanted if inside or not trial.booted])
    images = [name for name in own_image.PROGRAMS if not inside and (not words or any(word in name for word in words))]
    if ready := [name for name in images if not _left_out(name, own_image.PROGRAMS[name])]:
        problems += own_image.check(ready)
    below = [trial.name for trial in wanted if trial.booted]
    if below and not inside:
        try:
            with booted() as machine:
                if machine.run("tests.runtimes.check", [_INSIDE, *below]):
                    problems.append("booted: see above")
        except (OSError, subprocess.SubprocessError) as error:
            problems.append(f"booted: not started: {error}")
    print("\n" + ("\n".join(problems) if problems else "all rows as expected"), flush=True)
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
