"""Kepler beside the exporter: the same real workers, the same written RAPL package, the same run.

``make kepler-check ARGS="--kepler PROGRAM"``, or ``python -m benchmarks.kepler --kepler PROGRAM [--seconds 40]``; needs
root, a writable cgroup2 and cc. Kepler runs with its defaults. It takes the workers for the whole node as the exporter
does: its ``--host.procfs`` has links to their processes, and a ``stat`` with their CPU time and the rest as idle, so
that what else runs on this machine is charged to nobody. One process more uses 2 % of a CPU all the time, because
Kepler's counters fall to 0 in an interval in which none is used. The truth is `benchmarks.rig`'s.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import os
import re
import subprocess
import sys
import tempfile
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from statistics import median

from tests.support.program import free_port

from . import groups
from .accuracy import LOADS, ROUND_MS, SLEEPING, STORM, UNEQUAL_WATTS, Scenario, equal, warm_up
from .crowd import crowd
from .native import CannotMeasure
from .rig import CPUS, IDLE_WATTS, RANGE_MICROJOULES, WATTS_PER_CORE, Outcome, Rig, Work, rig
from .service import Service, served
from .table import show

TICKS_A_SECOND = 100
"""USER_HZ, the unit of /proc/stat, which Kepler takes as given too."""

REFRESH_SECONDS = 0.05
STALE_SECONDS = 1.0
"""Kepler answers a scrape with what it knows if that is younger than half a second."""

HOUSEKEEPING = ("system.slice/housekeeping.service", 60)
"""The cgroup and the slot of the process that uses a little CPU always."""

CROWDS = ((200, 50), (2000, 200), (10_000, 500))
SCRAPE_SECONDS = 5.0

ENDS = Scenario(
    "one container ends after a third",
    (Work(0, "duty", 0.4, ROUND_MS, share=1 / 3), Work(1, "duty", 0.4, ROUND_MS)),
)
SCRAPES = 10

_SERIES = re.compile(
    r'^kepler_container_cpu_joules_total\{.*container_id="([0-9a-f]{12})[0-9a-f]*".*\} (\S+)$', re.MULTILINE
)


def link_processes(procfs: Path, root: Path) -> None:
    """Make ``procfs`` list the processes of a cgroup and of those below it, and no others."""
    wanted: set[str] = set()
    for folder, _, _ in os.walk(root):
        with contextlib.suppress(OSError):  # the group went away
            wanted.update(Path(folder, "cgroup.procs").read_text().split())
    there = {name for name in os.listdir(procfs) if name.isdecimal()}
    for pid in wanted - there:
        (procfs / pid).symlink_to(f"/proc/{pid}")
    for pid in there - wanted:
        (procfs / pid).unlink()


def write_stat(procfs: Path, busy: float, elapsed: float) -> None:
    """Write the CPU time of a node on which CPUs were busy for so many seconds, of all since it began."""
    used = round(busy * TICKS_A_SECOND)
    idle = max(0, round(elapsed * CPUS * TICKS_A_SECOND) - used)
    new = procfs / "stat.new"
    new.write_text(f"cpu  {used} 0 0 {idle} 0 0 0 0 0 0\n")
    new.replace(procfs / "stat")


@contextlib.contextmanager
def node_of(root: Path, busy: Callable[[], float]) -> Iterator[Path]:
    """A procfs of the processes in a cgroup, kept up to date; ``busy`` is their CPU time in seconds."""
    with tempfile.TemporaryDirectory() as folder:
        procfs, over, began = Path(folder), threading.Event(), time.monotonic()
        (procfs / "cpuinfo").symlink_to("/proc/cpuinfo")

        def refresh() -> None:
            link_processes(procfs, root)
            write_stat(procfs, busy(), time.monotonic() - began)

        def keep() -> None:
            while not over.wait(REFRESH_SECONDS):
                refresh()

        refresh()
        thread = threading.Thread(target=keep)
        thread.start()
        try:
            yield procfs
        finally:
            over.set()
            thread.join()


@contextlib.contextmanager
def housekeeping(node: Rig) -> Iterator[None]:
    """A process outside all containers that uses 2 % of a CPU, and is metered as the others are."""
    group, slot = node.root / HOUSEKEEPING[0], HOUSEKEEPING[1]
    group.mkdir(parents=True)
    words = [node.worker, node.page, slot, group, "duty", 86_400, 0.02, 100, 1]
    with subprocess.Popen(list(map(str, words)), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdin
            process.stdin.write("go\n")
            process.stdin.flush()
            yield
        finally:
            process.kill()


@contextlib.contextmanager
def kepler(program: str, sysfs: Path, procfs: Path) -> Iterator[Service]:
    """Start Kepler with its defaults on these trees."""
    address = f"127.0.0.1:{free_port()}"
    command = [program, f"--host.sysfs={sysfs}", f"--host.procfs={procfs}", f"--web.listen-address={address}"]
    with served([*command, "--log.level=error"], f"http://{address}/metrics", silent=True) as service:
        yield service


def active(page: str) -> dict[str, float]:
    """Joules of each container on a page of Kepler's, by the first 12 digits of its id."""
    found: defaultdict[str, float] = defaultdict(float)
    for container, value in _SERIES.findall(page):
        found[container] += float(value)
    return found


