"""What the exporter costs beside an earlier commit of itself, in turns: ``python -m benchmarks against REF``.

REF is checked out into a temporary folder and runs with the Python and the packages of this one. Both watch the same
crowd or the same scripted cards. About twelve minutes; root, a C compiler and git are needed.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import resource
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import NamedTuple

import psutil

from tests.support.nvml import control
from tests.support.program import free_port

from . import gpus, serving
from .crowd import crowd
from .service import cpu_seconds
from .table import quantile, show, verdict
from .ticks import WARM_UP

HERE = Path(__file__).resolve().parent.parent
ROUNDS = 40
STARTS = 9
SIZES = (((200, 50), None), ((2_000, 200), 0.6), ((10_000, 1_000), 0.5))
"""Processes and cgroups, and the ratio to reach."""


class Row(NamedTuple):
    """Values of both, in the unit that the name says, and the ratio to reach."""

    name: str
    before: Sequence[float]
    now: Sequence[float]
    reach: float | None = None

    def cells(self) -> tuple[str, ...]:
        """Medians with quartiles, their ratio, and whether it is reached."""
        ratio = median(self.now) / median(self.before)
        reached = "" if self.reach is None else f"{self.reach:g}: {verdict(ratio <= self.reach)}"
        return self.name, _spread(self.before), _spread(self.now), f"{ratio:.2f}", reached


def _known(tree: Path, flags: Sequence[str]) -> list[str]:
    """Without flags that an earlier commit does not have: it does what they ask for, or nothing of the kind."""
    command = [sys.executable, "-m", "exporter", "--help"]
    known = subprocess.run(command, cwd=tree, stdout=subprocess.PIPE, text=True, check=True).stdout
    return [flag for flag in flags if flag.partition("=")[0] in known]


def milliseconds(seconds: Sequence[float]) -> list[float]:
    """The same in milliseconds."""
    return [each * 1e3 for each in seconds]


def _spread(values: Sequence[float]) -> str:
    return f"{median(values):.4g} ({quantile(values, 0.25):.4g} to {quantile(values, 0.75):.4g})"


def main(arguments: Sequence[str]) -> int:
    """Print one table. Raises `CannotMeasure`."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks against", description=__doc__)
    parser.add_argument("ref", metavar="REF", help="commit or tag")
    parser.add_argument("--only", metavar="PART", help=f"one of {', '.join(PARTS)}")
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as name:
        before = Path(name) / "before"
        with _checked_out(options.ref, before):
            for tree in (before, HERE):  # as where they are installed
                subprocess.run([sys.executable, "-m", "compileall", "-q", "exporter"], cwd=tree, check=True)
            rows = [row for part, of in PARTS.items() if options.only in (None, part) for row in of((before, HERE))]
    head = ("", f"{options.ref}: median (quartiles)", "now", "ratio", "reach")
    show(f"Beside {options.ref}, in turns", head, [row.cells() for row in rows])
    return 0


@contextlib.contextmanager
def _checked_out(ref: str, folder: Path) -> Iterator[None]:
    git = ["git", "-C", str(HERE), "worktree"]
    subprocess.run([*git, "add", "--quiet", "--detach", str(folder), ref], check=True)
    try:
        yield
    finally:
        subprocess.run([*git, "remove", "--force", str(folder)], check=True)


Trees = tuple[Path, Path]


def commands(trees: Trees) -> Iterator[Row]:
    """CPU of programs that only print."""
    for flag in ("--version", "--help"):
        used: tuple[list[float], list[float]] = ([], [])
        for _ in range(STARTS):
            for tree, into in zip(trees, used, strict=True):
                began = _of_children()
                subprocess.run(
                    [sys.executable, "-m", "exporter", flag], cwd=tree, stdout=subprocess.DEVNULL, check=True
                )
                into.append((_of_children() - began) * 1e3)
        yield Row(f"`{flag}`, CPU ms", *used, 0.3)


