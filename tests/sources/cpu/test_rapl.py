"""RAPL zones read from written powercap trees: identity, nesting, ranges, and every way a zone can fail."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from exporter.host import FdBudget, Host
from exporter.records import Device, EnergyReading, Reading, Unavailable
from exporter.sources.cpu.rapl import RESCAN_SECONDS, RaplSource
from tests.support import machine as machines
from tests.support.privileges import drop_privileges, public_folder

RANGE_UJ = 262143328850


class Tree:
    """A sysfs tree with powercap zones and CPUs, laid out as the kernel does: links into devices/virtual."""

    def __init__(self, root: Path, packages: int = 1, cpus: int = 8) -> None:
        self.root = root
        for cpu in range(cpus):
            self.write(f"sys/devices/system/cpu/cpu{cpu}/topology/physical_package_id", f"{cpu * packages // cpus}\n")
        self.write("sys/devices/system/cpu/online", f"0-{cpus - 1}\n")

    def write(self, path: str, text: str) -> Path:
        file = self.root / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
        return file

    def zone(self, zone: str, name: str, uj: int = 1_000_000, **files: str) -> Path:
        parts = zone.split(":")
        kind = parts[0]
        nested = "/".join(":".join(parts[: end + 1]) for end in range(1, len(parts)))
        base = f"sys/devices/virtual/powercap/{kind}/{nested}"
        content = {"name": f"{name}\n", "energy_uj": f"{uj}\n", "max_energy_range_uj": f"{RANGE_UJ}\n"} | files
        for file, text in content.items():
            self.write(f"{base}/{file}", text)
        link = self.root / "sys/class/powercap" / zone
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(f"../../devices/virtual/powercap/{kind}/{nested}")
        return self.root / base

    def source(self, descriptors: int = 64) -> RaplSource:
        return RaplSource(self.host(descriptors))

    def host(self, descriptors: int = 64) -> Host:
        return Host(str(self.root / "proc"), str(self.root / "sys"), clock=lambda: 100.0, fds=FdBudget(descriptors))


@pytest.fixture
def tree(tmp_path: Path) -> Tree:
    return Tree(tmp_path)


def meters(reading: Reading) -> dict[str, EnergyReading]:
    found = {meter.device.id: meter for meter in reading.meters if isinstance(meter, EnergyReading)}
    assert len(found) == len(reading.meters), "device ids are unique"
    return found


def devices(reading: Reading) -> dict[str, Device]:
    return {id_: meter.device for id_, meter in meters(reading).items()}


# --- what the zones mean ---------------------------------------------------------------------------------


def test_two_sockets_with_dram_and_psys(tmp_path: Path) -> None:
    """Fault 16: package and DRAM are within psys, so that only one of them is ever summed."""
    machine = machines.load("intel-2s-dram-psys", tmp_path / "machine")
    found = devices(RaplSource(machine.host()).read(machine.now))
    assert {id_: (d.component, d.within, d.socket, d.capacity) for id_, d in found.items()} == {
        "package-0": ("cpu", "psys-0", 0, 16.0),
        "dram-0": ("dram", "psys-0", 0, 16.0),
        "package-1": ("cpu", "psys-0", 1, 16.0),
        "dram-1": ("dram", "psys-0", 1, 16.0),
        "psys-0": ("platform", None, None, 32.0),
    }
    assert all(d.source == "rapl" and d.quality == "measured" for d in found.values())


@pytest.mark.parametrize("name", ["intel-2s-dram-psys", "amd-epyc", "docker-cgroup-v1", "intel-hybrid-laptop"])
def test_recorded_machine_shows_the_joules_it_used(name: str, tmp_path: Path) -> None:
    """Faults 1 and 7: the raw counters and their ranges give each zone's joules, also where one of them wraps."""
    machine = machines.load(name, tmp_path / "machine")
    source = RaplSource(machine.host())
    before = meters(source.read(machine.now))
    machine.advance()
    after = meters(source.read(machine.now))
    used = {}
    for id_, meter in after.items():
        assert meter.wraps_at is not None
        assert meter.at - before[id_].at == machine.seconds
        used[id_] = (meter.joules - before[id_].joules) % meter.wraps_at
    expected = {id_: joules for id_, joules in machine.joules.items() if id_ in used}
    assert set(expected) == set(used)
    assert used == pytest.approx(expected, abs=2e-6)