class Beside:
    """Kepler's charges in the run that `play` makes."""

    def __init__(self, node: Rig, theirs: Service) -> None:
        self._node, self._theirs = node, theirs

    def play(self, scenario: Scenario, seconds: float, seed: int) -> tuple[Outcome, dict[int, float]]:
        """Run a scenario; the outcome of the exporter, and what Kepler charged to each container.

        It is scraped all along, because a container that has ended is on one page of its, and not on the next.
        """
        seen: dict[str, float] = {}
        over = threading.Event()

        def read() -> None:
            seen.update(active(self._theirs.scrape().decode()))

        def scrape() -> None:
            while not over.wait(SCRAPE_SECONDS):
                read()

        def settled() -> None:
            over.set()
            thread.join()
            time.sleep(STALE_SECONDS)
            read()

        base, thread = self._node.base, threading.Thread(target=scrape)
        thread.start()
        outcome = self._node.play(scenario.works, seconds, seed, settled=settled)
        return outcome, {number: seen.get(groups.container_label(base + number), 0.0) for number in outcome.truth}


def truth_row(scenario: Scenario, outcome: Outcome, theirs: dict[int, float]) -> tuple[str, ...]:
    """Charged over true joules: of all containers together, and of the one that is farthest off; the sleeper apart."""
    busy = [number for number in outcome.truth if number != scenario.sleeper]
    cells = [scenario.name, f"{outcome.load:.0%}"]
    for charged in (outcome.charged, theirs):
        ratios = [charged[number] / outcome.truth[number] for number in busy]
        total = sum(charged.values()) / sum(outcome.truth.values())
        cells += [f"{total:.3f}", f"{max(ratios, key=lambda ratio: abs(ratio - 1)):.3f}"]
    return tuple(cells)


def against_truth(program: str, seconds: float) -> None:
    """Print the joules of both beside the truth."""
    scenarios = (*map(equal, LOADS), SLEEPING, UNEQUAL_WATTS, ENDS, STORM)
    rows = []
    with contextlib.ExitStack() as stack:
        node = stack.enter_context(rig(1.0))
        stack.enter_context(housekeeping(node))
        procfs = stack.enter_context(node_of(node.root, node.busy))
        theirs = Beside(node, stack.enter_context(kepler(program, node.sysfs, procfs)))
        warm_up(node)
        for seed, scenario in enumerate(scenarios, 1):
            rows.append(truth_row(scenario, *theirs.play(scenario, seconds, seed)))
            print(*rows[-1], sep="  ", file=sys.stderr, flush=True)
    show(
        f"Charged over true active joules, {IDLE_WATTS:g} W idle, {WATTS_PER_CORE:g} W for each of {CPUS} "
        f"CPUs, {seconds:g} s each",
        ("workload", "load", "exporter: all", "farthest off", "Kepler: all", "farthest off"),
        rows,
    )


@contextlib.contextmanager
def node_exporter(program: str, sysfs: Path) -> Iterator[Service]:
    """Start node_exporter with its RAPL collector alone."""
    address = f"127.0.0.1:{free_port()}"
    command = [program, f"--path.sysfs={sysfs}", f"--web.listen-address={address}", "--collector.disable-defaults"]
    with served([*command, "--collector.rapl"], f"http://{address}/metrics", silent=True) as service:
        yield service


def increase(values: Sequence[float]) -> float:
    """What Prometheus counts of a counter: what it grew, and from 0 on whenever it fell."""
    return sum(after - before if after >= before else after for before, after in itertools.pairwise(values))


