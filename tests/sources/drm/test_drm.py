"""Use of AMD and Intel cards, read from written /proc and /sys trees: clients, ROCm, suspended and removed cards."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from exporter.host import FdBudget, Host
from exporter.records import GpuUse, Reading, Unavailable
from exporter.sampling.sampler import Sampler, SamplerOptions
from exporter.sources.drm.files import PASS_SECONDS, OpenFiles
from exporter.sources.drm.source import RESCAN_SECONDS, DrmSource
from exporter.sources.hwmon.source import HwmonSource
from exporter.workloads.namer import WorkloadNamer
from tests.support.gpu_uses import known
from tests.support.privileges import drop_privileges, public_folder, regain_privileges

HERTZ = os.sysconf("SC_CLK_TCK")
AMD, ARC = "0000:03:00.0", "0000:0a:00.0"


class Machine:
    """A machine with cards and processes that a test writes; its clock advances only on request."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.now = 1000.0
        (root / "proc").mkdir(parents=True)
        self.write("sys/devices/system/cpu/online", "0-3\n")
        self.process(2, "kthreadd", start=1)
        self.write("proc/2/comm", "kthreadd\n")

    def write(self, path: str, text: object) -> Path:
        file = self.root / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(f"{text}")
        return file

    def host(self, descriptors: int = 64) -> Host:
        return Host(f"{self.root}/proc", f"{self.root}/sys", clock=lambda: self.now, fds=FdBudget(descriptors))

    # --- cards ----------------------------------------------------------------------------------

    def card(self, number: int, driver: str, address: str, **files: object) -> Path:
        """A card with the nodes cardN and renderD(128+N), and files of its PCI device."""
        device = self.root / f"sys/devices/pci0000:00/{address}"
        device.mkdir(parents=True, exist_ok=True)
        (device / "uevent").write_text(f"DRIVER={driver}\nPCI_SLOT_NAME={address}\n")
        for name, value in files.items():
            (device / name).write_text(f"{value}\n")
        for node in (f"card{number}", f"renderD{128 + number}"):
            folder = self.root / f"sys/class/drm/{node}"
            folder.mkdir(parents=True)
            (folder / "device").symlink_to(f"../../../devices/pci0000:00/{address}")
        return device

    def meter(self, number: int, driver: str, address: str, **files: object) -> Path:
        """The card's hwmon chip."""
        folder = self.root / f"sys/class/hwmon/hwmon{number}"
        folder.mkdir(parents=True)
        (folder / "device").symlink_to(f"../../../devices/pci0000:00/{address}")
        for name, value in {"name": driver, **files}.items():
            (folder / name).write_text(f"{value}\n")
        return folder

    def sleep(self, address: str, status: str = "suspended") -> None:
        self.write(f"sys/devices/pci0000:00/{address}/power/runtime_status", f"{status}\n")

    # --- processes ------------------------------------------------------------------------------

    def process(self, pid: int, comm: str = "python3", *, start: float = 10.0, parent: int = 1) -> None:
        fields = ["S", parent, 1, 1, 0, -1, 0, *[0] * 9, 1, 0, 0, round(start * HERTZ), 0, 0]
        self.write(f"proc/{pid}/stat", f"{pid} ({comm}) {' '.join(map(str, fields))}\n")
        self.write(f"proc/{pid}/cgroup", "0::/\n")
        for folder in ("fd", "fdinfo"):
            (self.root / f"proc/{pid}/{folder}").mkdir(exist_ok=True)

    def open(self, pid: int, fd: int, target: str = "/dev/dri/renderD128") -> None:
        (self.root / f"proc/{pid}/fd/{fd}").symlink_to(target)

    def close(self, pid: int, fd: int) -> None:
        (self.root / f"proc/{pid}/fd/{fd}").unlink()
        (self.root / f"proc/{pid}/fdinfo/{fd}").unlink(missing_ok=True)

    def exit(self, pid: int) -> None:
        shutil.rmtree(self.root / f"proc/{pid}")

    def amd(self, pid: int, fd: int, client: int, *, address: str = AMD, vram: int = 2068, **engines: float) -> None:
        """A client's fdinfo as written by amdgpu; seconds by engine."""
        lines = [f"drm-engine-{name}:\t{round(seconds * 1e9)} ns" for name, seconds in engines.items()]
        head = f"drm-driver:\tamdgpu\ndrm-client-id:\t{client}\ndrm-pdev:\t{address}\ndrm-memory-vram:\t{vram} KiB"
        self.write(f"proc/{pid}/fdinfo/{fd}", "\n".join(["pos:\t0", "pasid:\t32784", head, *lines, ""]))

    def xe(self, pid: int, fd: int, client: int, cycles: int, clock: int) -> None:
        head = f"pos:\t0\ndrm-driver:\txe\ndrm-client-id:\t{client}\ndrm-pdev:\t{ARC}\ndrm-resident-vram0:\t8 MiB\n"
        self.write(f"proc/{pid}/fdinfo/{fd}", f"{head}drm-cycles-ccs:\t{cycles}\ndrm-total-cycles-ccs:\t{clock}\n")

    # --- ROCm -----------------------------------------------------------------------------------

    def node(self, number: int, gpu_id: int, location: int, units: int = 104) -> None:
        folder = f"sys/class/kfd/kfd/topology/nodes/{number}"
        self.write(f"{folder}/gpu_id", f"{gpu_id}\n")
        properties = f"simd_count {units * 4}\nsimd_per_cu 4\nlocation_id {location}\ndomain 0\n"
        self.write(f"{folder}/properties", properties)

    def computes(self, pid: int, gpu_id: int, occupied: int | None = None) -> None:
        folder = f"sys/class/kfd/kfd/proc/{pid}"
        self.write(f"{folder}/queues/{gpu_id}/gpuid", f"{gpu_id}\n")
        if occupied is not None:
            self.write(f"{folder}/stats_{gpu_id}/cu_occupancy", f"{occupied}\n")


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path / "m")


