"""Compile the small C programs beside this file: references and loads that must not cost what Python costs."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

HERE = Path(__file__).resolve().parent


class CannotMeasure(Exception):  # noqa: N818 - it says what this machine is, not that the program erred
    """This machine lacks what a measurement needs; the message says what."""


def build(name: str, folder: Path) -> str:
    """Compile ``benchmarks/<name>.c`` with ``cc -O2`` into ``folder``; returns the program's path."""
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        raise CannotMeasure("no C compiler (cc): apt-get install gcc libc6-dev")
    program = folder / name
    command = [compiler, "-O2", "-Wall", "-Wextra", "-o", str(program), str(HERE / f"{name}.c")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise CannotMeasure(f"{' '.join(command)}: {done.stderr.strip()}")
    return str(program)
