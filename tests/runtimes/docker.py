"""A dockerd of our own, with each cgroup driver: containers, restarts, removals, a build, a runtime in a container."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path

from exporter.config.settings import Settings

from .engines import bundle
from .trial import LABELS, LONGER, MARK, ONCE, SPIN, Row, Started, attempt, background, image_archive, output

IMAGE = "acme/spin:1"
TEAM = ("org.acme.team", "nlp")
COMPOSE = (("com.docker.compose.project", "ml"), TEAM)


def starter(driver: str, parent: str, *, nested: bool) -> Callable[[Path], AbstractContextManager[Started]]:
    """Docker with a cgroup driver; one container is below the cgroup ``parent``, one runs runc in itself."""

    @contextlib.contextmanager
    def start(folder: Path) -> Iterator[Started]:
        socket = folder / "docker.sock"
        environ = {"DOCKER_HOST": f"unix://{socket}", "DOCKER_BUILDKIT": "1"}
        folders = {"--data-root": "data", "--exec-root": "exec", "--pidfile": "pid"}
        daemon = ["dockerd", "--host", f"unix://{socket}", "--iptables=false", "--ip6tables=false", "--bridge=none",
                  "--storage-driver", "vfs", "--exec-opt", f"native.cgroupdriver={driver}",
                  *(f"{option}={folder}/{name}" for option, name in folders.items())]  # fmt: skip
        archive = image_archive(folder)

        def docker(*command: str) -> str:
            # Debian's own client: a newer one in the PATH builds with a plugin only.
            return output("/usr/bin/docker", *command, **environ)

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

        with background(daemon, folder / "log", 6.0):
            change_of_image = (f"CMD {json.dumps(['sh', '-c', SPIN, MARK])}", f"LABEL {TEAM[0]}={TEAM[1]}")
            docker("import", *(word for line in change_of_image for word in ("--change", line)), str(archive), IMAGE)
            try:
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
                settings = Settings(docker_socket=str(socket), podman_socket="off", kubernetes_labels=LABELS)
                yield Started(
                    f"Docker {docker('version', '--format', '{{.Server.Version}}')}, {driver} driver",
                    (*rows, Row("trainer", "docker", image=IMAGE, labels=COMPOSE), Row("buildkit", "docker")),
                    change,
                    settings,
                )
            finally:
                containers = docker("ps", "--all", "--quiet").split()
                attempt("/usr/bin/docker", "rm", "--force", *containers, **environ)

    return start


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