@pytest.fixture
def source(machine: Machine) -> Iterator[DrmSource]:
    source = DrmSource(machine.host())
    yield source
    source.close()


def tick(source: DrmSource, machine: Machine, seconds: float = 1.0) -> Reading:
    machine.now += seconds
    return source.read(machine.now)


def seconds(reading: Reading) -> dict[tuple[str, int | None], Any]:
    """Busy seconds by device and pid."""
    found = {(use.device, use.pid): use.seconds for use in reading.gpu_uses}
    assert len(found) == len(reading.gpu_uses), "one use for each process and device"
    return {key: pytest.approx(used) for key, used in found.items()}


def by_pid(reading: Reading) -> dict[int | None, Any]:
    return {pid: used for (_, pid), used in seconds(reading).items()}


# --- no card ---------------------------------------------------------------------------------------------


def test_machine_without_such_a_card_is_unavailable(machine: Machine) -> None:
    """Absence is normal: one message, and no descriptor stays open. It is not read again before the backoff ends."""
    machine.card(0, "ast", "0000:02:00.0")
    machine.card(1, "nvidia", "0000:41:00.0")
    machine.card(2, "virtio-pci", "0000:00:03.0")
    host = machine.host()
    with pytest.raises(Unavailable) as caught:
        DrmSource(host).read(machine.now)
    assert caught.value.reason == "not_found"
    assert "amdgpu, i915 or xe" in caught.value.message
    assert "nvml" in caught.value.fix
    assert host.fds.left == 64


def test_no_sysfs_at_all(tmp_path: Path) -> None:
    with pytest.raises(Unavailable) as caught:
        DrmSource(Host(f"{tmp_path}/proc", f"{tmp_path}/sys")).read(0.0)
    assert caught.value.reason == "not_found"


# --- clients ---------------------------------------------------------------------------------------------


def test_use_has_the_id_of_the_meter(machine: Machine, source: DrmSource) -> None:
    """The joules of hwmon and the seconds of fdinfo meet in the device's id, also where a card has its own number."""
    machine.card(0, "amdgpu", AMD, unique_id="D0A1B2C3D4E5F607")
    machine.meter(0, "amdgpu", AMD, power1_average=100_000_000)
    machine.card(1, "xe", ARC)
    machine.meter(1, "xe", ARC, energy2_input=1)
    machine.card(2, "i915", "0000:00:02.0")
    machine.meter(2, "i915", "0000:00:02.0", energy1_input=1)
    for pid, (address, client) in enumerate([(AMD, 1), (ARC, 1), ("0000:00:02.0", 1)], start=100):
        machine.process(pid)
        machine.open(pid, 5, f"/dev/dri/renderD{28 + pid}")
        machine.amd(pid, 5, client, address=address, gfx=1.0)
    metered = {meter.device.id for meter in HwmonSource(machine.host()).read(machine.now).meters}
    assert metered == {"GPU-d0a1b2c3d4e5f607", f"xe-{ARC}", "i915-0000:00:02.0"}
    assert {use.device for use in source.read(machine.now).gpu_uses} == metered