def node_joules(program: str, kepler_program: str, seconds: float) -> None:
    """Print the package's joules of three exporters, as Prometheus counts them, over the true ones."""
    with contextlib.ExitStack() as stack:
        node = stack.enter_context(rig(1.0))
        procfs = stack.enter_context(node_of(node.root, node.busy))
        stack.enter_context(housekeeping(node))
        theirs = stack.enter_context(kepler(kepler_program, node.sysfs, procfs))
        third = stack.enter_context(node_exporter(program, node.sysfs))
        on = {
            "exporter": (node.exporter, "energy_node_joules_total"),
            "Kepler": (theirs, "kepler_node_cpu_joules_total"),
            "node_exporter": (third, "node_rapl_package_joules_total"),
        }
        time.sleep(2 * SCRAPE_SECONDS)
        began, before = time.monotonic(), node.joules()
        seen: dict[str, list[float]] = {name: [] for name in on}
        while True:
            for name, (service, series) in on.items():
                found = re.findall(rf"^{series}(?:{{.*}})? (\S+)$", service.scrape().decode(), re.MULTILINE)
                seen[name].append(sum(map(float, found)))
            if time.monotonic() - began > seconds:
                break
            time.sleep(SCRAPE_SECONDS)
        true = node.joules() - before
    wraps = true / (RANGE_MICROJOULES * 1e-6)
    show(
        f"The package's joules over true ones, a scrape every {SCRAPE_SECONDS:g} s, {wraps:.1f} wraps of the meter",
        ("", "joules counted", "over true"),
        [(name, f"{increase(values):.0f}", f"{increase(values) / true:.3f}") for name, values in seen.items()],
    )


def cost_row(name: str, service: Service, interval: float) -> tuple[str, ...]:
    """CPU, memory and scrapes of one exporter over a minute of scrapes."""
    time.sleep(20.0)  # until it found who is there
    began, used, times = time.monotonic(), service.cpu_seconds(), []
    for number in range(SCRAPES):
        time.sleep(max(0.0, began + number * SCRAPE_SECONDS - time.monotonic()))
        at = time.perf_counter()
        size = len(service.scrape())
        times.append(time.perf_counter() - at)
    elapsed = time.monotonic() - began
    core = (service.cpu_seconds() - used) / elapsed
    return (
        name,
        f"{core:.2%}",
        f"{core * interval * 1000:.1f}",
        f"{service.resident_bytes() / 2**20:.0f}",
        f"{median(times) * 1000:.1f}",
        f"{size:,}",
    )


def cost(program: str) -> None:
    """Print what both take of a node that does little."""
    for processes, group_count in CROWDS:
        rows = []
        with contextlib.ExitStack() as stack:
            on = stack.enter_context(crowd(processes, group_count))
            procfs = stack.enter_context(tempfile.TemporaryDirectory())
            link_processes(Path(procfs), on.cgroupfs)
            Path(procfs, "cpuinfo").symlink_to("/proc/cpuinfo")
            Path(procfs, "stat").symlink_to("/proc/stat")
            for interval in (1.0, 5.0):
                with Service.started(*on.flags, f"--sample.interval={interval}s") as ours:
                    rows.append(cost_row(f"exporter, {interval:g} s", ours, interval))
            with kepler(program, on.sysfs, Path(procfs)) as theirs:
                rows.append(cost_row("Kepler, 5 s", theirs, 5.0))
        show(
            f"Cost: {processes} processes in {group_count} containers, a scrape every {SCRAPE_SECONDS:g} s",
            ("interval", "of one core", "CPU ms an interval", "resident MiB", "scrape, ms", "bytes of a scrape"),
            rows,
        )


def main() -> int:
    """Print both tables."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.kepler", description=__doc__)
    parser.add_argument("--kepler", required=True, metavar="PROGRAM", help="a Kepler that was built or installed")
    parser.add_argument("--node-exporter", metavar="PROGRAM", help="a node_exporter, whose joules are compared too")
    parser.add_argument("--cost-only", action="store_true", help="no joules beside the truth")
    parser.add_argument("--seconds", type=float, default=40.0, help="of each workload")
    options = parser.parse_args()
    try:
        if not options.cost_only:
            against_truth(options.kepler, options.seconds)
        if options.node_exporter:
            node_joules(options.node_exporter, options.kepler, 3 * options.seconds)
        cost(options.kepler)
    except CannotMeasure as error:
        print(f"cannot measure: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
