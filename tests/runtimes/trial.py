"""What the trials of runtimes share: what each expects, background programs, a root file system, a workload."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import tarfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import NamedTuple

from exporter.config.settings import Settings
from tests.support.patience import patience

MARK = "aee-check"
"""A word in the command line of each workload."""

SPIN = "while :; do i=0; while [ $i -lt 3000 ]; do i=$((i+1)); done; sleep 0.1; done"
"""A shell that works for a tenth of a CPU or more, and starts short processes."""

ONCE = "i=0; while [ $i -lt 400000 ]; do i=$((i+1)); done"
"""Work of a second or so, as of a health check."""

LONGER = "; ".join([ONCE] * 3)
"""The same for a container that ends, and for a step of a build."""

LABELS = ("com.docker.compose.project", "org.acme.team")


class Row(NamedTuple):
    """A row of the exporter that is expected, with joules; ``labels`` are those of `LABELS` that it has."""

    container: str
    runtime: str
    pod: str = ""
    image: str = ""
    labels: tuple[tuple[str, str], ...] = ()


class Started(NamedTuple):
    """A runtime with its workloads: the rows expected after ``change``, which happens while the exporter runs."""

    version: str
    rows: tuple[Row, ...]
    change: Callable[[], object] = lambda: None
    settings: Settings = Settings()


class Trial(NamedTuple):
    """One runtime: the programs it needs, and a context in which its workloads run.

    ``booted``: below a systemd of its own, on cgroup2, as distributions of today are; see `booted`.
    """

    name: str
    programs: tuple[str, ...]
    start: Callable[[Path], AbstractContextManager[Started]]
    booted: bool = False


def output(*command: str, **environ: str) -> str:
    """What a command prints. Raises CalledProcessError."""
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=os.environ | environ)
    if done.returncode:
        raise OSError(f"{' '.join(command)[:200]}: {(done.stderr or done.stdout).strip()[-400:]}")
    return done.stdout.strip()


def attempt(*command: str, **environ: str) -> None:
    """Run a command that may fail: to clean up."""
    subprocess.run(command, check=False, capture_output=True, env=os.environ | environ)


def version(*command: str) -> str:
    """First line that a program prints about its version."""
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return (done.stdout or done.stderr).partition("\n")[0]


@contextlib.contextmanager
def background(command: Sequence[str], log: Path, settle_seconds: float = 2.0, **environ: str) -> Iterator[int]:
    """A program that runs as long as the context; its output is in ``log``."""
    with log.open("wb") as written:
        process = subprocess.Popen(command, stdout=written, stderr=written, env=os.environ | environ)
    try:
        time.sleep(settle_seconds)
        if process.poll() is not None:
            raise OSError(f"{command[0]} ended: {log.read_text(errors='replace')[-400:]}")
        yield process.pid
    finally:
        process.terminate()
        try:
            process.wait(patience(10.0))
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def root_file_system(folder: Path) -> Path:
    """A root with a static shell and nothing else."""
    root = folder / "rootfs"
    (root / "bin").mkdir(parents=True)
    for name in ("proc", "sys", "dev", "tmp", "run", "usr", "lib", "lib64", "etc"):
        (root / name).mkdir()
    (root / "etc/os-release").write_text("ID=check\n")
    busybox = shutil.which("busybox")
    assert busybox is not None
    shutil.copy(busybox, root / "bin/sh")
    for name in ("sleep", "mount"):
        (root / "bin" / name).symlink_to("sh")
    return root


def image_archive(folder: Path) -> Path:
    """The same as an archive that engines import as an image."""
    archive = folder / "rootfs.tar"
    with tarfile.open(archive, "w") as tar:
        tar.add(root_file_system(folder), ".")
    return archive