def test_processes_of_one_card(machine: Machine, source: DrmSource) -> None:
    machine.card(0, "amdgpu", AMD)
    for pid in (100, 101, 102):
        machine.process(pid, f"job{pid}")
        machine.open(pid, 5)
    machine.amd(100, 5, 7, gfx=10.0)
    machine.amd(101, 5, 8, gfx=5.0)
    machine.amd(102, 5, 9, vram=0)  # a monitor: has it open, did nothing, keeps nothing
    assert by_pid(source.read(machine.now)) == {100: 0.0, 101: 0.0}
    machine.amd(100, 5, 7, gfx=10.5)
    machine.amd(101, 5, 8, gfx=5.25)
    reading = tick(source, machine)
    assert seconds(reading) == {(f"amdgpu-{AMD}", 100): 0.5, (f"amdgpu-{AMD}", 101): 0.25}
    assert [(known(use).comm, use.hold) for use in reading.gpu_uses] == [("job100", 1.0), ("job101", 1.0)]
    assert by_pid(tick(source, machine)) == {100: 0.0, 101: 0.0}


def test_no_card_is_busy_for_more_than_a_second_each_second(machine: Machine, source: DrmSource) -> None:
    """Engines work side by side: one process draws, another one decodes; they share the card's one second."""
    machine.card(0, "amdgpu", AMD)
    for pid in (100, 101):
        machine.process(pid)
        machine.open(pid, 5)
    machine.amd(100, 5, 7, gfx=1.0)
    machine.amd(101, 5, 8, dec=1.0)
    source.read(machine.now)
    machine.amd(100, 5, 7, gfx=2.0)
    machine.amd(101, 5, 8, dec=1.5)
    assert by_pid(tick(source, machine)) == {100: 2 / 3, 101: 1 / 3}


def test_cycles_of_xe(machine: Machine, source: DrmSource) -> None:
    machine.card(0, "xe", ARC)
    machine.process(100)
    machine.open(100, 5)
    machine.xe(100, 5, 3, 0, 10**9)
    source.read(machine.now)
    machine.xe(100, 5, 3, 4_800_000, 10**9 + 19_200_000)
    assert seconds(tick(source, machine)) == {(f"xe-{ARC}", 100): 0.25}


def test_a_client_counts_once(machine: Machine, source: DrmSource) -> None:
    """Duplicated descriptors have the same numbers (drm-usage-stats.rst); two clients of a process add up."""
    machine.card(0, "amdgpu", AMD)
    machine.process(100)
    for fd, client in [(5, 7), (6, 7), (7, 7), (8, 9)]:
        machine.open(100, fd, "/dev/dri/card0")
        machine.amd(100, fd, client, gfx=1.0)
    source.read(machine.now)
    for fd, client in [(5, 7), (6, 7), (7, 7), (8, 9)]:
        machine.amd(100, fd, client, gfx=1.25)
    assert by_pid(tick(source, machine)) == {100: 0.5}


def test_the_same_number_on_two_cards_is_two_clients(machine: Machine, source: DrmSource) -> None:
    """Fault 30: a process on two cards is charged for each."""
    machine.card(0, "amdgpu", AMD)
    machine.card(1, "amdgpu", ARC)
    machine.process(100)
    machine.open(100, 5, "/dev/dri/renderD128")
    machine.open(100, 6, "/dev/dri/renderD129")
    for gfx in (1.0, 1.5):
        machine.amd(100, 5, 7, gfx=gfx)
        machine.amd(100, 6, 7, address=ARC, gfx=2 * gfx - 1)
        reading = tick(source, machine)
    assert seconds(reading) == {(f"amdgpu-{AMD}", 100): 0.5, (f"amdgpu-{ARC}", 100): 1.0}


@pytest.mark.parametrize(
    ("family", "owner"),
    [
        ({100: (1, 10.0), 101: (100, 20.0), 102: (100, 30.0)}, 100),  # data loaders inherit from the trainer
        ({100: (1, 10.0), 101: (50, 20.0)}, 101),  # logind opened it for the compositor
    ],
)
def test_a_shared_client_belongs_to_the_process_that_uses_it(
    machine: Machine, source: DrmSource, family: Mapping[int, tuple[int, float]], owner: int
) -> None:
    machine.card(0, "amdgpu", AMD)
    for gfx in (1.0, 1.5):
        for pid, (parent, start) in family.items():
            machine.process(pid, start=start, parent=parent)
            if gfx == 1.0:
                machine.open(pid, 5)
            machine.amd(pid, 5, 7, gfx=gfx)
        reading = tick(source, machine)
    assert by_pid(reading) == {owner: 0.5}


def test_a_shared_client_outlives_its_owner(machine: Machine, source: DrmSource) -> None:
    machine.card(0, "amdgpu", AMD)
    for pid, start in ((100, 10.0), (101, 20.0)):
        machine.process(pid, start=start)
        machine.open(pid, 5)
        machine.amd(pid, 5, 7, gfx=1.0)
    assert by_pid(source.read(machine.now)) == {101: 0.0}
    machine.exit(101)
    machine.amd(100, 5, 7, gfx=1.5)
    assert by_pid(tick(source, machine)) == {100: 0.5}


