"""No test waits for a number of seconds that a busy machine outlasts: see tests/support/patience.py."""

from __future__ import annotations

import os
import re
import time
from pathlib import Path

import pytest

from tests.support import patience
from tests.support.repository import TESTS

FIXED = re.compile(r"\btimeout=\d|\.(?:wait|join|communicate)\([1-9]\d*(?:\.0)?\)|monotonic\(\) \+ \d")


@pytest.mark.parametrize("line", ["run(command, timeout=30)", "process.wait(5)", "deadline = time.monotonic() + 20"])
def test_a_fixed_limit_is_found(line: str) -> None:
    assert FIXED.search(line)


def test_every_limit_grows_with_the_load() -> None:
    found = [
        f"{path.relative_to(TESTS)}: {line.strip()}"
        for path in TESTS.rglob("*.py")
        if path.name != "test_waits.py"
        for line in path.read_text(encoding="utf-8").splitlines()
        if FIXED.search(line)
    ]
    assert found == []


@pytest.mark.parametrize(
    ("mean", "running", "expected"), [(0.1, 1, 20.0), (1.0, 1, 20.0), (4.5, 1, 90.0), (1.0, 3, 60.0)]
)
def test_patience_grows_with_the_tasks_for_each_cpu(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mean: float, running: int, expected: float
) -> None:
    cpus = len(os.sched_getaffinity(0))
    monkeypatch.setattr(patience, "LOADAVG", tmp_path / "loadavg")
    patience.LOADAVG.write_text(f"{mean * cpus:.2f} 0.50 0.40 {running * cpus}/345 6789\n")
    assert patience.patience() == expected


def test_a_wait_ends_with_the_condition_or_with_patience() -> None:
    assert patience.wait_for(iter((0, "", "it")).__next__) == "it"
    began = time.monotonic()
    with pytest.raises(AssertionError, match="a miracle did not come"):
        patience.wait_for(lambda: False, "a miracle", 0.05)
    assert time.monotonic() - began >= 0.05
