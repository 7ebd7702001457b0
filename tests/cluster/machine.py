"""The machine of the node: namespaces of its own, in which the check runs, and which end with it.

It has its own network (loopback, and a pair of interfaces for each pod), mounts, processes and host name, so that
nothing of the cluster is seen outside, and all of it is gone when the first process has ended. ``/var/lib``,
``/var/log`` and ``/run`` are folders of the check. The kernel, its cgroups and the CPUs are those of this machine.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from tests.support.patience import patience

CGROUPS = Path("/sys/fs/cgroup")
NODE = "node-1"
ADDRESS = "192.168.77.1"
SERVICES = "10.96.0.0/24"
API_SERVICE = "10.96.0.1"
INSIDE = "--inside"

_SYSCTLS = {"vm/overcommit_memory": 1, "vm/panic_on_oom": 0, "kernel/panic": 10, "kernel/panic_on_oops": 1}
"""What a kubelet writes, for the whole machine: here it finds files that say so already."""

_LIMITS = {"kernel/keys/root_maxkeys": 1_000_000, "kernel/keys/root_maxbytes": 25_000_000}


def impossible() -> str:
    """Why it cannot be run here, "" where it can."""
    if os.geteuid() != 0:
        return "it takes root"
    if (CGROUPS / "cgroup.controllers").exists():
        return ""
    if not (CGROUPS / "cpuacct").is_dir():
        return "no cgroups at /sys/fs/cgroup"
    if any(CGROUPS.glob("*/kubepods")) or any(CGROUPS.glob("kubepods*")):
        return "there are pods on this machine, or groups that a check left: rmdir /sys/fs/cgroup/*/kubepods"
    return ""


def enter(module: str, arguments: Sequence[str]) -> int:
    """Run a module in new namespaces; returns its exit status. Its groups are removed."""
    # bash, as the first process, waits for every orphan; with a second command it does not become the first one.
    inside = [sys.executable, "-m", module, INSIDE, *arguments]
    command = ["unshare", "--mount", "--net", "--pid", "--uts", "--ipc", "--fork", "--kill-child", "--mount-proc"]
    try:
        return subprocess.run([*command, "bash", "-c", '"$@"; exit $?', "bash", *inside], check=False).returncode
    finally:
        remove_groups()


def remove_groups() -> None:
    """Remove the empty cgroups of pods."""
    for top in (*CGROUPS.glob("*/kubepods"), *CGROUPS.glob("kubepods")):
        for folder, _, _ in os.walk(top, topdown=False):
            with contextlib.suppress(OSError):
                Path(folder).rmdir()


def prepare(scratch: Path) -> None:
    """Give the namespaces, as the first that happens in them, what a node has. ``scratch`` is on a disk."""
    run = _run
    run("hostname", NODE)
    run("mount", "--make-rshared", "/")  # of these namespaces only: they were made private
    for target in ("/var/lib", "/var/log"):
        folder = scratch / target.strip("/").replace("/", "-")
        folder.mkdir()
        run("mount", "--bind", str(folder), target)
    run("mount", "-t", "tmpfs", "-o", "mode=755", "tmpfs", "/run")
    for name, value in (*_SYSCTLS.items(), *_LIMITS.items()):
        path = scratch / name.replace("/", "-")
        path.write_text(f"{value}\n")
        run("mount", "--bind", str(path), f"/proc/sys/{name}")
    run("ip", "link", "set", "lo", "up")
    for address in (ADDRESS, API_SERVICE):
        run("ip", "address", "add", f"{address}/32", "dev", "lo")
    Path("/proc/sys/net/ipv4/ip_forward").write_text("1\n")


def lose_run() -> None:
    """Empty ``/run``, and unmount the volumes of pods, as a machine that starts does."""
    lines = Path("/proc/self/mountinfo").read_text().splitlines()
    for line in reversed(lines):
        where = line.split()[4]
        if where.startswith(("/run/", "/var/lib/kubelet/pods/")):
            subprocess.run(["umount", "--lazy", where], check=False, capture_output=True)
    _run("umount", "--lazy", "/run")
    _run("mount", "-t", "tmpfs", "-o", "mode=755", "tmpfs", "/run")


def cover_classes(scratch: Path) -> Path:
    """Make ``/sys/class`` a folder to which meters can be added. Returns the root of such a sysfs, to write into."""
    folder = scratch / "sys/class"
    folder.mkdir(parents=True)
    for name in os.listdir("/sys/class"):
        with contextlib.suppress(OSError):
            shutil.copytree(Path("/sys/class", name), folder / name, symlinks=True)
    _run("mount", "--bind", str(folder), "/sys/class")
    return folder.parent


@contextlib.contextmanager
def program(command: Sequence[str], log: Path, **environ: str) -> Iterator[subprocess.Popen[bytes]]:
    """A program that runs as long as the context, with its output in ``log``."""
    with log.open("ab") as written:
        process = subprocess.Popen(command, stdout=written, stderr=written, env={**os.environ, **environ})
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.wait(patience())
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _run(*command: str) -> None:
    subprocess.run(command, check=True)


def unmount(scratch: Path) -> None:
    """Undo mounts below and of a folder, innermost first, so that it can be removed."""
    lines = Path("/proc/self/mountinfo").read_text().splitlines()
    for line in reversed(lines):
        _, _, _, root, where, *_ = line.split()
        if str(scratch) in where or str(scratch) in root or where.startswith("/run/"):
            subprocess.run(["umount", "--lazy", where], check=False, capture_output=True)