def _of_children() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def starting(trees: Trees) -> Iterator[Row]:
    """From exec to the first good answer, asked every 5 ms."""
    took: tuple[list[float], list[float]] = ([], [])
    used: tuple[list[float], list[float]] = ([], [])
    with crowd(200, 50) as on:
        flags = [_known(tree, on.flags) for tree in trees]
        for _ in range(STARTS):
            for tree, known, seconds, cpu in zip(trees, flags, took, used, strict=True):
                began = time.monotonic()
                with _serving(tree, known) as exporter:
                    seconds.append((time.monotonic() - began) * 1e3)
                    cpu.append(cpu_seconds(exporter.pid) * 1e3)
    yield Row("exec to first answer, 200 processes, ms", *took, 0.5)
    yield Row("the same, CPU ms", *used)


@contextlib.contextmanager
def _serving(
    tree: Path, flags: Sequence[str], port: int | None = None, environment: Mapping[str, str] | None = None
) -> Iterator[subprocess.Popen[bytes]]:
    port = port or free_port()
    flags = [f"--web.listen-address=127.0.0.1:{port}", "--log.level=error", *flags]
    command = [sys.executable, "-m", "exporter", *flags]
    with subprocess.Popen(command, cwd=tree, env=os.environ | dict(environment or {})) as exporter:
        try:
            deadline = time.monotonic() + 30
            while not _answers(port):
                if exporter.poll() is not None or time.monotonic() > deadline:
                    raise RuntimeError(f"the exporter of {tree} does not answer")
                time.sleep(0.005)
            yield exporter
        finally:
            exporter.terminate()


def _answers(port: int) -> bool:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer:
            return b"energy_node_joules_total" in answer.read()
    except (urllib.error.URLError, ConnectionError):
        return False


def ticks(trees: Trees) -> Iterator[Row]:
    """CPU of a tick, one process in ten at work, spread over all cgroups."""
    for (processes, groups), reach in SIZES:
        with crowd(processes, groups) as on, contextlib.ExitStack() as stack:
            tickers = [stack.enter_context(ticker(tree, _known(tree, on.flags))) for tree in trees]
            before, now = in_turns(tickers, WARM_UP + ROUNDS)
        name = f"tick, {processes:,} processes in {groups:,} cgroups, CPU ms"
        yield Row(name, milliseconds(before[WARM_UP:]), milliseconds(now[WARM_UP:]), reach)


