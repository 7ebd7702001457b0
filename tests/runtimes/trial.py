"""What the trials of runtimes share: background programs, a root file system, a workload that spins."""

from __future__ import annotations

import contextlib
import shutil
import subprocess
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from tests.support.patience import patience

SPIN = "while :; do :; done"
"""A shell's endless loop."""


class Started(NamedTuple):
    """A runtime with its workloads: ``mark`` is a word of their command line, ``rows`` their names and runtimes."""

    version: str
    mark: str
    rows: tuple[tuple[str, str], ...]


def version(*command: str) -> str:
    """First line that a program prints about its version."""
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return (done.stdout or done.stderr).partition("\n")[0]


@contextlib.contextmanager
def background(command: Sequence[str], log: Path, settle_seconds: float = 2.0, **environ: str) -> Iterator[int]:
    """A program that runs as long as the context; its output is in ``log``."""
    with log.open("wb") as output:
        process = subprocess.Popen(command, stdout=output, stderr=output, env=environ or None)
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
    for name in ("proc", "sys", "dev", "tmp", "run"):
        (root / name).mkdir()
    busybox = shutil.which("busybox")
    assert busybox is not None
    shutil.copy(busybox, root / "bin/sh")
    return root
