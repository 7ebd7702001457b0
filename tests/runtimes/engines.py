"""Containers of runc and of containerd, without an image registry."""

from __future__ import annotations

import contextlib
import json
import subprocess
from collections.abc import Iterator
from pathlib import Path

from .trial import MARK, SPIN, Row, Started, attempt, background, output, root_file_system, version


def bundle(folder: Path) -> Path:
    """An OCI bundle of the workload in a folder, for runc."""
    root_file_system(folder)
    output("runc", "spec", "--bundle", str(folder))
    config = folder / "config.json"
    spec = json.loads(config.read_text(encoding="utf-8"))
    spec["process"] |= {"terminal": False, "args": ["/bin/sh", "-c", SPIN, MARK]}
    spec["linux"].pop("seccomp", None)
    spec["linux"]["resources"].pop("pids", None)
    spec["process"].pop("rlimits", None)
    config.write_text(json.dumps(spec), encoding="utf-8")
    return folder


@contextlib.contextmanager
def runc(folder: Path) -> Iterator[Started]:
    """``runc run NAME``: its cgroup is /NAME, or on cgroup2 beside the group that it was started in."""
    bundle(folder)
    with contextlib.ExitStack() as stack:
        for name, driver in (("aee-one", ()), ("aee-two", ())):
            stack.enter_context(_runc_container(folder, name, *driver))
        yield Started(version("runc", "--version"), (Row("aee-one", "runc"), Row("aee-two", "runc")))


@contextlib.contextmanager
def runc_systemd(folder: Path) -> Iterator[Started]:
    """The same beside ``runc --systemd-cgroup run NAME``, whose cgroup is /system.slice/runc-NAME.scope."""
    bundle(folder)
    with _runc_container(folder, "aee-plain"), _runc_container(folder, "aee-scope", "--systemd-cgroup"):
        yield Started(version("runc", "--version"), (Row("aee-plain", "runc"), Row("aee-scope", "runc")))


@contextlib.contextmanager
def _runc_container(folder: Path, name: str, *options: str) -> Iterator[None]:
    try:
        with background(["runc", *options, "run", "--bundle", str(folder), name], folder / f"{name}.log"):
            try:
                yield
            finally:
                attempt("runc", "kill", name, "KILL")
    finally:
        attempt("runc", "delete", "--force", name)


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
            [*client, "run", "--detach", "--rootfs", str(root), MARK, "/bin/sh", "-c", SPIN, MARK], check=True
        )
        try:
            yield Started(version("containerd", "--version"), (Row(MARK, "containerd"),))
        finally:
            attempt(*client, "task", "kill", "--signal", "KILL", MARK)
            attempt(*client, "task", "delete", MARK)
            attempt(*client, "container", "delete", MARK)
