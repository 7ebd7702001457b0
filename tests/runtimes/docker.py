"""A dockerd of our own, with each cgroup driver: containers, restarts, removals, a build, a runtime in a container."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import NamedTuple

from exporter.config.settings import Settings

from .engines import bundle
from .trial import LABELS, LONGER, MARK, ONCE, SPIN, Row, Started, attempt, background, image_archive, output

IMAGE = "acme/spin:1"
TEAM = ("org.acme.team", "nlp")
COMPOSE = (("com.docker.compose.project", "ml"), TEAM)


class Docker(NamedTuple):
    """The client of an engine: a function of its words, which returns what it prints."""

    socket: Path

    def words(self, *command: str) -> list[str]:
        """The whole command line."""
        # Debian's own client: a newer one in the PATH builds with a plugin only.
        return ["/usr/bin/docker", "--host", f"unix://{self.socket}", *command]

    def __call__(self, *command: str) -> str:
        return output(*self.words(*command), DOCKER_BUILDKIT="1")

    def load_image(self, folder: Path, name: str, *changes: str) -> None:
        """Make an image of a shell, with ``changes`` as of a Dockerfile."""
        self("import", *(word for change in changes for word in ("--change", change)), str(image_archive(folder)), name)


@contextlib.contextmanager
def engine(folder: Path, *options: str) -> Iterator[Docker]:
    """A dockerd with all its files in ``folder``."""
    docker = Docker(folder / "docker.sock")
    folders = {"--data-root": "data", "--exec-root": "exec", "--pidfile": "pid"}
    daemon = ["dockerd", "--host", f"unix://{docker.socket}", "--iptables=false", "--ip6tables=false",
              "--storage-driver", "vfs", *options,
              *(f"{option}={folder}/{name}" for option, name in folders.items())]  # fmt: skip
    with background(daemon, folder / "log", 6.0):
        try:
            yield docker
        finally:
            if containers := docker("ps", "--all", "--quiet").split():
                docker("rm", "--force", *containers)
    for namespace in folder.glob("exec/netns/*"):  # that of containers in the host's network stays mounted
        attempt("umount", str(namespace))


def starter(driver: str, parent: str, *, nested: bool) -> Callable[[Path], AbstractContextManager[Started]]:
    """Docker with a cgroup driver; one container is below the cgroup ``parent``, one runs runc in itself."""

    @contextlib.contextmanager
    def start(folder: Path) -> Iterator[Started]:
        with engine(folder, "--bridge=none", "--exec-opt", f"native.cgroupdriver={driver}") as docker:
            yield _started(folder, docker, driver, parent, nested=nested)

    return start


def _started(folder: Path, docker: Docker, driver: str, parent: str, *, nested: bool) -> Started:
    def run(name: str, *options: str, command: tuple[str, ...] = ()) -> None:
        docker("run", "--detach", "--network", "none", "--name", name, *options, IMAGE, *command)

    def change() -> None:
        docker("restart", "--time", "0", "restarted")
        docker("rm", "--force", "removed")
        docker("rm", "--force", "recreated")
        run("recreated")
        docker("rename", "old-name", "new-name")
        docker("run", "--rm", "--network", "none", "--name", "short", IMAGE, "sh", "-c", LONGER)
        (folder / "Dockerfile").write_text(f"FROM {IMAGE}\nRUN {LONGER}\n")
        docker("build", "--network", "none", "--tag", "built", str(folder))

    docker.load_image(folder, IMAGE, f"CMD {json.dumps(['sh', '-c', SPIN, MARK])}", f"LABEL {TEAM[0]}={TEAM[1]}")
    run("trainer", "--label", f"{COMPOSE[0][0]}={COMPOSE[0][1]}")
    run("below-parent", "--cgroup-parent", parent)
    run("checked", "--health-cmd", ONCE, "--health-interval", "1s")
    for name in ("restarted", "removed", "recreated", "old-name"):
        run(name)
    if driver == "cgroupfs":
        run("below-default", "--cgroup-parent", "/default")
    if nested:
        run("nested", *_nesting(folder), command=("sh", "-c", _NESTED))
    names = ("below-parent", "checked", "restarted", "removed", "recreated", "new-name", "short")
    extra = (*(["below-default"] * (driver == "cgroupfs")), *(["nested"] * nested))
    rows = [Row(name, "docker", image=IMAGE, labels=(TEAM,)) for name in (*names, *extra)]
    return Started(
        f"Docker {docker('version', '--format', '{{.Server.Version}}')}, {driver} driver",
        (*rows, Row("trainer", "docker", image=IMAGE, labels=COMPOSE), Row("buildkit", "docker")),
        change,
        Settings(docker_socket=str(docker.socket), podman_socket="off", kubernetes_labels=LABELS),
    )


_NESTED = "mount -o remount,bind,rw /sys/fs/cgroup && exec /usr/sbin/runc --root /tmp/runc run --bundle /bundle inner"
"""The group of the inner container is made below that of the outer one, which the cgroup namespace shows as /."""


def _nesting(folder: Path) -> tuple[str, ...]:
    """Options of a container that may run runc: fewer than --privileged, which takes all capabilities there are."""
    inner = bundle(folder / "inner")
    config = inner / "config.json"
    spec = json.loads(config.read_text(encoding="utf-8"))
    spec["linux"]["maskedPaths"] = spec["linux"]["readonlyPaths"] = []
    spec["linux"]["namespaces"] = [{"type": "pid"}, {"type": "mount"}]
    spec["mounts"] = [mount for mount in spec["mounts"] if mount["destination"] == "/proc"]
    spec["process"]["capabilities"] = {}
    del spec["hostname"]
    config.write_text(json.dumps(spec), encoding="utf-8")
    mounts = [f"{inner}:/bundle", "/usr:/usr:ro", "/usr/lib:/lib:ro", "/usr/lib64:/lib64:ro"]
    unconfined = ("seccomp=unconfined", "apparmor=unconfined", "systempaths=unconfined")
    return (
        *("--cap-add", "SYS_ADMIN", "--cgroupns", "private"),
        *(word for mount in mounts for word in ("--volume", mount)),
        *(word for option in unconfined for word in ("--security-opt", option)),
    )