def test_package_includes_core_and_uncore_but_not_dram(tmp_path: Path) -> None:
    """powercap/powercap #3: core ⊂ package, DRAM beside it; without psys both stand alone."""
    machine = machines.load("docker-cgroup-v1", tmp_path / "machine")
    found = devices(RaplSource(machine.host()).read(machine.now))
    assert {id_: (d.component, d.within) for id_, d in found.items()} == {
        "package-0": ("cpu", None),
        "core-0": ("cpu", "package-0"),
        "uncore-0": ("cpu", "package-0"),
        "dram-0": ("dram", None),
    }


def test_mmio_zone_counts_only_without_the_msr_zone(tree: Tree) -> None:
    """The same package appears under both control types: never twice."""
    tree.zone("intel-rapl-mmio:0", "package-0", 7_000_000)
    assert meters(tree.source().read(0.0))["package-0"].joules == 7.0
    tree.zone("intel-rapl:0", "package-0", 9_000_000)
    found = meters(tree.source().read(0.0))
    assert {id_: meter.joules for id_, meter in found.items()} == {"package-0": 9.0}


def test_dies_of_a_package_are_devices_of_their_own(tree: Tree) -> None:
    """Multi-die processors name their zones package-N-die-M; capacity is the die's CPUs."""
    for cpu in range(8):
        tree.write(f"sys/devices/system/cpu/cpu{cpu}/topology/die_id", f"{cpu // 6}\n")
    tree.zone("intel-rapl:0", "package-0-die-0")
    tree.zone("intel-rapl:0:0", "dram")
    tree.zone("intel-rapl:1", "package-0-die-1")
    tree.zone("intel-rapl:1:0", "core")
    found = devices(tree.source().read(0.0))
    assert {id_: (d.capacity, d.within, d.socket) for id_, d in found.items()} == {
        "package-0-die-0": (6.0, None, 0),
        "dram-0-die-0": (6.0, None, 0),
        "package-0-die-1": (2.0, None, 0),
        "core-0-die-1": (2.0, "package-0-die-1", 0),
    }


def test_second_psys_is_within_the_first(tree: Tree) -> None:
    """Fault 16: one platform, however many sockets report one."""
    tree.zone("intel-rapl:0", "package-0")
    tree.zone("intel-rapl:1", "psys")
    tree.zone("intel-rapl:2", "psys-1")
    tree.zone("intel-rapl:3", "psys")
    found = devices(tree.source().read(0.0))
    assert {id_: d.within for id_, d in found.items()} == {
        "package-0": "psys-0",
        "psys-0": None,
        "psys-1": "psys-0",
        "psys-0@intel-rapl:3": "psys-0",
    }


def test_zone_of_unknown_name_is_shown_and_never_summed(tree: Tree) -> None:
    tree.zone("intel-rapl:0", "package-0")
    tree.zone("intel-rapl:0:0", "mcp")
    device = devices(tree.source().read(0.0))["mcp-0"]
    assert (device.component, device.within) == ("platform", "node")


def test_capacity_without_topology_is_an_equal_share(tmp_path: Path) -> None:
    """Some kernels and sandboxes hide the topology: all CPUs over the packages."""
    tree = Tree(tmp_path, cpus=8)
    for file in (tmp_path / "sys/devices/system/cpu").glob("cpu*/topology/*"):
        file.unlink()
    tree.zone("intel-rapl:0", "package-0")
    tree.zone("intel-rapl:1", "package-1")
    assert [d.capacity for d in devices(tree.source().read(0.0)).values()] == [4.0, 4.0]


@pytest.mark.parametrize(
    ("limits", "watts"),
    [
        ({}, 2000.0),
        ({"constraint_0_max_power_uw": "150000000\n"}, 600.0),
        ({"constraint_0_max_power_uw": "0\n", "constraint_1_power_limit_uw": "360000000\n"}, 1440.0),
        ({"constraint_0_max_power_uw": "15000000\n"}, 500.0),
        ({"constraint_0_power_limit_uw": "4095875000\n"}, 2000.0),
        ({"constraint_0_max_power_uw": "abc\n"}, 2000.0),
    ],
)
def test_ceiling_follows_the_declared_limits(tree: Tree, limits: dict[str, str], watts: float) -> None:
    """Fault 18: what lies above is implausible; a laptop's 15 W must not make turbo implausible."""
    tree.zone("intel-rapl:0", "package-0", 0, **limits)
    assert devices(tree.source().read(0.0))["package-0"].max_watts == watts


