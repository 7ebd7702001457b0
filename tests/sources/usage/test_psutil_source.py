"""psutil's view of this very machine."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator

import pytest

from exporter.host import Host, boot_seconds
from exporter.records import CpuUse, GroupKey
from exporter.sources.usage.psutil_source import PortableSource

SCRIPT = """
import sys, time
for line in sys.stdin:
    end = time.process_time() + 0.1
    while time.process_time() < end:
        pass
    print(time.process_time(), flush=True)
"""


@pytest.fixture
def worker() -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-S", "-c", SCRIPT]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as made:
        yield made


def spin(worker: subprocess.Popen[str]) -> float:
    assert worker.stdin is not None
    assert worker.stdout is not None
    worker.stdin.write("\n")
    worker.stdin.flush()
    return float(worker.stdout.readline())


def read(source: PortableSource) -> CpuUse:
    cpu = source.read(boot_seconds()).cpu
    assert cpu is not None
    return cpu


def test_the_first_look_only_sets_baselines() -> None:
    first = read(PortableSource(Host()))
    assert (first.window_seconds, first.busy_seconds, first.groups) == (0.0, 0.0, ())
    assert first.started == (GroupKey("/", 0),)


def test_a_worker_is_charged_its_own_seconds_and_no_process_more_than_there_were(worker: subprocess.Popen[str]) -> None:
    """Fault 35: use of processes that exited in between is separate."""
    source = PortableSource(Host())
    began = spin(worker)
    read(source)
    seconds = 0.0
    for _ in range(3):
        ended = spin(worker)
        cpu = read(source)
        processes = [use for group in cpu.groups for use in group.processes]
        assert 0 < sum(use.seconds for use in processes) <= cpu.busy_seconds + 1e-9
        explained = sum(group.seconds for group in cpu.groups)
        assert cpu.busy_seconds == pytest.approx(explained + cpu.exited_seconds)
        assert cpu.window_seconds >= 0.1
        seconds += sum(use.seconds for use in processes if use.process.key.pid == worker.pid)
    assert seconds == pytest.approx(ended - began, abs=0.04)


def test_an_exit_is_reported_once(worker: subprocess.Popen[str]) -> None:
    source = PortableSource(Host())
    spin(worker)
    read(source)
    spin(worker)
    cpu = read(source)
    key = next(use.process.key for group in cpu.groups for use in group.processes if use.process.key.pid == worker.pid)
    worker.kill()
    worker.wait()
    assert [read(source).exited.count(key) for _ in range(2)] == [1, 0]
    source.close()
