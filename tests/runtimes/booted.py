"""A systemd of our own as PID 1 of a PID namespace, with cgroup2 only: what distributions of today look like.

It consists of this machine's files, and starts only D-Bus, logind and machined, and a user's systemd on demand.
"""

from __future__ import annotations

import contextlib
import os
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from tests.support.patience import patience, wait_for
from tests.support.repository import REPOSITORY

USER = 2000
"""A user that only this systemd knows."""

USER_HOME = "/var/lib/aee"
USER_RUNTIME = f"/run/user/{USER}"

_TARGETS = ("sysinit", "basic", "network", "sockets", "machines", "paths", "timers", "slices", "shutdown")
_UNITS = (
    "dbus.socket",
    "dbus.service",
    "systemd-logind.service",
    "dbus-org.freedesktop.login1.service",
    "systemd-machined.service",
    "dbus-org.freedesktop.machine1.service",
    "systemd-nspawn@.service",
    "user@.service",
    "user-runtime-dir@.service",
    "machine.slice",
    "user.slice",
)
_LINES = {
    "passwd": f"aee:x:{USER}:{USER}::{USER_HOME}:/bin/sh\n",
    "group": f"aee:x:{USER}:\n",
    "subuid": "aee:100000:65536\n",
    "subgid": "aee:100000:65536\n",
}


def _script(folder: Path) -> str:
    files = [f"mount --bind {shlex.quote(str(folder / name))} /etc/{name}" for name in _LINES]
    return "\n".join(
        (
            "set -eu",
            "mount -t proc proc /proc",
            "mount --bind /proc/sys /proc/sys",  # PID 1 raises limits of the kernel where it may
            "mount -o remount,ro,bind /proc/sys",
            "mount -t tmpfs -o mode=755 tmpfs /run",
            "mount -t tmpfs -o mode=755 tmpfs /var/lib",
            "mount -t tmpfs -o mode=1777 tmpfs /var/tmp",
            "mount -t cgroup2 cgroup2 /sys/fs/cgroup",
            f"mkdir -p /var/lib/machines {USER_HOME}",
            f"chown {USER}:{USER} {USER_HOME}",
            *files,
            f"exec env -i PATH={shlex.quote(os.environ['PATH'])} container=check "
            f"SYSTEMD_UNIT_PATH={shlex.quote(str(folder / 'units'))} /lib/systemd/systemd --system "
            "--unit=multi-user.target --show-status=no --log-target=console --log-level=notice",
        )
    )


class Booted:
    """A booted systemd, by the process that waits for it."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self._process = process

    def inside(self, *command: str) -> list[str]:
        """The command that runs a command in it, outside of its units."""
        children = Path(f"/proc/{self._process.pid}/task/{self._process.pid}/children").read_text().split()
        namespaces = ("--mount", "--pid", "--uts", "--ipc", "--cgroup")
        return ["nsenter", "--target", children[0], *namespaces, "env", "container=", *command]

    def is_up(self) -> bool:
        """Whether its services run."""
        with contextlib.suppress(IndexError):
            asked = self.inside("systemctl", "is-active", "dbus.service", "systemd-machined.service")
            return subprocess.run(asked, capture_output=True, check=False).returncode == 0
        return False

    def run(self, module: str, arguments: Sequence[str]) -> int:
        """Run a Python module as a service of it, with our output; returns its exit status."""
        unit = ["systemd-run", "--quiet", "--pipe", "--wait", "--collect", "--unit=aee-check"]
        unit += [f"--working-directory={REPOSITORY}", f"--setenv=PATH={os.environ['PATH']}"]
        return subprocess.run(self.inside(*unit, sys.executable, "-m", module, *arguments), check=False).returncode


@contextlib.contextmanager
def booted() -> Iterator[Booted]:
    """Boot one in a cgroup and namespaces of its own. Raises OSError."""
    mount = next(path for path in map(Path, ("/sys/fs/cgroup/unified", "/sys/fs/cgroup")) if path.is_dir())
    with tempfile.TemporaryDirectory(prefix="aee-") as name:
        folder = Path(name)
        folder.chmod(0o755)
        _write(folder)
        group = Path(tempfile.mkdtemp(prefix="aee-booted-", dir=mount))
        group.chmod(0o755)  # a user's systemd reads it
        enter = f'echo 0 > {shlex.quote(str(group / "cgroup.procs"))}; exec "$@"'
        namespaces = ["unshare", "--mount", "--pid", "--fork", "--kill-child", "--cgroup", "--uts", "--ipc"]
        with (folder / "console").open("wb") as console:
            process = subprocess.Popen(
                ["sh", "-c", enter, "sh", *namespaces, "sh", "-c", _script(folder)],
                stdin=subprocess.DEVNULL, stdout=console, stderr=console,
            )  # fmt: skip
        try:
            machine = Booted(process)
            try:
                wait_for(machine.is_up, "systemd's services")
            except AssertionError as error:
                raise OSError(f"{error}: {(folder / 'console').read_text()[-400:]}") from None
            # A user namespace may mount a /proc of its own only if all of this one is visible.
            subprocess.run(machine.inside("umount", "/proc/sys"), check=True)
            yield machine
        finally:
            process.kill()
            process.wait(patience(10.0))
            for directory, _, _ in os.walk(group, topdown=False):
                wait_for(lambda at=directory: _removed(at), f"the end of {directory}")  # type: ignore[misc]


def _write(folder: Path) -> None:
    units = folder / "units"
    units.mkdir()
    for name in _TARGETS:
        (units / f"{name}.target").write_text("[Unit]\nDefaultDependencies=no\n")
    wanted = "dbus.socket systemd-logind.service systemd-machined.service"
    (units / "multi-user.target").write_text(f"[Unit]\nDefaultDependencies=no\nWants={wanted}\n")
    for name in _UNITS:
        text = Path("/lib/systemd/system", name).read_text()
        # PAM would raise limits, and would tell the variable to programs.
        text = text.replace("PAMName=systemd-user", "Environment=XDG_RUNTIME_DIR=/run/user/%i")
        (units / name).write_text(text)
    for name, line in _LINES.items():
        (folder / name).write_text(Path("/etc", name).read_text() + line)


def _removed(directory: str) -> bool:
    with contextlib.suppress(OSError):
        os.rmdir(directory)
    return not os.path.exists(directory)