def test_another_client_behind_the_same_descriptor_inherits_nothing(machine: Machine, source: DrmSource) -> None:
    """A number that was closed and opened again between two reads: the new client begins with its own counter."""
    machine.card(0, "amdgpu", AMD)
    machine.process(100)
    machine.open(100, 5)
    machine.amd(100, 5, 7, gfx=1.0)
    source.read(machine.now)
    machine.amd(100, 5, 8, gfx=900.0)
    tick(source, machine)
    machine.amd(100, 5, 8, gfx=900.5)
    assert by_pid(tick(source, machine)) in ({100: 0.0}, {100: 0.5})
    machine.amd(100, 5, 8, gfx=901.0)
    assert by_pid(tick(source, machine)) == {100: 0.5}


def test_a_new_process_counts_from_its_start_and_an_old_one_from_now(machine: Machine, source: DrmSource) -> None:
    """Use before a client was first seen does not count, unless its process started since the last read."""
    machine.card(0, "amdgpu", AMD)
    source.read(machine.now)
    machine.process(100, start=machine.now + 0.5)
    machine.process(101, start=500.0)
    for pid in (100, 101):
        machine.open(pid, 5)
        machine.amd(pid, 5, pid, gfx=0.25)
    assert by_pid(tick(source, machine)) == {100: 0.25, 101: 0.0}


def test_what_an_ended_process_did_is_not_charged_to_the_others(machine: Machine, source: DrmSource) -> None:
    """Fault 35: its counter is gone with it, so it is taken to have gone on until half way."""
    machine.card(0, "amdgpu", AMD)
    for pid in (100, 101):
        machine.process(pid)
        machine.open(pid, 5)
        machine.amd(pid, 5, pid, gfx=1.0)
    source.read(machine.now)
    for pid in (100, 101):
        machine.amd(pid, 5, pid, gfx=1.4)
    assert by_pid(tick(source, machine)) == {100: 0.4, 101: 0.4}
    machine.exit(100)
    machine.amd(101, 5, 101, gfx=1.8)
    assert by_pid(tick(source, machine)) == {101: 0.4, None: 0.2}
    machine.exit(101)
    assert tick(source, machine).gpu_uses == ()  # nobody is left to be spared
    assert tick(source, machine).gpu_uses == ()


def test_a_process_that_ends_in_the_middle_of_a_read(machine: Machine, source: DrmSource) -> None:
    """Fault 38: its files vanish one by one; nothing is raised, nothing is left."""
    machine.card(0, "amdgpu", AMD)
    for pid in (100, 101, 102):
        machine.process(pid)
        machine.open(pid, 5)
        machine.amd(pid, 5, pid, gfx=1.0)
    source.read(machine.now)
    (machine.root / "proc/100/fdinfo/5").unlink()  # what we keep open goes with the process
    (machine.root / "proc/100/fdinfo/5").mkdir()
    shutil.rmtree(machine.root / "proc/101/fdinfo")
    (machine.root / "proc/102/stat").unlink()
    machine.amd(102, 5, 102, gfx=1.5)
    reading = tick(source, machine)
    assert 102 not in by_pid(reading)
    for pid in (100, 101, 102):
        machine.exit(pid)
    assert tick(source, machine).gpu_uses == ()


def test_a_pid_that_is_used_again_inherits_nothing(machine: Machine) -> None:
    """Fault 34."""
    machine.card(0, "amdgpu", AMD)
    machine.process(100, "old")
    machine.open(100, 5)
    machine.amd(100, 5, 7, gfx=900.0)
    source = DrmSource(machine.host(descriptors=0))
    source.read(machine.now)
    machine.exit(100)
    machine.process(100, "new", start=machine.now + 0.5)
    machine.open(100, 5)
    machine.amd(100, 5, 8, gfx=0.25)
    tick(source, machine)
    machine.amd(100, 5, 8, gfx=0.75)
    (use,) = tick(source, machine).gpu_uses
    assert (known(use).comm, known(use).key.start_ticks) == ("new", round(1000.5 * HERTZ))
    assert use.seconds <= 0.75


def test_a_quiet_client_is_read_less_often_and_loses_nothing(machine: Machine, source: DrmSource) -> None:
    """The driver walks all its buffers for each read, so work follows what is at work."""
    machine.card(0, "amdgpu", AMD)
    machine.process(100)
    machine.open(100, 5)
    machine.amd(100, 5, 7, gfx=1.0)
    for _ in range(12):
        tick(source, machine)
    machine.amd(100, 5, 7, gfx=1.5)
    found = [use.seconds for _ in range(6) for use in tick(source, machine).gpu_uses]
    assert sum(found) == pytest.approx(0.5)
    assert found[0] == 0.0