@settings(max_examples=25)
@given(microjoules=st.integers(0, 2**63 - 1))
def test_any_counter_is_read_as_it_is(microjoules: int) -> None:
    """The source never judges a value: wraps and resets are the meter's."""
    with tempfile.TemporaryDirectory() as folder:
        tree = Tree(Path(folder), cpus=1)
        tree.zone("intel-rapl:0", "package-0", microjoules)
        assert meters(tree.source(0).read(0.0))["package-0"].joules == microjoules / 1e6


# --- what can go wrong -----------------------------------------------------------------------------------


@pytest.mark.parametrize("text", ["0\n", "abc\n", "", "-1\n", "18446744073709551615\n", None])
def test_range_missing_or_broken_means_no_wrap(tree: Tree, text: str | None) -> None:
    """Fault 6: the joules are still read; without a range no decrease may be called a wrap."""
    base = tree.zone("intel-rapl:0", "package-0")
    (base / "max_energy_range_uj").unlink() if text is None else (base / "max_energy_range_uj").write_text(text)
    assert meters(tree.source().read(0.0))["package-0"][2:4] == (1.0, None)


def test_vanished_zone_leaves_the_others(tree: Tree) -> None:
    """Fault 8: hotplug or unload takes one zone: a problem once, the rest goes on."""
    tree.zone("intel-rapl:0", "package-0")
    gone = tree.zone("intel-rapl:1", "package-1")
    source = tree.source(descriptors=0)
    assert set(meters(source.read(0.0))) == {"package-0", "package-1"}
    (gone / "energy_uj").unlink()
    (tree.root / "sys/class/powercap/intel-rapl:1").unlink()
    reading = source.read(1.0)
    assert set(meters(reading)) == {"package-0"}
    assert [problem.reason for problem in reading.problems] == ["not_found"]
    assert source.read(2.0).problems == ()


def test_renumbered_zone_keeps_its_identity(tree: Tree) -> None:
    """Fault 9: after a reload the same package may be another zone number: its name decides."""
    tree.zone("intel-rapl:0", "package-0", 5_000_000)
    tree.zone("intel-rapl:1", "psys", 8_000_000)
    source = tree.source()
    before = meters(source.read(0.0))
    for path in (tree.root / "sys/class/powercap").iterdir():
        path.unlink()
    tree.zone("intel-rapl:2", "psys", 8_500_000)
    tree.zone("intel-rapl:3", "package-0", 5_250_000)
    after = meters(source.read(RESCAN_SECONDS))
    assert {id_: meter.joules - before[id_].joules for id_, meter in after.items()} == {
        "package-0": 0.25,
        "psys-0": 0.5,
    }


def test_dangling_link_is_skipped(tree: Tree) -> None:
    """Fault 10: Home Assistant OS lists zones that are not there."""
    tree.zone("intel-rapl:0", "package-0")
    (tree.root / "sys/class/powercap/intel-rapl:1").symlink_to("../../devices/virtual/powercap/nothing")
    reading = tree.source().read(0.0)
    assert set(meters(reading)) == {"package-0"}
    assert reading.problems == ()


def test_masked_tree_of_a_container_has_the_mount_as_fix(tree: Tree) -> None:
    """Docker and containerd mask /sys/devices/virtual/powercap: every link dangles."""
    tree.zone("intel-rapl:0", "package-0")
    masked = tree.root / "sys/devices/virtual/powercap"
    masked.rename(tree.root / "elsewhere")
    masked.mkdir()
    with pytest.raises(Unavailable) as caught:
        tree.source().read(0.0)
    assert caught.value.reason == "not_found"
    assert "--path.sysfs=/host/sys" in caught.value.fix


@pytest.mark.parametrize("with_class", [True, False])
def test_machine_without_rapl(tree: Tree, with_class: bool) -> None:
    """Fault 17: a VM has no zones: not found, and what takes over."""
    if with_class:
        (tree.root / "sys/class/powercap/intel-rapl").mkdir(parents=True)
    with pytest.raises(Unavailable) as caught:
        tree.source().read(0.0)
    assert caught.value.reason == "not_found"
    assert "modprobe -a intel_rapl_common intel_rapl_msr" in caught.value.fix
    assert "estimate" in caught.value.fix


