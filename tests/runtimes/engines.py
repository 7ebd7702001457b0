"""Containers of runc and of containerd, without an image registry."""

from __future__ import annotations

import contextlib
import json
import subprocess
from collections.abc import Iterator
from pathlib import Path

from .trial import SPIN, Started, background, root_file_system, version

NAME = "aee-check"


@contextlib.contextmanager
def runc(folder: Path) -> Iterator[Started]:
    """``runc run NAME``: its cgroup is /NAME."""
    root_file_system(folder)
    subprocess.run(["runc", "spec", "--bundle", str(folder)], check=True)
    config = folder / "config.json"
    spec = json.loads(config.read_text(encoding="utf-8"))
    spec["process"] |= {"terminal": False, "args": ["/bin/sh", "-c", SPIN, NAME]}
    spec["linux"].pop("seccomp", None)
    spec["process"].pop("rlimits", None)
    config.write_text(json.dumps(spec), encoding="utf-8")
    try:
        with background(["runc", "run", "--bundle", str(folder), NAME], folder / "log"):
            try:
                yield Started(version("runc", "--version"), NAME, ((NAME, "runc"),))
            finally:
                subprocess.run(["runc", "kill", NAME, "KILL"], check=False, capture_output=True)
    finally:
        subprocess.run(["runc", "delete", "--force", NAME], check=False, capture_output=True)


@contextlib.contextmanager
def ctr(folder: Path) -> Iterator[Started]:
    """``ctr run --rootfs DIR NAME``: its cgroup is /default/NAME."""
    root, socket = root_file_system(folder), folder / "socket"
    (folder / "config.toml").write_text(
        f'version = 2\nroot = "{folder}/root"\nstate = "{folder}/state"\n'
        f'disabled_plugins = ["io.containerd.grpc.v1.cri"]\n[grpc]\n  address = "{socket}"\n',
        encoding="utf-8",
    )
    client = ["ctr", "--address", str(socket)]
    with background(["containerd", "--config", str(folder / "config.toml")], folder / "log", 4.0):
        subprocess.run(
            [*client, "run", "--detach", "--rootfs", str(root), NAME, "/bin/sh", "-c", SPIN, NAME], check=True
        )
        try:
            yield Started(version("containerd", "--version"), NAME, ((NAME, "containerd"),))
        finally:
            subprocess.run([*client, "task", "kill", "--signal", "KILL", NAME], check=False)
            subprocess.run([*client, "task", "delete", NAME], check=False, capture_output=True)
            subprocess.run([*client, "container", "delete", NAME], check=False)