@contextlib.contextmanager
def ticker(tree: Path, flags: Sequence[str]) -> Iterator[Callable[[], float]]:
    """A sampler in a process of its own: each call is a tick, and returns its CPU seconds."""
    command = [sys.executable, "-m", "benchmarks.ticker", *flags]
    with subprocess.Popen(command, cwd=tree, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:

        def tick() -> float:
            assert process.stdin
            assert process.stdout
            process.stdin.write("go\n")
            process.stdin.flush()
            return float(process.stdout.readline().split()[0])

        try:
            yield tick
        finally:
            process.communicate()


def in_turns(tickers: Sequence[Callable[[], float]], rounds: int) -> list[list[float]]:
    """One tick a second each, so that each finds the caches as a second of other work leaves them."""
    found: list[list[float]] = [[] for _ in tickers]
    due = time.monotonic()
    for _ in range(rounds):
        for tick, into in zip(tickers, found, strict=True):
            time.sleep(max(0.0, due - time.monotonic()))
            into.append(tick())
            due += 1.0 / len(tickers)
    return found


def often(trees: Trees) -> Iterator[Row]:
    """Ten ticks a second: CPU of the exporter while it is not scraped, then how late ticks are after the earliest."""
    interval, ports = 0.1, (free_port(), free_port())
    phases: tuple[list[float], list[float]] = ([], [])
    with crowd(200, 50) as on, contextlib.ExitStack() as stack:
        running = [
            stack.enter_context(_serving(tree, [*_known(tree, on.flags), f"--sample.interval={interval}s"], port))
            for tree, port in zip(trees, ports, strict=True)
        ]
        time.sleep(30)
        used = cpu_ratios([exporter.pid for exporter in running], 6)
        for _ in range(200):
            time.sleep(0.23)
            for port, into in zip(ports, phases, strict=True):
                into.append(_sampled_at(port) % interval)
    before, now = ([ratio * 100 for ratio in each] for each in used)
    yield Row("ten ticks a second, 200 processes, % of a core", before, now)
    before, now = ([quantile(_after_first(each, interval), 0.99)] for each in phases)
    yield Row("how late they are, p99, ms", before, now)


def cpu_ratios(pids: Sequence[int], rounds: int, seconds: float = 10.0) -> list[list[float]]:
    """CPU seconds a second that processes use side by side, in each of some rounds."""
    used: list[list[float]] = [[] for _ in pids]
    for _ in range(rounds):
        began = [cpu_seconds(pid) for pid in pids]
        time.sleep(seconds)
        for pid, earlier, into in zip(pids, began, used, strict=True):
            into.append((cpu_seconds(pid) - earlier) / seconds)
    return used


def _sampled_at(port: int) -> float:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer:
        (line,) = (line for line in answer if line.startswith(b"energy_sample_timestamp_seconds "))
    return float(line.split()[1])


def _after_first(phases: Sequence[float], interval: float) -> list[float]:
    """Milliseconds of each phase after the earliest, which is the one after the widest gap of the circle."""
    ordered = sorted(phases)
    gaps = [(one - other) % interval for one, other in zip(ordered, [ordered[-1], *ordered], strict=False)]
    first = ordered[gaps.index(max(gaps))]
    return [(phase - first) % interval * 1e3 for phase in phases]


def cards(trees: Trees) -> Iterator[Row]:
    """CPU of both processes for eight cards, beyond that of a node without; the driver's own time is asleep."""
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
        library = control.build(Path(folder))
        shapes = (("none", 0, False), ("8", 8, False), ("8 in 56 instances", 8, True))
        nodes = [
            [stack.enter_context(gpus.node(name, library, count, mig=mig, tree=tree)) for name, count, mig in shapes]
            for tree in trees
        ]
        gpus.measure([node for of_tree in nodes for node in of_tree], ROUNDS)
        for place, reach in ((1, 0.4), (2, 0.5)):
            before, now = (
                [a - b for a, b in zip(gpus.total(of[place]), gpus.total(of[0]), strict=True)] for of in nodes
            )
            name = f"GPUs, {shapes[place][0]}, beyond the rest, CPU ms a second"
            yield Row(name, milliseconds(before), milliseconds(now), reach)


def resident(trees: Trees) -> Iterator[Row]:
    """MiB of both processes with eight cards and 200 processes, after a minute."""
    sizes: tuple[list[float], list[float]] = ([], [])
    with tempfile.TemporaryDirectory() as folder, crowd(200, 50) as on, contextlib.ExitStack() as stack:
        driver = stack.enter_context(control.FakeDriver(control.build(Path(folder))))
        for _ in range(8):
            driver.add_gpu()
        running = [
            stack.enter_context(_serving(tree, _known(tree, on.flags), environment=driver.environment()))
            for tree in trees
        ]
        for _ in range(3):
            time.sleep(20)
            for exporter, into in zip(running, sizes, strict=True):
                main_process = psutil.Process(exporter.pid)
                every = [main_process, *main_process.children(recursive=True)]
                into.append(sum(process.memory_full_info().uss for process in every) / 2**20)
    yield Row("resident of their own (USS), both processes, 8 GPUs, MiB", *sizes, 0.8)


def first_scrape(trees: Trees) -> Iterator[Row]:
    """The slowest of eight scrapes at once for which nothing was rendered ahead, gzip."""
    took: tuple[list[float], list[float]] = ([], [])
    with crowd(serving.PROCESSES, serving.GROUPS) as on:
        for tree, into in zip(trees, took, strict=True):
            flags = [*_known(tree, on.flags), "--web.listen-address=127.0.0.1:0", f"--process.top={serving.SHOWN}"]
            command = [sys.executable, "-m", "benchmarks.stopwatch", *flags]
            with subprocess.Popen(
                command, cwd=tree, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
            ) as exporter:
                assert exporter.stdout
                port = int(exporter.stdout.readline())
                time.sleep(60.0)  # until it found who is active
                series = serving.series(port)
                for _ in range(STARTS // 2):
                    time.sleep(20.0)  # until nothing is rendered ahead any more
                    into.append(serving.scrape(port, "gzip", serving.PERIOD).first * 1e3)
                exporter.communicate()
    yield Row(f"first scrape of {series:,} series, gzip, ms", *took, 0.4)


PARTS: dict[str, Callable[[Trees], Iterator[Row]]] = {
    "commands": commands,
    "starting": starting,
    "resident": resident,
    "ticks": ticks,
    "often": often,
    "cards": cards,
    "first-scrape": first_scrape,
}
