"""What it costs to read a BMC: CPU time of the thread that does it, as a share of a core at the shortest interval."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from exporter.network.kept_connection import Trust
from exporter.sources.bmc.options import PERIOD_SECONDS
from exporter.sources.bmc.poller import Poller
from exporter.sources.bmc.redfish import RedfishReader
from exporter.sources.bmc.session import RedfishSession
from tests.sources.bmc import boards
from tests.support.mock_bmc import PASSWORD, USER, MockBmc
from tests.support.repository import REPOSITORY

from .table import show, verdict

READS = 120
GOAL_PERCENT = 0.1
BOARDS = {"Dell": boards.dell, "HPE": boards.hpe, "Supermicro": boards.supermicro, "HGX, 8 GPUs": boards.hgx}


def main() -> None:
    """Read the BMCs of four makers over TLS; each is served by a process of its own."""
    rows, worst = [], 0.0
    with tempfile.TemporaryDirectory() as folder:
        login = Path(folder) / "login"
        login.write_text(f"{USER}:{PASSWORD}\n", encoding="ascii")
        login.chmod(0o600)
        for name in BOARDS:
            server = subprocess.Popen(
                [sys.executable, "-m", "benchmarks.bmc", name, str(os.getpid())],
                cwd=REPOSITORY,
                stdout=subprocess.PIPE,
                text=True,
            )
            assert server.stdout is not None
            url, fingerprint = server.stdout.readline().split()
            first, each, meters = _measure(url, fingerprint, str(login))
            server.kill()
            server.wait()
            share = 100 * each / PERIOD_SECONDS
            worst = max(worst, share)
            rows.append([name, str(meters), f"{1000 * first:.1f} ms", f"{1000 * each:.2f} ms", f"{share:.4f} %"])
    heads = (
        "BMC",
        "meters",
        "CPU time of the first read",
        "of each later one",
        f"of a core, every {PERIOD_SECONDS:g} s",
    )
    show("Redfish over TLS", heads, rows)
    print(f"goal: at most {GOAL_PERCENT:g} % of a core: {verdict(worst <= GOAL_PERCENT)}")


def _measure(url: str, fingerprint: str, login: str) -> tuple[float, float, int]:
    """CPU seconds of the first read and of each later one, and the number of meters."""
    reader = RedfishReader(RedfishSession(url, Trust(fingerprint=fingerprint), login), time.monotonic, PERIOD_SECONDS)
    poller = Poller(reader, time.monotonic, PERIOD_SECONDS)
    began = _used()
    poller.poll()
    first = _used() - began
    meters = len(poller._meters)
    began = _used()
    for _ in range(READS):
        poller.poll()
    each = (_used() - began) / READS
    reader.close()
    return first, each, meters


def _used() -> float:
    """CPU seconds of this thread."""
    usage = resource.getrusage(resource.RUSAGE_THREAD)
    return usage.ru_utime + usage.ru_stime


def _serve(name: str, parent: int) -> None:
    with MockBmc(BOARDS[name]()) as bmc:
        print(bmc.url, bmc.fingerprint, flush=True)
        while os.getppid() == parent:
            time.sleep(0.5)


if __name__ == "__main__":
    _serve(sys.argv[1], int(sys.argv[2]))
