"""``run`` with real commands on a written meter, beside an exporter that reads the same one."""

from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.live import Exporter, Meter, Tree, tree
from tests.support.patience import patience, wait_for
from tests.support.program import COMMAND, ENVIRONMENT, free_port
from tests.support.repository import REPOSITORY

CONTAINER = "c0ffee" * 10 + "0123"
IDLE_WATTS = 20.0
WATTS_PER_CPU = 40.0
FAST = ("--sample.interval", "100ms", "--idle.watts", f"package-0={IDLE_WATTS}", "--attribution.cpu-scope", "machine")
AGREEMENT = 0.01

SPIN = textwrap.dedent("""
    import sys, time
    end = time.process_time() + float(sys.argv[1])
    while time.process_time() < end: pass
""")


class LoadMeter(Meter):
    """A package that needs so many watts for each CPU that is busy in a tree, as real ones do, besides idle power."""

    period_seconds = 0.001

    def __init__(self, sysfs: Path, groups: Tree) -> None:
        self._groups = groups
        super().__init__(sysfs, IDLE_WATTS)

    def joules(self) -> float:
        return super().joules() + WATTS_PER_CPU * used(self._groups)


def used(groups: Tree) -> float:
    """CPU seconds of a tree so far."""
    counter = groups.root / "cpuacct.usage"
    if counter.exists():
        return int(counter.read_text()) / 1e9
    return int((groups.root / "cpu.stat").read_text().split()[1]) / 1e6


@pytest.fixture(params=["v1", "v2"])
def groups(request: pytest.FixtureRequest) -> Iterator[Tree]:
    with tree(request.param) as made:
        yield made


@pytest.fixture
def meter(tmp_path: Path, groups: Tree) -> Iterator[Meter]:
    made = LoadMeter(tmp_path / "sys", groups)
    yield made
    made.stop()


def spin(seconds: float) -> str:
    """A shell command that uses so much CPU time, and a little more."""
    return f"{sys.executable} -S -E {{spin}} {seconds}"


class Runs:
    """Starts ``run`` with the tree and the meter of a test."""

    def __init__(self, folder: Path, groups: Tree | None) -> None:
        self.folder = folder
        self.spin = folder / "spin.py"
        self.spin.write_text(SPIN)
        self._groups = groups

    @property
    def flags(self) -> list[str]:
        """Settings that the exporter and the run have in common."""
        flags = [*FAST, "--path.sysfs", str(self.folder / "sys")]
        return flags if self._groups is None else [*flags, "--path.cgroupfs", str(self._groups.root)]

    def command(self, script: str, *flags: str) -> list[str]:
        """Words of the program that runs a script of the shell; ``{spin}`` in it uses CPU time."""
        script = script.replace("{spin}", str(self.spin))
        return [*COMMAND, "run", "--exporter.url=", *self.flags, *flags, "--", "/bin/sh", "-c", script]

    def run(self, script: str, *flags: str, status: int = 0) -> dict[str, Any]:
        """What it writes as JSON."""
        path = self.folder / "run.json"
        words = self.command(script, "--json", str(path), *flags)
        if self._groups is not None:
            enter = 'echo 0 > "$0/cgroup.procs" && exec "$@"'
            (self._groups.root / "shell").mkdir(exist_ok=True)
            words = ["/bin/sh", "-c", enter, str(self._groups.root / "shell"), *words]
        done = subprocess.run(
            words, cwd=REPOSITORY, env=ENVIRONMENT, capture_output=True, text=True, timeout=patience(), check=False
        )
        assert done.returncode == status, done.stderr
        written: dict[str, Any] = json.loads(path.read_text())
        return written


@pytest.fixture
def runs(tmp_path: Path, meter: Meter, groups: Tree) -> Runs:
    return Runs(tmp_path, groups)


@pytest.fixture
def exporter(runs: Runs) -> Iterator[Exporter]:
    made = Exporter(*runs.flags)
    yield made
    made.end()


def charged(exporter: Exporter, **labels: str) -> float:
    """Joules of a container by the exporter, once two more samples have found nothing new."""
    seen: list[float] = []

    def settled() -> bool:
        seen.append(exporter.scrape().total("energy_container_joules_total", component="cpu", **labels))
        time.sleep(0.25)
        return len(seen) > 1 and seen[-1] > 0 and seen[-1] == seen[-2]

    wait_for(settled, "the exporter's last joules")
    return seen[-1]


class TestAgreement:
    """With the exporter's own counters, within a hundredth."""

    def test_a_make_of_many_short_processes(self, runs: Runs, exporter: Exporter) -> None:
        many = runs.folder / "Makefile"
        names = " ".join(f"t{number}" for number in range(300))
        many.write_text(f"all: {names}\nt%:\n\t@/bin/true; n=0; while [ $$n -lt 300 ]; do n=$$((n+1)); done\n")
        written = runs.run(f"make -s -j4 -f {many}", "--name", "many")
        assert written["cpu_seconds_method"] == "cgroup"
        assert written["cpu_joules"] == pytest.approx(charged(exporter, runtime="run", container="many"), rel=AGREEMENT)

    def test_a_double_fork_that_outlives_its_parent(self, runs: Runs, exporter: Exporter) -> None:
        script = f"({spin(0.6)} & ) ; {spin(0.3)}; sleep 1"
        written = runs.run(script, "--name", "orphan")
        assert written["cpu_seconds"] > 0.9
        found = charged(exporter, runtime="run", container="orphan")
        assert written["cpu_joules"] == pytest.approx(found, rel=AGREEMENT)

    def test_a_container_that_its_processes_enter(self, runs: Runs, exporter: Exporter) -> None:
        """As conmon and a shim do: the cgroup of the run never counts that time."""
        assert runs._groups is not None
        inside = runs._groups.root / "docker" / CONTAINER
        inside.mkdir(parents=True)
        script = f"( echo 0 > {inside}/cgroup.procs; {spin(0.5)} & wait; {spin(0.5)} )"
        written = runs.run(script)
        assert written["cpu_seconds_method"] == "subreaper"
        assert written["cpu_seconds"] > 1.0
        assert written["cpu_joules"] == pytest.approx(charged(exporter, runtime="docker"), rel=AGREEMENT)
