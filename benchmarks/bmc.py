"""What it costs to read a BMC: CPU time of the thread that does it, as a share of a core at the shortest interval.

And how long a tick takes to fetch what that thread has, while the BMC hangs, lies, restarts or refuses.
"""

from __future__ import annotations

import contextlib
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median

from exporter.network.kept_connection import Trust
from exporter.records import Unavailable
from exporter.sources.bmc.options import PERIOD_SECONDS, BmcOptions
from exporter.sources.bmc.poller import Poller
from exporter.sources.bmc.redfish import RedfishReader
from exporter.sources.bmc.session import RedfishSession
from exporter.sources.bmc.source import BmcSource
from tests.sources.bmc import boards
from tests.support.mock_bmc import PASSWORD, USER, MockBmc
from tests.support.repository import REPOSITORY

from .table import show, verdict

READS = 120
GOAL_PERCENT = 0.1
TICKS = 300
TICK_SECONDS = 0.01
WORK = 20_000
GOAL_MILLISECONDS = 20.0
FAULTS = ("nothing", "hangs", "lies", "restarts", "changes its certificate", "refuses logins", "never ends")
BOARDS = {"Dell": boards.dell, "HPE": boards.hpe, "Supermicro": boards.supermicro, "HGX, 8 GPUs": boards.hgx}


def main() -> None:
    """Read the BMCs of four makers over TLS; each is served by a process of its own."""
    rows, worst = [], 0.0
    with tempfile.TemporaryDirectory() as folder:
        login = Path(folder) / "login"
        login.write_text(f"{USER}:{PASSWORD}\n", encoding="ascii")
        login.chmod(0o600)
        for name in BOARDS:
            with _served(name, "nothing") as (url, fingerprint):
                first, each, meters = _measure(url, fingerprint, str(login))
            share = 100 * each / PERIOD_SECONDS
            worst = max(worst, share)
            rows.append([name, str(meters), f"{1000 * first:.1f} ms", f"{1000 * each:.2f} ms", f"{share:.4f} %"])
        ticks = [(fault, *_ticks(fault, str(login))) for fault in FAULTS]
    heads = (
        "BMC",
        "meters",
        "CPU time of the first read",
        "of each later one",
        f"of a core, every {PERIOD_SECONDS:g} s",
    )
    show("Redfish over TLS", heads, rows)
    print(f"goal: at most {GOAL_PERCENT:g} % of a core: {verdict(worst <= GOAL_PERCENT)}\n")
    rows = [[fault, *(f"{1000 * seconds:.2f} ms" for seconds in found)] for fault, *found in ticks]
    columns = ("it", "a tick's read: median", "longest", "other work of a tick: median")
    show(f"{TICKS} ticks while the BMC of an HGX is read ten times a second", columns, rows)
    slowest = 1000 * max(longest for _, _, longest, _ in ticks)
    print(f"goal: at most {GOAL_MILLISECONDS:g} ms: {verdict(slowest <= GOAL_MILLISECONDS)}")


@contextmanager
def _served(name: str, fault: str) -> Iterator[tuple[str, str]]:
    """URL and fingerprint of a BMC in a process of its own."""
    command = [sys.executable, "-m", "benchmarks.bmc", name, fault, str(os.getpid())]
    with subprocess.Popen(command, cwd=REPOSITORY, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        url, fingerprint = server.stdout.readline().split()
        try:
            yield url, fingerprint
        finally:
            server.kill()


def _ticks(fault: str, login: str) -> tuple[float, float, float]:
    """Median and most seconds of a tick's read; and of other work, which waits for the interpreter if that is busy."""
    took, worked = [], []
    with _served("HGX, 8 GPUs", fault) as (url, fingerprint):
        options = BmcOptions(url, login, fingerprint=fingerprint, period_seconds=0.1)
        source = BmcSource(options, time.monotonic)
        for _ in range(TICKS):
            began = time.perf_counter()
            with contextlib.suppress(Unavailable):
                source.read(began)
            read = time.perf_counter()
            took.append(read - began)
            sum(n * n for n in range(WORK))
            worked.append(time.perf_counter() - read)
            time.sleep(TICK_SECONDS)
        source.close()
    return median(took), max(took), median(worked)


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


def _serve(name: str, fault: str, parent: int) -> None:
    resources = BOARDS[name]()
    with MockBmc(resources) as bmc:
        bmc.refuses = fault == "refuses logins"
        environments = [path for path in resources if path.endswith(("Metrics", "/Power"))]
        print(bmc.url, bmc.fingerprint, flush=True)
        began = time.monotonic()
        while os.getppid() == parent:
            time.sleep(0.3)
            if time.monotonic() - began < 1.0:
                continue
            if fault == "hangs":
                bmc.hanging.add("*")
            elif fault == "restarts":
                bmc.status = None if bmc.status else 503
                bmc.reboot()
            elif fault == "changes its certificate":
                bmc.renew_certificate()
                bmc.status = None if bmc.status else 503
            for path in environments if fault == "lies" else ():
                bmc.resources[path] = {"PowerWatts": 1e308, "EnergyJoules": {"Reading": -1}, "_": [0] * 100_000}
            for path in environments if fault == "never ends" else ():
                bmc.endless[path] = b"1\r\n \r\n"


if __name__ == "__main__":
    _serve(sys.argv[1], sys.argv[2], int(sys.argv[3]))