# --- cards -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", ["suspended", "suspending"])
def test_sleeping_card_is_left_asleep(machine: Machine, status: str) -> None:
    """xe wakes its card to report a client's cycles: nothing of it is opened while it is suspended."""
    machine.card(0, "xe", ARC)
    machine.process(100)
    machine.open(100, 5)
    machine.xe(100, 5, 3, 0, 10**9)
    machine.sleep(ARC, status)
    host = machine.host()
    source = DrmSource(host)
    source.read(machine.now)
    left = host.fds.left
    assert tick(source, machine).gpu_uses == ()
    assert host.fds.left == left
    machine.sleep(ARC, "active")
    assert by_pid(tick(source, machine)) == {100: 0.0}
    assert host.fds.left == left - 1
    machine.sleep(ARC, status)
    machine.xe(100, 5, 3, 9 * 10**9, 10 * 10**9)
    assert tick(source, machine).gpu_uses == ()


def test_card_that_comes_and_goes(machine: Machine, source: DrmSource) -> None:
    """Faults 8 and 32: found within a minute, forgotten within a minute; the other card goes on."""
    machine.card(0, "amdgpu", AMD)
    machine.process(100)
    machine.open(100, 5, "/dev/dri/renderD129")
    machine.xe(100, 5, 3, 0, 10**9)
    assert source.read(machine.now).gpu_uses == ()
    machine.card(1, "xe", ARC)
    assert by_pid(tick(source, machine, RESCAN_SECONDS)) == {100: 0.0}
    machine.xe(100, 5, 3, 9_600_000, 10**9 + 19_200_000)
    assert by_pid(tick(source, machine)) == {100: 0.5}
    for node in ("card1", "renderD129"):
        shutil.rmtree(machine.root / f"sys/class/drm/{node}")
    assert tick(source, machine, RESCAN_SECONDS).gpu_uses == ()
    for node in ("card0", "renderD128"):
        shutil.rmtree(machine.root / f"sys/class/drm/{node}")
    with pytest.raises(Unavailable):
        tick(source, machine, RESCAN_SECONDS)


def test_partitions_of_a_card_are_the_card(machine: Machine, source: DrmSource) -> None:
    """MI300 in CPX mode: each partition has a node of its own behind a platform device; fdinfo names the card."""
    machine.card(0, "amdgpu", AMD)
    partition = machine.root / "sys/class/drm/renderD160"
    partition.mkdir()
    (machine.root / "sys/devices/platform/amdgpu_xcp_1").mkdir(parents=True)
    (partition / "device").symlink_to("../../../devices/platform/amdgpu_xcp_1")
    machine.process(100)
    machine.open(100, 5, "/dev/dri/renderD160")
    machine.amd(100, 5, 7, gfx=1.0)
    source.read(machine.now)
    machine.amd(100, 5, 7, gfx=1.5)
    assert seconds(tick(source, machine)) == {(f"amdgpu-{AMD}", 100): 0.5}


def test_functions_of_one_slot_share_its_meter(machine: Machine, source: DrmSource) -> None:
    """A socket cut into two PCI functions: a process on the second is charged by the first one's meter."""
    slot = AMD.rpartition(".")[0]
    for number in (0, 1):
        machine.card(number, "amdgpu", f"{slot}.{number}")
        machine.process(100 + number)
        machine.open(100 + number, 5, f"/dev/dri/renderD{128 + number}")
    for gfx in (1.0, 2.0):
        machine.amd(100, 5, 7, address=f"{slot}.0", gfx=gfx)
        machine.amd(101, 5, 8, address=f"{slot}.1", gfx=gfx / 2)
        reading = tick(source, machine)
    assert seconds(reading) == {(f"amdgpu-{slot}.0", 100): 0.5, (f"amdgpu-{slot}.0", 101): 0.25}


def test_two_dies_with_one_meter(machine: Machine, source: DrmSource) -> None:
    """MI250: the first die's meter is both's, so a process on the second is charged by it too."""
    second = "0000:06:00.0"
    machine.card(0, "amdgpu", AMD, device="0x740c", unique_id="00000000000000a1")
    machine.card(1, "amdgpu", second, device="0x740c", unique_id="00000000000000a2")
    for pid in (100, 101):
        machine.process(pid)
        machine.open(pid, 5, f"/dev/dri/renderD{28 + pid}")
    machine.open(100, 6, "/dev/dri/renderD129")
    for gfx in (1.0, 2.0):
        machine.amd(100, 5, 7, gfx=gfx)
        machine.amd(100, 6, 7, address=second, gfx=gfx / 2)
        machine.amd(101, 5, 8, address=second, gfx=gfx / 2)
        reading = tick(source, machine)
    assert seconds(reading) == {("GPU-00000000000000a1", 100): 0.75, ("GPU-00000000000000a1", 101): 0.25}
    assert {use.pid: use.hold for use in reading.gpu_uses} == {100: 1.0, 101: 0.5}


