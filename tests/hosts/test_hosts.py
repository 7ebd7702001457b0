"""Recorded machines agree with themselves, and the recorder leaves out what identifies a machine."""

from __future__ import annotations

import importlib.util
import json
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from exporter.host import FdBudget
from exporter.records import Reading, Source, Unavailable
from exporter.sources.cgroups import CgroupSource
from exporter.sources.estimate import EstimateSource
from exporter.sources.hwmon import HwmonSource
from exporter.sources.rapl import RaplSource

HERE = Path(__file__).parent
HERTZ = 100


def _module(path: Path) -> Any:
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


MACHINE = _module(HERE / "machine.py")
RECORDER = _module(HERE.parent / "record_host.py")


def _read(source: Source, now: float) -> Reading | str:
    try:
        return source.read(now)
    except Unavailable as error:
        return error.reason


def _busy_seconds(root: Path) -> tuple[float, float, float]:
    """CPU seconds so far according to /proc/stat, the root cgroup and all processes."""
    fields = (root / "proc/stat").read_text().split("\n")[0].split()[1:]
    user, nice, system, _, _, irq, softirq = (int(field) for field in fields[:7])
    v1 = root / "cgroup/cpuacct/cpuacct.usage"
    if v1.exists():
        group = int(v1.read_text()) / 1e9
    else:
        group = int((root / "cgroup/cpu.stat").read_text().split()[1]) / 1e6
    processes = 0
    for stat in (root / "proc").glob("[0-9]*/stat"):
        ticks = stat.read_text().rpartition(")")[2].split()
        processes += int(ticks[11]) + int(ticks[12])
    return (user + nice + system + irq + softirq) / HERTZ, group, processes / HERTZ


@pytest.mark.parametrize("name", MACHINE.names())
def test_recorded_numbers_agree(name: str, tmp_path: Path) -> None:
    """Processes ≤ root cgroup ≈ /proc/stat at every instant, and their growth is ``busy_seconds``."""
    machine = MACHINE.load(name, tmp_path / "machine")
    before = _busy_seconds(machine.root)
    assert machine.instants >= 1
    while machine.instants:
        machine.advance()
        stat, group, processes = after = _busy_seconds(machine.root)
        assert processes <= group + 0.01
        assert stat == pytest.approx(group, abs=1 / HERTZ)
        assert group - before[1] == pytest.approx(machine.busy_seconds, abs=1e-6)
        assert machine.now == float((machine.root / "proc/uptime").read_text().split()[0])
        before = after


@pytest.mark.parametrize("name", MACHINE.names())
def test_every_changed_file_was_there_before(name: str) -> None:
    for later in (HERE / name).glob("t[1-9].json"):
        assert all((HERE / name / "t0" / path).is_file() for path in json.loads(later.read_text())["files"])


@pytest.mark.parametrize(
    ("cmdline", "kept"),
    [
        ("/usr/bin/python3\0-m\0vllm\0--model\0meta/llama\0", "python3\0redacted\0redacted\0--model\0redacted\0"),
        ("server\0--api-key=s3cret\0-ps3cret\0", "server\0--api-key\0redacted\0"),
        ("nginx: worker process s3cret\0", "nginx:\0"),
        ("", ""),
    ],
)
def test_arguments_are_redacted(cmdline: str, kept: str) -> None:
    """Fault 47: a command line may hold secrets; only the program and the names of long options are kept."""
    assert RECORDER.redact(cmdline) == kept


@pytest.mark.parametrize("name", MACHINE.names())
def test_a_recording_reads_like_the_machine(name: str, tmp_path: Path) -> None:
    """Everything the sources read is recorded: meters, GPU state, groups and their processes."""
    machine = MACHINE.load(name, tmp_path / "machine")
    (machine.root / "sys/fs").mkdir()
    (machine.root / "sys/fs/cgroup").symlink_to("../../cgroup")
    recorder = RECORDER.Recorder(processes=1000, root=str(machine.root))
    recorder.record(recorder.busiest())
    RECORDER.write(tmp_path / "copy", [recorder])
    copy = tmp_path / "copy/t0"
    host = machine.host()
    copied = replace(
        host, procfs=str(copy / "proc"), sysfs=str(copy / "sys"), cgroupfs=str(copy / "cgroup"), fds=FdBudget(64)
    )
    for source in (RaplSource, HwmonSource, EstimateSource):
        assert _read(source(copied), machine.now) == _read(source(host), machine.now)
    groups = [{group.path for group in CgroupSource(h).read(machine.now).cpu.started} for h in (host, copied)]  # type: ignore[union-attr]
    assert groups[0] == groups[1] > {"/"}


def test_this_machine_can_be_recorded(tmp_path: Path) -> None:
    """Linux only, as the recorder is: what it writes is a machine with this process in it."""
    assert RECORDER.main(["me", "--seconds", "0.05", "--processes", "5000", "--out", str(tmp_path)]) == 0
    root = tmp_path / "me/t0"
    assert (root / f"proc/{os.getpid()}/stat").read_text().startswith(f"{os.getpid()} (")
    assert (root / "proc/sys/kernel/random/boot_id").read_text() == RECORDER.BOOT_ID
    later = json.loads((tmp_path / "me/t2.json").read_text())
    assert "proc/uptime" in later["files"]
    assert RECORDER.main(["me", "--out", str(tmp_path)]) == 2
