"""The exporter's own image under Docker and Podman, as docs/image.md and docs/install.md start it."""

from __future__ import annotations

import contextlib
import subprocess
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path

from tests.support.image_builder import TOOLS, built
from tests.support.live import Scrape
from tests.support.patience import patience, wait_for
from tests.support.program import free_port

from . import docker
from .podman import Podman

Engine = Callable[..., str]
"""Its client: what a command prints."""

NAME = "ai-energy-exporter:check"
PROGRAM = "/opt/venv/bin/ai-energy-exporter"
STATE = "/var/lib/ai-energy-exporter"
STOP_SECONDS = 5.0
PROGRAMS = {
    "image docker": (*TOOLS, "/usr/bin/docker", "dockerd", "containerd", "runc"),
    "image podman": (*TOOLS, "podman", "conmon", "runc"),
}
_CONFINED = ("--network", "host", "--read-only", "--cap-drop", "ALL", "--security-opt", "no-new-privileges")
_OF_NODE = ("--path.sysfs=/host/sys", "--path.cgroupfs=/host/sys/fs/cgroup", f"--state.file={STATE}/state")


@contextlib.contextmanager
def _docker(folder: Path) -> Iterator[tuple[Engine, str]]:
    with docker.engine(folder, "--bridge=none") as engine:
        yield engine.__call__, f"Docker {engine('version', '--format', '{{.Server.Version}}')}"


@contextlib.contextmanager
def _podman(folder: Path) -> Iterator[tuple[Engine, str]]:
    podman = Podman(folder, "cgroupfs")
    podman.stored_in(folder)
    try:
        yield podman, podman.version()
    finally:
        podman.remove_all()


_ENGINES: dict[str, Callable[[Path], AbstractContextManager[tuple[Engine, str]]]] = {
    "image docker": _docker,
    "image podman": _podman,
}


def check(names: list[str]) -> list[str]:
    """Build the image and run it under the engines named; returns what is wrong."""
    problems = []
    with built() as image:
        for name in names:
            with tempfile.TemporaryDirectory(prefix="aee-", ignore_cleanup_errors=True) as folder:
                try:
                    with _ENGINES[name](Path(folder)) as (engine, version):
                        print(f"\n{name}: {version}", flush=True)
                        loaded = engine("load", "--input", str(image.archive)).split()[-1]
                        engine("tag", loaded, NAME)
                        for trial in (_demo, _node):
                            trial(engine, Path(folder))
                            print(f"  {trial.__doc__}")
                except (AssertionError, OSError, subprocess.SubprocessError) as error:
                    problems.append(f"{name}: {error!r}")
    return problems


def _demo(engine: Engine, _: Path) -> None:
    """The demonstration: healthy, doctor answers, SIGTERM ends it at once, counters go on from a volume."""
    assert "ai-energy-exporter" in engine("run", "--rm", "--network", "host", NAME, "--version")
    port = free_port()
    flags = (*_CONFINED, "--env", f"AI_ENERGY_WEB_LISTEN_ADDRESS=127.0.0.1:{port}", "--volume", f"kept:{STATE}")
    engine("run", "--detach", "--name", "demo", *flags, NAME, "--demo", f"--state.file={STATE}/state")
    before = wait_for(lambda: _joules(port), "joules of the node")
    assert engine("exec", "demo", PROGRAM, "healthcheck") == "healthy"
    assert "Sources" in engine("exec", "demo", PROGRAM, "doctor", "--demo")
    _stopped(engine, "demo")
    engine("start", "demo")
    kept = _joules(port)
    assert kept >= before, f"{kept} J after a restart, {before} J before"
    _stopped(engine, "demo")


def _node(engine: Engine, folder: Path) -> None:
    """This machine, as uid 0 without capabilities: every process is read, the exporter's own container is a row."""
    port = free_port()
    flags = (*_CONFINED, "--env", f"AI_ENERGY_WEB_LISTEN_ADDRESS=127.0.0.1:{port}", "--volume", f"node:{STATE}")
    (folder / "regions").mkdir()
    mounts = (f"/sys:/host/sys:ro{_slave('/sys')}", f"{folder}/regions:/run/ai-energy-exporter")
    node = (
        "--user",
        "0:0",
        "--pid",
        "host",
        "--cgroupns",
        "host",
        *(word for mount in mounts for word in ("--volume", mount)),
    )
    engine("run", "--detach", "--name", "node", *node, *flags, NAME, *_OF_NODE)
    wait_for(lambda: _rows(port), "a row of a container")
    found = _scrape(port)
    for source in ("cgroups", "regions"):
        assert [up for _, up in found.find("energy_source_up", source=source)] == [1.0], f"{source} is not read"
    _stopped(engine, "node")


def _slave(mount: str) -> str:
    """The option for mounts that come later; Docker refuses it where there is no systemd that shares the mount."""
    with open("/proc/self/mountinfo", encoding="utf-8") as mounts:
        fields = [line.split(" - ")[0].split() for line in mounts]
    return ",rslave" if any(each[4] == mount and "shared:" in " ".join(each[6:]) for each in fields) else ""


def _joules(port: int) -> float:
    return _scrape(port).total("energy_node_joules_total")


def _rows(port: int) -> bool:
    return any(labels["runtime"] != "host" for labels, _ in _scrape(port).find("energy_container_joules_total"))


def _stopped(engine: Engine, name: str) -> None:
    began = time.monotonic()
    engine("stop", "--time", "60", name)
    assert time.monotonic() - began < patience(STOP_SECONDS), f"{name} does not end on SIGTERM"
    status = engine("inspect", "--format", "{{.State.ExitCode}}", name)
    assert status == "0", f"{name} ended with {status}: {engine('logs', name)[-400:]}"


def _scrape(port: int) -> Scrape:
    found: list[Scrape] = []

    def answered() -> bool:
        with contextlib.suppress(OSError), urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics") as answer:
            found.append(Scrape.parse(answer.read().decode()))
        return bool(found)

    wait_for(answered, "a scrape")
    return found[-1]