# --- ROCm ------------------------------------------------------------------------------------------------


def rocm(machine: Machine, *pids: int, **files: object) -> None:
    """A card with compute node 51234, which these processes have open."""
    machine.card(0, "amdgpu", AMD, **files)
    machine.node(1, 51234, 0x300)
    machine.node(0, 0, 0)
    for pid in pids:
        machine.process(pid)
        machine.open(pid, 5)
        machine.open(pid, 6, "/dev/kfd")
        machine.amd(pid, 5, pid, vram=10**6)


def test_rocm_computes_without_fdinfo(machine: Machine, source: DrmSource) -> None:
    """amdgpu_top #49, amdsmi #130: fdinfo shows no compute. It is what the card did beyond what fdinfo explains."""
    rocm(machine, 100, gpu_busy_percent=80)
    machine.computes(100, 51234)
    machine.process(200, "kwin")
    machine.open(200, 5)
    machine.amd(200, 5, 200, gfx=1.0)
    source.read(machine.now)
    machine.amd(200, 5, 200, gfx=1.1)
    assert by_pid(tick(source, machine)) == {100: 0.7, 200: 0.1}


def test_rocm_without_a_busy_file_takes_the_rest_of_the_time(machine: Machine, source: DrmSource) -> None:
    """A held card counts as busy where its load is unknown, else a desktop would be charged for a training."""
    rocm(machine, 100)
    machine.computes(100, 51234)
    machine.process(200, "kwin")
    machine.open(200, 5)
    machine.amd(200, 5, 200, gfx=1.0)
    source.read(machine.now)
    machine.amd(200, 5, 200, gfx=1.1)
    assert by_pid(tick(source, machine)) == {100: 0.9, 200: 0.1}


def test_rocm_processes_share_by_occupied_units(machine: Machine, source: DrmSource) -> None:
    """And between two kernels as they did when last seen at work."""
    rocm(machine, 100, 101, gpu_busy_percent=100)
    machine.computes(100, 51234, 78)
    machine.computes(101, 51234, 26)
    source.read(machine.now)
    assert by_pid(tick(source, machine)) == {100: 0.75, 101: 0.25}
    machine.computes(100, 51234, 0)
    machine.computes(101, 51234, 0)
    assert by_pid(tick(source, machine)) == {100: 0.75, 101: 0.25}
    machine.computes(101, 51234, 104)
    assert by_pid(tick(source, machine)) == {100: 0.0, 101: 1.0}


def test_rocm_processes_that_cannot_be_distinguished(machine: Machine, source: DrmSource) -> None:
    """RDNA has no cu_occupancy: their use is unattributed, and never the desktop's; they do hold the card."""
    rocm(machine, 100, 101, gpu_busy_percent=60)
    machine.computes(100, 51234)
    machine.computes(101, 51234)
    machine.process(200, "kwin")
    machine.open(200, 5)
    machine.amd(200, 5, 200, gfx=1.0)
    source.read(machine.now)
    machine.amd(200, 5, 200, gfx=1.1)
    reading = tick(source, machine)
    assert by_pid(reading) == {100: 0.0, 101: 0.0, 200: 0.1, None: 0.5}
    assert {use.pid: use.hold for use in reading.gpu_uses} == {100: 1.0, 101: 1.0, 200: 1.0, None: 0.0}


@pytest.mark.parametrize("location", [0xA00, 0x10000A00, 0xA05])
def test_rocm_holds_only_the_cards_it_has_queues_on(machine: Machine, source: DrmSource, location: int) -> None:
    """Its runtime opens every card and keeps some memory on each; a location may number a partition as well."""
    rocm(machine, 100, gpu_busy_percent=0)
    machine.card(1, "amdgpu", ARC, gpu_busy_percent=50)
    machine.node(2, 61234, location)
    machine.open(100, 7, "/dev/dri/renderD129")
    machine.amd(100, 7, 100, address=ARC, vram=10**6)
    machine.computes(100, 61234)
    source.read(machine.now)
    assert seconds(tick(source, machine)) == {(f"amdgpu-{ARC}", 100): 0.5}


def test_rocm_pids_of_another_namespace(machine: Machine, source: DrmSource) -> None:
    """Fault 28: the kernel names pids of the host; where /proc is a container's, 100 is another process."""
    rocm(machine, gpu_busy_percent=50)
    machine.exit(2)
    machine.process(100, "postgres")
    machine.computes(100, 51234)
    source.read(machine.now)
    reading = tick(source, machine)
    assert by_pid(reading) == {None: 0.5}
    (problem,) = reading.problems
    assert "hostPID" in problem.fix


