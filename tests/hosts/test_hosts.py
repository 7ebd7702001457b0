"""Recorded machines agree with themselves, and the recorder leaves out what identifies a machine."""

from __future__ import annotations

import json
import os
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from exporter.host import FdBudget
from exporter.records import Reading, Unavailable
from exporter.sources.cpu.estimate import EstimateSource
from exporter.sources.cpu.powercap import PowercapSource
from exporter.sources.cpu.rapl import RaplSource
from exporter.sources.cray.source import CraySource
from exporter.sources.drm.source import DrmSource
from exporter.sources.hwmon.source import HwmonSource
from exporter.sources.nvml.driver import Driver
from exporter.sources.nvml.runtime_pm import RuntimePm
from exporter.sources.protocol import Source
from exporter.sources.usage.cgroups import CgroupSource
from tests.support import machine as machines
from tests.support import record_host, ttar
from tests.support.nvml import control
from tests.support.nvml.control import FakeDriver
from tests.support.nvml.node import fresh_bindings
from tests.support.nvml.recorded import Recorder, dumps
from tests.support.repository import HOSTS

HERTZ = 100


def _read(source: Source, now: float) -> Reading | str:
    try:
        reading = source.read(now)
    except Unavailable as error:
        return error.reason
    # The inodes of a copy are others.
    uses = [use._replace(group=use.group and use.group._replace(inode=0)) for use in reading.gpu_uses]
    return replace(reading, gpu_uses=tuple(uses))


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


@pytest.mark.parametrize("name", machines.names())
def test_recorded_numbers_agree(name: str, tmp_path: Path) -> None:
    """Processes ≤ root cgroup ≈ /proc/stat at every instant, and their growth is ``busy_seconds``."""
    machine = machines.load(name, tmp_path / "machine")
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


@pytest.mark.parametrize("name", machines.names())
def test_every_changed_file_was_there_before(name: str) -> None:
    tree = ttar.parse((HOSTS / name / machines.ARCHIVE).read_bytes())
    for later in (HOSTS / name).glob("t[1-9].json"):
        assert all(isinstance(tree.get(path), bytes) for path in json.loads(later.read_text())["files"])


GPU_MACHINES = [name for name in machines.names() if (HOSTS / name / "gpus.json").exists()]


@pytest.mark.parametrize("name", GPU_MACHINES)
def test_cards_agree_with_the_machine(name: str, tmp_path: Path) -> None:
    """Their holders are processes of it, their places those of its bus, and the joules of both files the same."""
    document = json.loads((HOSTS / name / "gpus.json").read_text())
    later = [json.loads(path.read_text()) for path in sorted((HOSTS / name).glob("t[1-9].json"))]
    root = machines.load(name, tmp_path / "machine").root
    pids = {path.name for path in (root / "proc").glob("[0-9]*")}
    for card in document["gpus"]:
        assert len(card["instants"]) <= len(later) + 1
        place = root / "sys/bus/pci/drivers/nvidia" / card["pci_bus_id"]
        assert (place / "power/runtime_status").is_file()
        holders = [holder for said in card["instants"] for holder in (said, *said.get("mig", ()))]
        assert pids.issuperset(
            pid for holder in holders for kind in holder.get("processes", {}).values() for pid in kind
        )
        joules = [said.get("energy_joules") for said in card["instants"]]
        for before, after, truth in zip(joules, joules[1:], later, strict=False):
            if card["uuid"] in truth["joules"]:
                assert after - before == pytest.approx(truth["joules"][card["uuid"]], abs=1e-3)


