"""What tokens, grams and money, and regions add to an exporter: two of them on one node, with and without.

The node is the crowd, two model servers that answer with pages of vLLM whose counters rise, and a program in regions.
Both exporters see all of it and are never scraped. CPU time is the whole process's: ticks, reading the pages of the
servers and receiving the reports of regions. Activities are not among them: they cannot be turned off, and are one call
for a card that is held, `exporter.accounting.activity.classify`, which is timed by itself.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import tempfile
import time
import timeit
from collections.abc import Iterator
from pathlib import Path

from exporter.accounting.activity import CardFacts, classify
from tests.support.live import Meter
from tests.support.model_server import model_server
from tests.support.program import free_port
from tests.support.repository import REPOSITORY

from . import groups
from .against import HERE, Row, cpu_ratios, in_turns, milliseconds, ticker
from .crowd import crowd
from .impact import TARIFF
from .native import CannotMeasure
from .service import Service
from .table import show
from .ticks import WARM_UP

GOAL = 1.15
PROCESSES, GROUPS = 200, 50
SERVERS = 2
TICKS = 60
ROUNDS = 12
SHOWN = (
    "energy_model_tokens_total",
    "energy_container_carbon_grams_total",
    "energy_region_joules_total",
)
PAGE = REPOSITORY / "tests/sources/inference/pages/vllm-0.32.0.prom"

_SERVER = """\
import re, socket, sys, threading, time
page = open(sys.argv[-1], encoding="utf-8").read()
listener = socket.create_server(("127.0.0.1", int(sys.argv[-2])))
listener.settimeout(0.1)
began = time.monotonic()
def risen(line):
    return line[1] + str(float(line[2]) + round(40 * (time.monotonic() - began)))
def serve():
    while True:
        until = time.process_time() + 0.002
        while time.process_time() < until:
            pass
        try:
            connection, _ = listener.accept()
        except TimeoutError:
            continue
        with connection:
            connection.recv(65536)
            text = re.sub(r"^(vllm:(?:prompt|generation)_tokens_total{.*} )(.*)$", risen, page, flags=re.M).encode()
            connection.sendall(b"HTTP/1.0 200 OK\\r\\nContent-Length: %d\\r\\n\\r\\n" % len(text) + text)
threading.Thread(target=serve, daemon=True).start()
print("ready", flush=True)
sys.stdin.readline()
"""

_REGIONS = """\
import time
from exporter.regions import region
forward, backward = region("forward"), region("backward")
print("ready", flush=True)
while True:
    for each, seconds in ((forward, 0.001), (backward, 0.002)):
        with each:
            until = time.process_time() + seconds
            while time.process_time() < until:
                pass
    time.sleep(0.1)
"""


def main() -> None:
    """Print the table, after about six minutes. Raises `CannotMeasure`."""
    with crowd(PROCESSES, GROUPS) as on, tempfile.TemporaryDirectory() as name, contextlib.ExitStack() as stack:
        folder = Path(name)
        (folder / "tariff.yaml").write_text(TARIFF, encoding="utf-8")
        stack.callback(Meter(folder / "sys").stop)
        for number in range(SERVERS):
            stack.enter_context(_server(folder, on.cgroupfs / groups.container(number), number))
        node = (f"--path.cgroupfs={on.cgroupfs}", f"--path.sysfs={folder / 'sys'}", "--attribution.cpu-scope=machine")
        sockets = [folder / f"{number}.sock" for number in range(2)]
        for number, socket in enumerate(sockets):
            stack.enter_context(_in_regions(socket, on.cgroupfs / groups.container(SERVERS + number)))
        flags = [
            (
                (*node, "--no-source.inference", "--no-source.regions"),
                (*node, f"--impact.file={folder / 'tariff.yaml'}", f"--regions.socket={socket}"),
            )
            for socket in sockets
        ]
        rows = (_ticks(flags[0]), _processes(flags[1]))
    show(
        f"{PROCESSES} processes in {GROUPS} cgroups, {SERVERS} model servers, programs in regions",
        ("CPU, ms", "without: median (quartiles)", "with tokens, impact, regions", "ratio", "reach"),
        [
            Row(name, milliseconds(without), milliseconds(everything), GOAL).cells()
            for name, (without, everything) in zip(("a tick", "the whole process, a second"), rows, strict=True)
        ],
    )
    card = CardFacts(throttled=0.0, utilization=0.9, sm=0.8, tensor=0.5, dram=0.6)
    classifying = min(timeit.repeat(lambda: classify(card, 1.0), number=1000)) * 1e3
    print(f"The activity of a card that is held takes {classifying:.2f} µs a tick.")


Flags = tuple[str, ...]


def _ticks(flags: tuple[Flags, Flags]) -> list[list[float]]:
    with contextlib.ExitStack() as stack:
        found = in_turns([stack.enter_context(ticker(HERE, each)) for each in flags], WARM_UP + TICKS)
    return [each[WARM_UP:] for each in found]


def _processes(flags: tuple[Flags, Flags]) -> list[list[float]]:
    with contextlib.ExitStack() as stack:
        exporters = [stack.enter_context(Service.started(*each)) for each in flags]
        time.sleep(WARM_UP)
        used = cpu_ratios([exporter.pid for exporter in exporters], ROUNDS)
        scrape = exporters[1].scrape().decode()
    if missing := [each for each in SHOWN if f"\n{each}{{" not in scrape]:
        raise CannotMeasure(f"the exporter with all of them publishes no {', '.join(missing)}")
    return used


@contextlib.contextmanager
def _in_regions(reports: Path, group: Path) -> Iterator[None]:
    """A program that is in regions for 3 ms of each 100, and reports them at a socket."""
    environment = os.environ | {"PYTHONPATH": str(REPOSITORY), "AI_ENERGY_REGIONS_SOCKET": str(reports)}
    command = [sys.executable, "-c", _REGIONS]
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as process:
        try:
            _ready_in(group, process)
            yield
        finally:
            process.kill()


@contextlib.contextmanager
def _server(folder: Path, group: Path, number: int) -> Iterator[None]:
    """A model server with a page of vLLM's for its model."""
    home = folder / str(number)
    home.mkdir()
    model, page = f"acme/chat-{number}", home / "page"
    page.write_text(PAGE.read_text(encoding="utf-8").replace("/srv/models/acme/chat-7b/", model), encoding="utf-8")
    with model_server(home, _SERVER, model, "--port", str(free_port()), str(page)) as process:
        _ready_in(group, process)
        yield


def _ready_in(group: Path, process: subprocess.Popen[str]) -> None:
    (group / "cgroup.procs").write_text(str(process.pid), encoding="ascii")
    assert process.stdout
    assert process.stdout.readline() == "ready\n"