def test_rocm_process_of_the_same_namespace_without_kthreadd(machine: Machine, source: DrmSource) -> None:
    rocm(machine, 100, gpu_busy_percent=50)
    machine.exit(2)
    machine.computes(100, 51234)
    source.read(machine.now)
    reading = tick(source, machine)
    assert (by_pid(reading), reading.problems) == ({100: 0.5}, ())


# --- what cannot be seen ---------------------------------------------------------------------------------


def test_old_kernels_report_nothing(machine: Machine, source: DrmSource) -> None:
    machine.card(0, "amdgpu", AMD)
    machine.process(100)
    machine.open(100, 5)
    machine.write("proc/100/fdinfo/5", "pos:\t0\npdev:\t0000:03:00.0\npasid:\t32769\ngfx0:\t12.5%\n")
    reading = source.read(machine.now)
    assert reading.gpu_uses == ()
    (problem,) = reading.problems
    assert problem.reason == "driver"
    assert "5.19" in problem.fix


@pytest.mark.parametrize("hidden", ["fd", "fdinfo/5"])
def test_processes_that_may_not_be_looked_at(hidden: str) -> None:
    """Fault 48: without CAP_SYS_PTRACE others' files are hidden; what can be seen goes on."""
    with public_folder() as folder:
        machine = Machine(folder / "m")
        machine.card(0, "amdgpu", AMD)
        for pid in (99, 100, 101):
            machine.process(pid)
            machine.open(pid, 5)
            machine.amd(pid, 5, pid, gfx=1.0)
        paths = [machine.root / f"proc/{pid}/{hidden}" for pid in (99, 100)]
        for path in paths:
            path.chmod(0o000)
        drop_privileges()
        source = DrmSource(machine.host())
        reading = source.read(machine.now)
        assert by_pid(reading) == {101: 0.0}
        (problem,) = reading.problems
        assert problem.reason == "permission"
        assert "SYS_PTRACE" in problem.fix
        regain_privileges()
        for path in paths:
            path.chmod(0o755)
        machine.exit(99)
        paths[1].chmod(0o000)
        drop_privileges()
        machine.now += 1
        assert source.read(machine.now).problems == (problem,), "one log line, however many they are"
        regain_privileges()
        paths[1].chmod(0o755)


# --- what it costs ---------------------------------------------------------------------------------------


def test_a_look_takes_a_bounded_number_of_files(machine: Machine) -> None:
    """Fault 36: ten thousand descriptors are looked through in parts, new processes always first."""
    files = OpenFiles(machine.host())
    files.refresh(0.0)
    machine.process(100)
    for fd in range(2500):
        machine.open(100, fd, "/dev/dri/renderD128" if fd % 100 == 0 else "/dev/null")
    files.refresh(1.0)
    assert 0 < len(files.opened[100]) <= 25, "at most two hundred links at once, for ten seconds"
    now = 1.0 + PASS_SECONDS
    counts = []
    for _ in range(5):
        files.refresh(now)
        counts.append(len(files.opened[100]))
        now += 1.0
    assert counts[-1] == 25
    assert counts[0] < 25
    machine.process(101, start=1.0)
    machine.open(101, 3)
    files.refresh(now)
    assert files.opened[101] == {"3": "renderD128"}
    assert not files.late


def test_a_card_opened_late_is_found_in_the_next_pass(machine: Machine) -> None:
    machine.process(100)
    files = OpenFiles(machine.host())
    files.refresh(0.0)
    machine.open(100, 5)
    files.refresh(1.0)
    assert 100 not in files.opened
    files.refresh(PASS_SECONDS)
    assert files.opened == {100: {"5": "renderD128"}}
    machine.close(100, 5)
    files.refresh(2 * PASS_SECONDS)
    assert files.opened == {}


def test_a_pass_that_never_ends_is_a_problem(machine: Machine) -> None:
    machine.process(100)
    for fd in range(22_000):
        os.symlink("/dev/null", machine.root / f"proc/100/fd/{fd}")
    files = OpenFiles(machine.host())
    files.refresh(0.0)
    assert not files.late
    files.refresh(61.0)
    assert files.late


def test_descriptors_are_given_back(machine: Machine) -> None:
    """Fault 60: neither coming and going nor looking again leaks one, and none is needed."""
    host = machine.host(descriptors=40)
    machine.card(0, "amdgpu", AMD, gpu_busy_percent=5)
    machine.sleep(AMD, "active")
    source = DrmSource(host)
    source.read(machine.now)
    without = host.fds.left
    for round_ in range(4):
        for pid in (100, 101):
            machine.process(pid, start=machine.now)
            machine.open(pid, 5)
            machine.amd(pid, 5, 10 * round_ + pid, gfx=1.0)
        tick(source, machine, RESCAN_SECONDS)
        assert host.fds.left == without - 2
        for pid in (100, 101):
            machine.exit(pid)
        tick(source, machine)
        assert host.fds.left == without
    source.close()
    assert host.fds.left == 40


