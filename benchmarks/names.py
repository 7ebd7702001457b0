"""``python -m benchmarks.names [MINUTES]``: what the names of pods cost the whole exporter in memory, under churn.

Two exporters run, one of which asks an API server over TLS: 110 pods, then 1,000 new ones a minute.
"""

from __future__ import annotations

import itertools
import ssl
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path

import trustme

from tests.kubernetes.fake_api import FakeApiServer, make_pod, uid

from .table import show, verdict

PODS = 110
LIVING = 30
PODS_EACH_MINUTE = 1000
GOAL_MIB = 70.0

_PORTS = {"without names": 19401, "with names": 19402}


def main(minutes: float = 8.0) -> None:
    """Run both, print the table."""
    authority = trustme.CA()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    with tempfile.TemporaryDirectory() as folder, FakeApiServer(context) as server:
        authority.cert_pem.write_to_path(str(Path(folder, "ca.crt")))
        Path(folder, "token").write_text("token")
        for number in range(PODS):
            server.add(make_pod(number + 1))
        asks = ["--kubernetes.names=api", f"--kubernetes.url={server.url}", f"--kubernetes.credentials={folder}"]
        exporters = [
            _start(_PORTS["without names"], ["--kubernetes.names=off"]),
            _start(_PORTS["with names"], [*asks, "--kubernetes.node-name=node-1"]),
        ]
        try:
            rows = _measure(server, exporters, minutes)
        finally:
            for exporter in exporters:
                exporter.terminate()
                exporter.wait(10)
    show(
        f"Resident MiB of the exporter: {PODS} pods, then {PODS_EACH_MINUTE:,} new ones a minute",
        ("minute", "pods seen", *_PORTS),
        rows,
    )
    most = max(float(row[-1]) for row in rows)
    print(f"goal: {GOAL_MIB:g} MiB at most on a node of {PODS} pods: {verdict(most <= GOAL_MIB)}")


def _measure(server: FakeApiServer, exporters: list[subprocess.Popen[bytes]], minutes: float) -> list[tuple[str, ...]]:
    time.sleep(5)
    began = time.monotonic()
    rows: list[tuple[str, ...]] = []
    for number in itertools.count(PODS + 1):
        passed = (time.monotonic() - began) / 60
        if passed >= len(rows):
            for port in _PORTS.values():
                with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=30) as answer:
                    answer.read()
            rows.append(
                (str(len(rows)), f"{number - 1:,}", *(f"{_resident(exporter.pid):.1f}" for exporter in exporters))
            )
        if passed >= minutes:
            return rows
        server.add(make_pod(number))
        if number > PODS + LIVING:
            server.delete(uid(number - LIVING))
        server.forget_events(1000)
        time.sleep(max(0.0, (number - PODS) * 60 / PODS_EACH_MINUTE - (time.monotonic() - began)))
    raise AssertionError("numbers do not end")


def _start(port: int, flags: list[str]) -> subprocess.Popen[bytes]:
    own = [f"--web.listen-address=127.0.0.1:{port}", "--docker.socket=off", "--podman.socket=off", "--log.level=error"]
    return subprocess.Popen([sys.executable, "-m", "exporter", *own, *flags])


def _resident(pid: int) -> float:
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text(encoding="ascii").splitlines():
        if line.startswith("Rss:"):
            return int(line.split()[1]) / 1024
    raise ValueError("no Rss")


if __name__ == "__main__":
    main(*map(float, sys.argv[1:]))