@pytest.mark.parametrize("name", GPU_MACHINES)
def test_a_driver_is_recorded_as_it_was_played(
    name: str, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the recorder asks a live driver is what the fake one answers, and all of it; only UUIDs are left out."""
    machine = machines.load(name, tmp_path / "machine")
    library = control.build(tmp_path_factory.getbasetemp() / "nvml-recorder")
    with FakeDriver(library, tmp_path) as fake:
        monkeypatch.setenv(control.STATE_VARIABLE, str(fake.path))
        machine.plug(fake)
        driver = Driver(fresh_bindings(library))
        driver.open()
        recorder = Recorder(driver)
        recorder.record(machine.host().wall())
        while machine.instants:
            machine.advance()
            recorder.record(machine.host().wall())
        said = json.loads(dumps(recorder.document()))
        recorder.close()
    assert machine.gpus is not None
    played = json.loads(machine.gpus.read_text())
    assert _by_instant(said) == _by_instant(played)


def _by_instant(document: dict[str, Any]) -> list[Any]:
    """All readings of each card at each instant; of samples, which the driver averages, only the pids."""
    text = re.sub(r'"(GPU|MIG)-[^"]*"', '"redacted"', json.dumps(document))
    found: list[Any] = []
    for card in json.loads(text)["gpus"]:
        said: dict[str, Any] = {}
        for instant in card.pop("instants"):
            instant.pop("xids", None)  # a recorder does not wait for errors
            said = said | {"samples": []} | instant
            for activity in (said, *said["mig"]):
                activity["gpm"] = {name: value for name, value in activity["gpm"].items() if value is not None}
            found.append(said | {"samples": {sample["pid"] for sample in said["samples"]}})
        found.append(card)
    return found


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
    assert record_host.redact(cmdline) == kept


@pytest.mark.parametrize("name", machines.names())
def test_a_recording_reads_like_the_machine(name: str, tmp_path: Path) -> None:
    """Everything the sources read is recorded: meters, GPU state, groups and their processes."""
    machine = machines.load(name, tmp_path / "machine")
    (machine.root / "sys/fs").mkdir()
    (machine.root / "sys/fs/cgroup").symlink_to("../../cgroup")
    for path in (machine.root / "sys/devices").rglob("unique_id"):
        path.write_text(record_host.unique_id(path.parent.name))  # the recorder leaves out the real one
    recorder = record_host.Recorder(processes=1000, root=str(machine.root))
    recorder.record(recorder.busiest())
    record_host.write(tmp_path / "copy", [recorder])
    copy = tmp_path / "unpacked"
    ttar.unpack((tmp_path / "copy" / machines.ARCHIVE).read_bytes(), copy)
    host = machine.host()
    copied = replace(
        host, procfs=str(copy / "proc"), sysfs=str(copy / "sys"), cgroupfs=str(copy / "cgroup"), fds=FdBudget(64)
    )
    for source in (RaplSource, HwmonSource, EstimateSource, DrmSource, CraySource, PowercapSource):
        assert _read(source(copied), machine.now) == _read(source(host), machine.now)
    for each in (host, copied):
        assert RuntimePm(each).pci_addresses() == RuntimePm(host).pci_addresses()
        assert RuntimePm(each).suspended(RuntimePm(host).pci_addresses()) == RuntimePm(host).suspended(
            RuntimePm(host).pci_addresses()
        )
    groups = [{group.path for group in CgroupSource(h).read(machine.now).cpu.started} for h in (host, copied)]  # type: ignore[union-attr]
    assert groups[0] == groups[1] > {"/"}


def test_this_machine_can_be_recorded(tmp_path: Path) -> None:
    """Linux only, as the recorder is: what it writes is a machine with this process in it."""
    assert record_host.main(["me", "--seconds", "0.05", "--processes", "5000", "--out", str(tmp_path)]) == 0
    tree = ttar.parse((tmp_path / "me" / machines.ARCHIVE).read_bytes())
    stat, boot_id = tree[f"proc/{os.getpid()}/stat"], tree["proc/sys/kernel/random/boot_id"]
    assert isinstance(stat, bytes)
    assert stat.startswith(f"{os.getpid()} (".encode())
    assert boot_id == record_host.BOOT_ID.encode()
    later = json.loads((tmp_path / "me/t2.json").read_text())
    assert "proc/uptime" in later["files"]
    assert record_host.main(["me", "--out", str(tmp_path)]) == 2
