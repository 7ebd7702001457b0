"""The exporter installed in /opt, as docs/install.md has it, in a mount namespace that ends with its first process.

Interpreter, packages and code are those of this run, wherever they lie: also below a home that nobody else may enter,
and that ``ProtectHome=`` hides.
"""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
import sysconfig
from pathlib import Path

from tests.support.repository import REPOSITORY

HOME = "/opt/ai-energy-exporter"
PROGRAM = f"{HOME}/bin/ai-energy-exporter"

PYTHON = f"{HOME}/bin/python"

_WRAPPERS = {
    PYTHON: f"""#!/bin/sh
export PYTHONPATH={HOME}/code:{HOME}/site PYTHONDONTWRITEBYTECODE=1
export LD_LIBRARY_PATH={HOME}/python/lib${{LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}}
exec {HOME}/python/bin/{Path(sys.executable).resolve().name} -W error "$@"
""",
    PROGRAM: f"""#!/bin/sh
exec {PYTHON} -m exporter "$@"
""",
}


def script(*then: str, binds: dict[Path, str] | None = None) -> str:
    """A shell script for `unshare`: installs, binds what is asked for to places below /opt, then runs the lines."""
    folders = {
        Path(sys.base_prefix): f"{HOME}/python",
        Path(sysconfig.get_path("purelib")): f"{HOME}/site",
        REPOSITORY / "exporter": f"{HOME}/code/exporter",
    }
    lines = ["set -eu", "mount -t tmpfs -o mode=755 tmpfs /opt", f"mkdir -p {HOME}/bin"]
    for source, target in {**folders, **(binds or {})}.items():
        lines += [f"mkdir -p {target}", f"mount --bind {shlex.quote(str(source))} {target}"]
    for path, text in _WRAPPERS.items():
        lines += [f"printf %s {shlex.quote(text)} > {path}", f"chmod 755 {path}"]
    return "\n".join([*lines, *then])


def impossible() -> str:
    """Why it cannot be installed here: that takes a mount namespace, which only root may make. "" where it can."""
    done = subprocess.run(["unshare", "--mount", "true"], capture_output=True, text=True, check=False)
    return f"no mount namespace here (it takes root): {done.stderr.strip()}" if done.returncode else ""


def unshare(*flags: str) -> list[str]:
    """The command before the script. It becomes what the script executes last, and ends with it.

    It stays in front of a script with a PID namespace of its own, and all in that ends with it. Elsewhere it could
    not promise that: the kernel forgets whose end is to end a process when that process becomes another user
    (prctl(2), PR_SET_PDEATHSIG).
    """
    return ["unshare", "--mount", *flags, "sh", "-c"]


def environment() -> dict[str, str]:
    """Variables for it: those of a service, none of ours."""
    return {"PATH": os.defpath + ":/usr/sbin:/sbin", "LC_ALL": "C.UTF-8"}
