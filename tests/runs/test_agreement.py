"""Joules of a run, and those of an exporter that reads the same meter: real processes, in real cgroups."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.live import Tree, tree
from tests.support.paired_run import WATTS_PER_CPU
from tests.support.patience import patience
from tests.support.repository import REPOSITORY

CONTAINER = "c0ffee" * 10 + "0123"
WITHIN = 0.01

SPIN = """
import sys, time
end = time.process_time() + float(sys.argv[1])
while time.process_time() < end: pass
"""
MAKEFILE = """
all: {names}
t%:
\t@/bin/true; n=0; while [ $$n -lt 300 ]; do n=$$((n+1)); done
"""


@pytest.fixture(params=["v1", "v2"])
def groups(request: pytest.FixtureRequest) -> Iterator[Tree]:
    with tree(request.param) as made:
        yield made


class Pair:
    """Runs a shell script under both; ``{spin}`` in it uses CPU time."""

    def __init__(self, folder: Path, groups: Tree) -> None:
        self.folder = folder
        self.root = groups.root
        (folder / "spin.py").write_text(SPIN)
        # Only v2 can be frozen to be read in the middle; else the first and the last reading have to do.
        self.often = (self.root / "cgroup.freeze").exists()

    def run(self, script: str) -> dict[str, Any]:
        """What both found. The exporter and the run start in a cgroup beside those of the command."""
        shell = self.root / "shell"
        shell.mkdir()
        script = script.replace("{spin}", f"{sys.executable} -S -E {self.folder / 'spin.py'}")
        words = [str(self.root), str(self.folder), "0.2" if self.often else "20", "/bin/sh", "-c", script]
        enter = 'echo 0 > "$0/cgroup.procs" && exec "$@"'
        done = subprocess.run(
            ["/bin/sh", "-c", enter, str(shell), sys.executable, "-m", "tests.support.paired_run", *words],
            cwd=REPOSITORY,
            capture_output=True,
            text=True,
            timeout=patience(),
            check=False,
        )
        assert done.returncode == 0, done.stderr
        found: dict[str, Any] = json.loads((self.folder / "found.json").read_text())
        assert found["ticks"] >= (3 if self.often else 2)
        return found


@pytest.fixture
def pair(tmp_path: Path, groups: Tree) -> Pair:
    return Pair(tmp_path, groups)


def check(found: dict[str, Any], *rows: str) -> None:
    """The run's joules are those of the exporter's rows, and what its CPU seconds need."""
    assert found["joules"] == pytest.approx(sum(found["exporter"][row] for row in rows), rel=WITHIN)
    assert found["joules"] == pytest.approx(WATTS_PER_CPU * found["cpu_seconds"], rel=2 * WITHIN)


def test_a_make_of_many_short_processes(pair: Pair) -> None:
    many = pair.folder / "Makefile"
    many.write_text(MAKEFILE.format(names=" ".join(f"t{number}" for number in range(200))))
    found = pair.run(f"make -s -j4 -f {many}")
    assert found["method"] == "cgroup"
    check(found, "run/paired")


@pytest.mark.parametrize("groups", ["v2"], indirect=True)
def test_a_double_fork_whose_parent_has_ended(pair: Pair) -> None:
    found = pair.run("({spin} 0.3 & ) ; {spin} 0.1")
    assert found["cpu_seconds"] > 0.4
    assert found["method"] == "cgroup"
    check(found, "run/paired")


@pytest.mark.parametrize("groups", ["v2"], indirect=True)
def test_a_container_that_its_processes_enter(pair: Pair) -> None:
    """As those of conmon and of a shim do: the cgroup of the run does not count their time."""
    inside = pair.root / "docker" / CONTAINER
    inside.mkdir(parents=True)
    found = pair.run(f"(echo 0 > {inside}/cgroup.procs; {{spin}} 0.2 & wait; {{spin}} 0.2)")
    assert found["cpu_seconds"] > 0.4
    assert found["method"] == "subreaper"
    check(found, "docker/c0ffeec0ffee", "run/paired")


@pytest.mark.parametrize("groups", ["v2"], indirect=True)
def test_many_short_processes_in_a_container(pair: Pair) -> None:
    """None of them is ever seen: their time is known from the parents that waited for them."""
    inside = pair.root / "docker" / CONTAINER
    inside.mkdir(parents=True)
    many = pair.folder / "Makefile"
    many.write_text(MAKEFILE.format(names=" ".join(f"t{number}" for number in range(200))))
    found = pair.run(f"echo 0 > {inside}/cgroup.procs; make -s -j4 -f {many}")
    assert found["method"] == "subreaper"
    check(found, "docker/c0ffeec0ffee", "run/paired")
