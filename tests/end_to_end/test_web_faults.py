"""The program's faults over real sockets, in plain HTTP and over TLS with a login."""

from __future__ import annotations

import resource
import socket
import ssl
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.support.patience import wait_for
from tests.support.program import Running, run
from tests.support.served import HASH, PASSWORD, WebFolder, basic, users

Start = Callable[..., Running]
DESCRIPTORS = 48


class Port:
    """Flags for the program, and what a client needs to be authorized."""

    def __init__(self, web: WebFolder, *, tls: bool) -> None:
        path = web.serve_tls(rest=users(bob=HASH)) if tls else web.write(users(bob=HASH))
        self.flags = ("--web.config.file", path)
        self.tls: ssl.SSLContext | None = web.trusting() if tls else None

    def open(self, start: Start, *flags: str) -> Running:
        running = start(*self.flags, *flags)
        running.tls = self.tls
        running.headers = {"Authorization": basic("bob", PASSWORD)}
        return running


@pytest.fixture(params=["plain", "tls"])
def port(request: pytest.FixtureRequest, tmp_path: Path) -> Port:
    """A port with plain HTTP, or TLS."""
    return Port(WebFolder(tmp_path), tls=request.param == "tls")


def test_short_of_memory_rows_and_descriptors(start: Start, port: Port, tmp_path: Path) -> None:
    """Faults 59, 60, 61 and 66 at once: logged, containers are folded, and silent clients are dropped."""
    limit = tmp_path / "cgroup/memory.max"
    limit.parent.mkdir()
    limit.write_text(f"{24 << 20}\n")
    running = port.open(start, "--demo", "--path.cgroupfs", str(limit.parent), "--container.max", "10")
    running.logged("process series dropped: memory is short")
    resource.prlimit(running.process.pid, resource.RLIMIT_NOFILE, (DESCRIPTORS, DESCRIPTORS))
    host, _, number = running.url.split("/")[2].rpartition(":")
    with ExitStack() as stack:
        for _ in range(4 * DESCRIPTORS):
            stack.enter_context(socket.create_connection((host, int(number)), 5))
        for _ in range(3):
            samples = running.samples()
            assert samples["energy_node_joules_total"] > 0
            assert samples["energy_container_joules_total"] > 0
            assert samples["energy_series_dropped_total"] > 0
        running.logged("connections for now: Too many open files")
    wait_for(lambda: len(list(Path(f"/proc/{running.process.pid}/fd").iterdir())) < DESCRIPTORS / 2)
    assert running.stop()[0] == 0


def test_nothing_to_read(start: Start, port: Port, tmp_path: Path) -> None:
    """Fault 69."""
    for name in ("proc", "sys"):
        (tmp_path / name).mkdir()
    (tmp_path / "proc/stat").touch()
    running = port.open(start, "--path.procfs", f"{tmp_path}/proc", "--path.sysfs", f"{tmp_path}/sys")
    running.wait_for("energy_samples_total", lambda count: count >= 2)
    samples = running.samples()
    assert "energy_node_joules_total" not in samples
    assert samples["energy_source_up"] < 3
    assert running.stop()[0] == 0


def test_a_port_in_use(port: Port) -> None:
    """Fault 68."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        done = run("--demo", *port.flags, "--web.listen-address", address)
    assert (done.returncode, done.stderr.count("\n")) == (1, 1)
    assert f"cannot listen on {address}: the port is in use" in done.stderr
