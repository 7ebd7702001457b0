"""A real systemd of our own: PID 1 of a container that consists of this machine's files and the units of a test."""

from __future__ import annotations

import contextlib
import os
import shlex
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from tests.support import installed
from tests.support.live import cgroup_mount
from tests.support.patience import patience, wait_for
from tests.support.prerequisites import lacking
from tests.support.repository import REPOSITORY

FOLDER = REPOSITORY / "deploy" / "systemd"
UNIT = "ai-energy-exporter.service"
OUT = "/opt/out"

_TARGETS = ("sysinit.target", "basic.target", "network.target", "multi-user.target", "shutdown.target")

_BEFORE = (
    "mount -t proc proc /proc",
    "mount --bind /proc/sys /proc/sys",  # PID 1 raises limits of the kernel where it may
    "mount -o remount,ro,bind /proc/sys",
    "mount -t tmpfs tmpfs /run",
    "mount -t tmpfs tmpfs /var/lib",
    "mount -t tmpfs -o mode=1777 tmpfs /tmp",
    "mount -t tmpfs -o mode=1777 tmpfs /var/tmp",
    "mount -t cgroup2 cgroup2 /sys/fs/cgroup",
    f"mount --bind {OUT}/etc/passwd /etc/passwd",
    f"mount --bind {OUT}/etc/group /etc/group",
    f"exec env container=test SYSTEMD_UNIT_PATH={OUT}/units /lib/systemd/systemd --system --unit=multi-user.target "
    "--show-status=no --log-target=console --log-level=notice",
)


class Machine:
    """A booted systemd; ``folder`` is its `OUT`."""

    def __init__(self, folder: Path, group: Path) -> None:
        self.folder = folder
        enter = f'echo 0 > {shlex.quote(str(group / "cgroup.procs"))}; exec "$@"'
        script = installed.script(*_BEFORE, binds={folder: OUT})
        namespaces = installed.unshare("--pid", "--fork", "--kill-child", "--cgroup", "--uts", "--ipc")
        with open(folder / "console", "wb") as console:
            self._process = subprocess.Popen(
                ["sh", "-c", enter, "sh", *namespaces, script],
                env=installed.environment(),
                stdin=subprocess.DEVNULL,
                stdout=console,
                stderr=subprocess.STDOUT,
            )

    def inside(self, *command: str) -> subprocess.CompletedProcess[str]:
        """Run a command in it, as root."""
        children = Path(f"/proc/{self._process.pid}/task/{self._process.pid}/children").read_text().split()
        return subprocess.run(
            ["nsenter", "--target", children[0], "--mount", "--pid", *command],
            env=installed.environment(),
            capture_output=True,
            text=True,
            timeout=patience(60),
            check=False,
        )

    def show(self, *properties: str) -> dict[str, str]:
        """Properties of the unit as systemd has them; nothing while it cannot be asked yet."""
        with contextlib.suppress(IndexError):
            answer = self.inside("systemctl", "show", UNIT, *[f"--property={name}" for name in properties])
            return dict(line.split("=", 1) for line in answer.stdout.splitlines() if "=" in line)
        return {}

    def wait_until(self, state: str) -> None:
        """Wait for the unit's state."""
        try:
            wait_for(lambda: self.show("ActiveState").get("ActiveState") == state, f"state {state}")
        except AssertionError as error:
            raise AssertionError(f"{error}: {self.show('ActiveState')} {self.console()}") from None

    def console(self) -> str:
        """What systemd and the unit said."""
        return (self.folder / "console").read_text() + (self.folder / "log").read_text()

    def end(self) -> None:
        """End it and everything in it."""
        self._process.kill()
        self._process.wait()


class Boot:
    """Boots machines with the unit, drop-ins of the repository and settings."""

    def __init__(self, folder: Path, group: Path) -> None:
        self._folder = folder
        self._group = group
        self.machines: list[Machine] = []

    def __call__(self, *drop_ins: str, settings: Mapping[str, str], then: str = "") -> Machine:
        units = self._folder / "units"
        (units / f"{UNIT}.d").mkdir(parents=True)
        (units / UNIT).write_bytes((FOLDER / UNIT).read_bytes())
        for name in drop_ins:
            (units / f"{UNIT}.d" / name).write_bytes((FOLDER / name).read_bytes())
        lines = [f'Environment="{key}={value}"' for key, value in settings.items()]
        own = ["[Service]", *lines, f"StandardError=append:{OUT}/log", then]
        (units / f"{UNIT}.d" / "zz-test.conf").write_text("\n".join(own) + "\n")
        for name in _TARGETS:
            (units / name).write_text(f"[Unit]\nDefaultDependencies=no\nWants={UNIT * (name == 'multi-user.target')}\n")
        (self._folder / "log").touch()
        (self._folder / "etc").mkdir()
        for name in ("passwd", "group"):
            (self._folder / "etc" / name).write_bytes(Path("/etc", name).read_bytes())
        users = ["systemd-sysusers", f"--root={self._folder}", str(FOLDER / "ai-energy-exporter.sysusers")]
        subprocess.run(users, check=True, capture_output=True)
        self.machines.append(Machine(self._folder, self._group))
        return self.machines[-1]


@pytest.fixture
def scratch() -> Iterator[Path]:
    """A folder that every user may enter, as pytest's own is not."""
    with tempfile.TemporaryDirectory(prefix="aee-") as name:
        os.chmod(name, 0o755)
        yield Path(name)


@pytest.fixture
def boot(scratch: Path) -> Iterator[Boot]:
    """Boot a systemd in a cgroup and namespaces of its own; skipped where those cannot be made."""
    if reason := lacking("/lib/systemd/systemd", "systemctl", "systemd-sysusers", "/bin/kill"):
        pytest.skip(reason)
    mount = cgroup_mount("v2")
    if reason := installed.impossible():
        pytest.skip(reason)
    if mount is None:
        pytest.skip("no cgroup v2 is mounted here")
    try:
        group = Path(tempfile.mkdtemp(prefix="aee-systemd-", dir=mount))
    except OSError as error:
        pytest.skip(f"cgroups cannot be made here: {error.strerror}")
    boot = Boot(scratch, group)
    try:
        yield boot
    finally:
        for machine in boot.machines:
            machine.end()
        for directory, _, _ in os.walk(group, topdown=False):
            wait_for(lambda at=directory: _removed(at), f"the end of {directory}")  # type: ignore[misc]


def _removed(directory: str) -> bool:
    with contextlib.suppress(OSError):
        os.rmdir(directory)
    return not os.path.exists(directory)