def test_unreadable_counters_name_the_reason_and_the_command() -> None:
    """Fault 11: root-only since Linux 5.10 (CVE-2020-8694); the zones' names stay readable."""
    with public_folder() as folder:
        tree = Tree(folder)
        (tree.zone("intel-rapl:0", "package-0") / "energy_uj").chmod(0o000)
        source = tree.source()
        drop_privileges()
        with pytest.raises(Unavailable) as caught:
            source.read(0.0)
    assert caught.value.reason == "permission"
    assert "CVE-2020-8694" in caught.value.message
    assert f"chgrp GROUP {folder}/sys/class/powercap/intel-rapl*:*/energy_uj" in caught.value.fix
    assert "chmod g+r" in caught.value.fix


def test_one_unreadable_zone_is_a_lasting_problem() -> None:
    """Fault 11: the readable zone continues, and every reading has the reason why the other is missing."""
    with public_folder() as folder:
        tree = Tree(folder)
        tree.zone("intel-rapl:0", "package-0")
        (tree.zone("intel-rapl:1", "package-1") / "energy_uj").chmod(0o000)
        source = tree.source()
        drop_privileges()
        for now in (0.0, 1.0):
            reading = source.read(now)
            assert set(meters(reading)) == {"package-0"}
            assert [problem.reason for problem in reading.problems] == ["permission"]


def test_error_of_one_tick_is_retried(tree: Tree) -> None:
    """Fault 12: EIO (here a real one, from /proc/self/mem) is a problem of that tick only."""
    tree.zone("intel-rapl:0", "package-0")
    energy = tree.zone("intel-rapl:1", "package-1") / "energy_uj"
    source = tree.source(descriptors=0)
    source.read(0.0)
    energy.unlink()
    energy.symlink_to("/proc/self/mem")
    reading = source.read(1.0)
    assert set(meters(reading)) == {"package-0"}
    assert [problem.reason for problem in reading.problems] == ["driver"]
    energy.unlink()
    energy.write_text("3000000\n")
    reading = source.read(2.0)
    assert meters(reading)["package-1"].joules == 3.0
    assert reading.problems == ()


@pytest.mark.parametrize("text", ["", "abc\n", "-1\n", "18446744073709551615\n", "123\0", "1 2\n", "1.5\n"])
def test_garbage_is_rejected(tree: Tree, text: str) -> None:
    """Fault 13: no number is invented; the other zone is not lost."""
    (tree.zone("intel-rapl:0", "package-0") / "energy_uj").write_text(text)
    with pytest.raises(Unavailable) as caught:
        tree.source().read(0.0)
    assert caught.value.reason == "implausible"
    tree.zone("intel-rapl:1", "package-1")
    reading = tree.source().read(0.0)
    assert set(meters(reading)) == {"package-1"}
    assert [problem.reason for problem in reading.problems] == ["implausible"]


def test_new_zone_is_found_within_a_minute(tree: Tree) -> None:
    """Fault 8: a socket that comes back is seen at the next look, not before."""
    tree.zone("intel-rapl:0", "package-0")
    source = tree.source()
    source.read(0.0)
    tree.zone("intel-rapl:1", "package-1")
    assert set(meters(source.read(RESCAN_SECONDS - 1))) == {"package-0"}
    assert set(meters(source.read(RESCAN_SECONDS))) == {"package-0", "package-1"}


def test_source_comes_up_when_the_module_is_loaded_later(tree: Tree) -> None:
    """Fault 17: unavailable is not for ever."""
    source = tree.source()
    with pytest.raises(Unavailable):
        source.read(0.0)
    tree.zone("intel-rapl:0", "package-0")
    assert set(meters(source.read(1.0))) == {"package-0"}


def test_descriptors_are_given_back(tree: Tree) -> None:
    """Fault 60: neither looking again nor failing leaks a descriptor."""
    energy = tree.zone("intel-rapl:0", "package-0") / "energy_uj"
    tree.zone("intel-rapl:0:0", "core")
    host = tree.host(descriptors=10)
    source = RaplSource(host)
    for look in range(5):
        source.read(look * RESCAN_SECONDS)
        assert host.fds.left == 8
    energy.write_text("abc\n")
    (energy.parent / "intel-rapl:0:0/energy_uj").write_text("abc\n")
    with pytest.raises(Unavailable):
        source.read(1000.0)
    source.close()
    source.close()
    assert host.fds.left == 10