# --- the books -------------------------------------------------------------------------------------------

STEP = st.tuples(
    st.dictionaries(st.integers(100, 103), st.floats(0, 1.5), max_size=4),  # who works, seconds
    st.sets(st.integers(100, 103), max_size=2),  # who exits afterwards
    st.floats(20, 300),  # watts
    st.integers(0, 100),  # busy percent
    st.dictionaries(st.integers(100, 103), st.integers(0, 104), max_size=2),  # who computes, units
)


@settings(max_examples=40, deadline=None)
@given(st.lists(STEP, min_size=2, max_size=8))
def test_every_joule_of_the_card_is_attributed_once(
    steps: list[tuple[dict[int, float], set[int], float, int, dict[int, int]]],
) -> None:
    """Whatever processes do, Σ workloads + unattributed = what the card's meter reads."""
    with tempfile.TemporaryDirectory() as folder:
        machine = Machine(Path(folder) / "m")
        machine.card(0, "amdgpu", AMD)
        machine.node(1, 51234, 0x300)
        machine.meter(0, "amdgpu", AMD, power1_average=100_000_000)
        host = machine.host()
        options = SamplerOptions(source_timeout_seconds=10.0, interval_seconds=10.0)
        sampler = Sampler([HwmonSource(host), DrmSource(host)], WorkloadNamer(), host, options)
        done: dict[int, float] = {}
        watts, joules = 100.0, 0.0
        sampler.tick()
        for work, exits, level, percent, units in steps:
            machine.now += 1.0
            for pid in work.keys() | units.keys():
                if not (machine.root / f"proc/{pid}").exists():
                    machine.process(pid, start=machine.now - 0.5)
                    machine.open(pid, 5)
                done[pid] = done.get(pid, 0.0) + work.get(pid, 0.0)
                machine.amd(pid, 5, pid, gfx=done[pid])
            for pid, occupied in units.items():
                machine.computes(pid, 51234, occupied)
            machine.write(f"sys/devices/pci0000:00/{AMD}/gpu_busy_percent", percent)
            machine.write("sys/class/hwmon/hwmon0/power1_average", round(level * 1e6))
            joules += (watts + round(level * 1e6) / 1e6) / 2
            watts = round(level * 1e6) / 1e6
            snapshot = sampler.tick()
            assert snapshot.energy.conservation_error_ratio <= 1e-9
            for pid in exits & done.keys():
                shutil.rmtree(machine.root / f"proc/{pid}", ignore_errors=True)
                shutil.rmtree(machine.root / f"sys/class/kfd/kfd/proc/{pid}", ignore_errors=True)
                del done[pid]
        sampler.close()
        (card,) = snapshot.energy.devices
        assert card.joules == pytest.approx(joules)
        rows = (*snapshot.energy.containers, *snapshot.energy.processes)
        assert all(value >= 0 for row in rows for value in (*row.joules, *row.watts, *row.ratios))
        charged = sum(sum(row.joules) for row in snapshot.energy.containers)
        lost = sum(value for component, _, value in snapshot.energy.unattributed if component == "gpu")
        assert charged + lost == pytest.approx(joules)


@settings(max_examples=60, deadline=None)
@given(st.lists(STEP, min_size=1, max_size=6))
def test_uses_are_never_negative_and_fit_into_the_card(
    steps: list[tuple[dict[int, float], set[int], float, int, dict[int, int]]],
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        machine = Machine(Path(folder) / "m")
        machine.card(0, "amdgpu", AMD, gpu_busy_percent=0)
        machine.node(1, 51234, 0x300)
        source = DrmSource(machine.host(descriptors=3))
        source.read(machine.now)
        for work, exits, elapsed, percent, units in steps:
            for pid, used in work.items():
                machine.process(pid, start=machine.now)
                with contextlib.suppress(FileExistsError):
                    machine.open(pid, 5)
                machine.amd(pid, 5, pid, gfx=used * 100, dec=used * 50)
            for pid, occupied in units.items():
                machine.computes(pid, 51234, occupied)
            machine.write(f"sys/devices/pci0000:00/{AMD}/gpu_busy_percent", percent)
            uses: tuple[GpuUse, ...] = tick(source, machine, elapsed / 100).gpu_uses
            assert all(use.seconds >= 0 and use.hold >= 0 for use in uses)
            assert sum(use.seconds for use in uses) <= elapsed / 100 + 1e-9
            for pid in exits:
                shutil.rmtree(machine.root / f"proc/{pid}", ignore_errors=True)
        source.close()
