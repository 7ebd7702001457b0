"""Who is below a process, and what they used: by the kernel's lists of children, and without them."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from exporter.host import Host
from exporter.runs.descendants import Descendants

HERTZ = os.sysconf("SC_CLK_TCK")
LAUNCHER, COMMAND, MEASURING, WORKER, DRIVER = 10, 11, 12, 13, 14


def write(proc: Path, pid: int, parent: int, *, own: float = 0.0, waited: float = 0.0, listed: bool) -> None:
    """A process: ``own`` and ``waited`` are CPU seconds of itself, and of children that it has waited for."""
    folder = proc / str(pid)
    (folder / "task" / str(pid)).mkdir(parents=True)
    numbers = [parent, 0, 0, 0, 0, 0, 0, 0, 0, 0, int(own * HERTZ), 0, int(waited * HERTZ), 0, 0, 0, 0, 0, pid * 100]
    (folder / "stat").write_text(f"{pid} (a) b) S {' '.join(map(str, numbers))} 0 0\n")
    if listed:
        (folder / "task" / str(pid) / "children").write_text("")
        children = proc / str(parent) / "task" / str(parent) / "children"
        if children.exists():
            children.write_text(f"{children.read_text()}{pid} ")


@pytest.mark.parametrize("listed", [True, False])
def test_the_measuring_process_and_what_it_started_are_apart(tmp_path: Path, listed: bool) -> None:
    write(tmp_path, LAUNCHER, 1, own=100.0, waited=0.5, listed=listed)
    write(tmp_path, COMMAND, LAUNCHER, own=1.0, waited=2.0, listed=listed)
    write(tmp_path, MEASURING, LAUNCHER, own=50.0, listed=listed)
    write(tmp_path, WORKER, COMMAND, own=4.0, listed=listed)
    write(tmp_path, DRIVER, MEASURING, own=60.0, listed=listed)
    found = Descendants(Host(procfs=str(tmp_path)), LAUNCHER, MEASURING)
    assert found.read() == (7.0, 0.5)
    assert found.living == {COMMAND, WORKER}
    assert {key.pid for key in found.seen} == {COMMAND, WORKER}


def test_one_that_vanishes_is_missed_and_not_an_error(tmp_path: Path) -> None:
    write(tmp_path, LAUNCHER, 1, listed=True)
    write(tmp_path, COMMAND, LAUNCHER, own=1.0, listed=True)
    (tmp_path / str(COMMAND) / "stat").unlink()
    found = Descendants(Host(procfs=str(tmp_path)), LAUNCHER, MEASURING)
    assert found.read() == (0.0, 0.0)
    assert found.living == frozenset()
