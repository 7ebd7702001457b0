"""A real process with the command line of a model server."""

from __future__ import annotations

import contextlib
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from tests.support.patience import patience


@contextlib.contextmanager
def model_server(folder: Path, script: str, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    """``vllm serve ARGUMENTS``, run in ``folder``: in truth Python with ``script``, which ends after a line on stdin.

    The script finds the path of Python in ``REAL_PYTHON``, because ``sys.executable`` is not one.
    """
    (folder / "serve").write_text(script)
    process = subprocess.Popen(
        ["vllm", "serve", *arguments],
        executable=sys.executable,
        cwd=folder,
        env={"REAL_PYTHON": sys.executable, "PYTHONHOME": sys.base_prefix},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    yield process
    process.communicate("end\n", timeout=patience())
