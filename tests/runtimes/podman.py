"""Podman as root with each cgroup manager, and as a user: containers, pods, units, health checks, a build."""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path

from exporter.config.settings import Settings

from .booted import USER, USER_HOME, USER_RUNTIME
from .trial import LABELS, LONGER, MARK, ONCE, SPIN, Row, Started, attempt, background, image_archive, output

IMAGE = "localhost/acme/spin:1"
TEAM = ("org.acme.team", "nlp")

_CONFIG = """\
[containers]
default_ulimits = ["nofile=1000:1000", "nproc=1000:1000"]
default_sysctls = []
pids_limit = 0
netns = "none"
"""
"""Without the capability to raise limits, and on cgroup2 without controllers."""


class Podman:
    """A Podman with storage of its own; ``prefix`` starts it as another user."""

    def __init__(self, folder: Path, manager: str, *prefix: str, **environ: str) -> None:
        (folder / "containers.conf").write_text(_CONFIG, encoding="utf-8")
        self.environ = {"CONTAINERS_CONF": str(folder / "containers.conf"), **environ}
        # crun refuses hybrid hosts, and on cgroup2 it wants to lock more memory than it may here.
        self.command = [*prefix, "podman", "--runtime", "runc", "--cgroup-manager", manager, "--storage-driver", "vfs"]
        self._folder = folder

    def stored_in(self, folder: Path) -> None:
        """Keep everything in a folder instead of the user's own."""
        self.command += ["--root", str(folder / "root"), "--runroot", str(folder / "run")]

    def __call__(self, *command: str) -> str:
        """What a command prints."""
        return output(*self.command, *command, **self.environ)

    def import_image(self, archive: Path) -> None:
        """Make the image of the workload."""
        lines = (f"CMD {json.dumps(['sh', '-c', SPIN, MARK])}", f"LABEL {TEAM[0]}={TEAM[1]}")
        self("import", *(word for line in lines for word in ("--change", line)), str(archive), IMAGE)

    def run(self, name: str, *options: str) -> None:
        """Start a container."""
        self("run", "--detach", "--name", name, *options, IMAGE)

    def remove_all(self) -> None:
        """Remove all containers and pods."""
        attempt(*self.command, "rm", "--all", "--force", "--time", "0", **self.environ)
        attempt(*self.command, "pod", "rm", "--all", "--force", **self.environ)

    def version(self) -> str:
        """Version, manager and monitor."""
        return f"Podman {self('version', '--format', '{{.Client.Version}}')}, " + self(
            "info", "--format", "{{.Host.CgroupManager}} manager, {{.Host.CgroupsVersion}}, {{.Host.Conmon.Version}}"
        )


def row(name: str, pod: str = "") -> Row:
    """A row of a container of the workload that the API describes."""
    return Row(name, "podman", pod, IMAGE, (TEAM,))


def starter(manager: str) -> Callable[[Path], AbstractContextManager[Started]]:
    """Podman as root, with its API."""

    @contextlib.contextmanager
    def start(folder: Path) -> Iterator[Started]:
        podman = Podman(folder, manager)
        podman.stored_in(folder)
        socket = folder / "podman.sock"
        booted = manager == "systemd"

        def change() -> None:
            podman("restart", "--time", "0", "restarted")
            podman("rm", "--force", "--time", "0", "removed")
            podman("exec", "in-pod", "sh", "-c", ONCE)
            if not booted:
                podman("healthcheck", "run", "checked")  # systemd's timers do that elsewhere
            (folder / "Containerfile").write_text(f"FROM {IMAGE}\nRUN {LONGER}\n")
            runtime = ("--runtime", "/usr/sbin/runc", "--ulimit", "nofile=1000:1000")
            podman("build", *runtime, "--network", "none", "--tag", "built", str(folder))

        podman.import_image(image_archive(folder))
        with background([*podman.command, "system", "service", "--time", "0", f"unix://{socket}"],
                        folder / "log", 3.0, **podman.environ):  # fmt: skip
            try:
                rows = [row("alone"), row("restarted"), row("removed"), row("below-parent"), row("checked")]
                for name in ("alone", "restarted", "removed"):
                    podman.run(name)
                podman.run("below-parent", "--cgroup-parent", "ml-nlp.slice" if booted else "/teams/nlp")
                podman.run("checked", "--health-cmd", ONCE, "--health-interval", "1s" if booted else "disable")
                podman.run("without-conmon", "--cgroups", "no-conmon")
                podman("pod", "create", "--name", "team-pod", "--infra=false")
                podman.run("in-pod", "--pod", "team-pod")
                rows += [row("without-conmon"), row("in-pod", "team-pod")]
                if booted:
                    podman("pod", "create", "--name", "whole-pod")  # with a slice and an infra container
                    podman.run("in-whole-pod", "--pod", "whole-pod")
                    rows.append(row("in-whole-pod", "whole-pod"))
                    unit = ["systemd-run", "--quiet", "--collect", "--property=Delegate=yes", "--unit=aee-quadlet"]
                    unit += [f"--setenv={name}={value}" for name, value in podman.environ.items()]
                    output(*unit, *podman.command, "run", "--name", "in-unit", "--cgroups", "split", IMAGE)
                    rows.append(row("in-unit"))
                    time.sleep(3.0)
                settings = Settings(docker_socket="off", podman_socket=str(socket), kubernetes_labels=LABELS)
                yield Started(podman.version(), (*rows, Row("buildah", "podman")), change, settings)
            finally:
                podman.remove_all()
                attempt("systemctl", "stop", "aee-quadlet")

    return start


@contextlib.contextmanager
def rootless(folder: Path) -> Iterator[Started]:
    """Podman of a user whose systemd runs, without an API: names come from conmon."""
    folder.chmod(0o755)
    archive = image_archive(folder)
    become = ("setpriv", f"--reuid={USER}", f"--regid={USER}", "--clear-groups", "env", f"--chdir={USER_HOME}")
    bus = f"unix:path={USER_RUNTIME}/bus"
    environ = {"XDG_RUNTIME_DIR": USER_RUNTIME, "HOME": USER_HOME, "DBUS_SESSION_BUS_ADDRESS": bus}
    podman = Podman(folder, "systemd", *become, **environ)
    output("systemctl", "start", f"user@{USER}")

    def change() -> None:
        podman("restart", "--time", "0", "restarted")
        podman("rm", "--force", "--time", "0", "removed")

    try:
        podman.import_image(archive)
        names = ("mine", "restarted", "removed")
        for name in names:
            podman.run(name)
        podman.run("checked", "--health-cmd", ONCE, "--health-interval", "1s")
        unit = [*become, "systemd-run", "--user", "--quiet", "--collect", "--property=Delegate=yes",
                "--unit=aee-quadlet", f"--setenv=CONTAINERS_CONF={podman.environ['CONTAINERS_CONF']}"]  # fmt: skip
        command = podman.command[len(become) :]
        output(*unit, *command, "run", "--name", "in-unit", "--cgroups", "split", IMAGE, **podman.environ)
        time.sleep(3.0)
        rows = [Row(name, "podman") for name in (*names, "checked", "in-unit")]
        yield Started(f"{podman.version()}, rootless", tuple(rows), change, Settings(podman_socket="off"))
    finally:
        podman.remove_all()
        attempt("systemctl", "stop", f"user@{USER}")
