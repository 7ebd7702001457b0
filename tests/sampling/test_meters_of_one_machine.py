"""Public reports of meters that repeat, miss or exceed each other, each with two more of its kind, end to end."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.written_node import AMD, INTEL, WrittenNode


@pytest.fixture
def amd(tmp_path: Path) -> WrittenNode:
    return WrittenNode(tmp_path, cpus=16, cpuinfo=AMD)


@pytest.fixture
def intel(tmp_path: Path) -> WrittenNode:
    return WrittenNode(tmp_path, cpus=8)


# --- one register behind several zones or drivers


def test_dies_of_amd_that_mirror_one_register_count_once(amd: WrittenNode) -> None:
    """mlco2/codecarbon#1274, #1379: each die's zone repeats the socket's counter; its core zone is one core's."""
    for die in (0, 1):
        amd.zone(f"intel-rapl:{die}", f"package-0-die-{die}")
        amd.zone(f"intel-rapl:{die}:0", "core")
    played = amd.play(lambda dt: amd.uses(dt, zone0=68, zone1=68, zone0_0=2, zone1_0=3), 10)
    assert played.node_watts == {"cpu": pytest.approx(68.0)}
    assert played.device("package-0-die-0").device.capacity == 16.0
    core = played.device("core-0-die-1")
    assert (core.device.name, core.device.within, core.utilization_ratio, core.idle_watts) == (
        "one core of the package",
        "package-0-die-1",
        None,
        None,
    )


def test_dies_that_show_one_register_count_once_whatever_the_vendor(intel: WrittenNode) -> None:
    for die in (0, 1):
        intel.zone(f"intel-rapl:{die}", f"package-0-die-{die}")
    played = intel.play(lambda dt: intel.uses(dt, zone0=68, zone1=68), 10)
    assert played.node_joules == {"cpu": pytest.approx(680.0)}


def test_dies_with_registers_of_their_own_are_added(intel: WrittenNode) -> None:
    intel.zone("intel-rapl:0", "package-0-die-0", 5000.0)
    intel.zone("intel-rapl:1", "package-0-die-1", 5120.0)
    played = intel.play(lambda dt: intel.uses(dt, zone0=68, zone1=70), 10)
    assert played.node_joules == {"cpu": pytest.approx(1380.0)}


def test_a_zone_of_the_same_name_on_the_same_register_counts_once(intel: WrittenNode) -> None:
    """A second interface (TPMI beside MSR) registers the package again."""
    intel.zone("intel-rapl:0", "package-0")
    intel.zone("intel-rapl:1", "package-0")
    intel.zone("intel-rapl-tpmi:0", "package-0")
    played = intel.play(lambda dt: intel.uses(dt, zone0=68, zone1=68), 10)
    assert played.node_joules == {"cpu": pytest.approx(680.0)}


def test_amds_core_zone_is_no_cpu_meter_even_without_its_package(amd: WrittenNode) -> None:
    amd.zone("intel-rapl:0", "core")
    played = amd.play(lambda dt: amd.uses(dt, zone0=2), 10)
    assert "cpu" not in played.node_watts


def test_a_driver_on_the_register_of_the_dies_counts_once(amd: WrittenNode) -> None:
    """The README of amd/amd_energy: Esocket0 is the register that RAPL's zones of both dies show."""
    for die in (0, 1):
        amd.zone(f"intel-rapl:{die}", f"package-0-die-{die}")
    base = amd.chip(0, "amd_energy", energy17_label="Esocket0")
    amd.joules[f"{base}/energy17_input"] = 5.0

    def step(dt: float) -> None:
        amd.uses(dt, zone0=68, zone1=68)
        amd.joules[f"{base}/energy17_input"] += 68 * dt

    played = amd.play(step, 10)
    assert played.node_watts == {"cpu": pytest.approx(68.0)}
    assert played.device("socket-0").device.within == "package-0-die-0"


# --- a platform below its parts


def test_a_broken_psys_matters_not_beside_the_meter_of_the_node(tmp_path: Path) -> None:
    """sustainable-computing-io/kepler#1674, #1466: psys 0.006 and 0.242 W beside packages of 99 and 95 W."""
    node = WrittenNode(tmp_path, cpus=16, sockets=2)
    for zone, name in enumerate(("package-0", "package-1", "psys", "psys-1")):
        node.zone(f"intel-rapl:{zone}", name)
    base = node.chip(0, "power_meter", power1_average_interval=1000)
    node.watts[f"{base}/power1_average"] = 380.0
    played = node.play(lambda dt: node.uses(dt, zone0=99, zone1=95, zone2=0.006, zone3=0.242), 70)
    assert played.node_watts == {"cpu": pytest.approx(194.0), "other": pytest.approx(186.0)}
    assert played.device("psys-0").watts == pytest.approx(0.006, abs=0.001)


def test_a_platform_below_its_parts_is_shown_and_the_next_one_is_used(tmp_path: Path) -> None:
    node = WrittenNode(tmp_path, cpus=16, sockets=2)
    for zone, name in enumerate(("package-0", "package-1", "psys")):
        node.zone(f"intel-rapl:{zone}", name)
    base = node.chip(0, "power_meter", power1_average_interval=1000)
    node.watts[f"{base}/power1_average"] = 38.0
    played = node.play(lambda dt: node.uses(dt, zone0=99, zone1=95, zone2=380), 70)
    assert played.node_watts == {"cpu": pytest.approx(194.0), "other": pytest.approx(186.0)}
    assert played.device("platform").watts == pytest.approx(38.0)
    assert played.problem("hwmon")[0] == "implausible"
    assert "platform" in played.problem("hwmon")[1]


def test_without_another_platform_there_is_no_other_at_all(intel: WrittenNode) -> None:
    intel.zone("intel-rapl:0", "package-0")
    intel.zone("intel-rapl:1", "psys")
    played = intel.play(lambda dt: intel.uses(dt, zone0=99, zone1=0.0), 70)
    assert played.node_watts == {"cpu": pytest.approx(99.0)}
    assert played.problem("rapl")[0] == "implausible"


def test_a_platform_that_recovers_is_used_again(intel: WrittenNode) -> None:
    intel.zone("intel-rapl:0", "package-0")
    intel.zone("intel-rapl:1", "psys")
    began = intel.now

    def step(dt: float) -> None:
        intel.uses(dt, zone0=99, zone1=1 if intel.now - began < 100 else 150)

    played = intel.play(step, 200)
    assert played.node_watts["other"] == pytest.approx(51.0)
    assert played.node_joules["other"] == pytest.approx(51 * 100, rel=0.4)
    assert played.problem("rapl")[0] is None


@pytest.mark.parametrize("silent_watts", [0.0, 150.0])
def test_a_platform_silent_for_long_leaves_no_debt(intel: WrittenNode, silent_watts: float) -> None:
    """hubblo-org/windows-rapl-driver#7, kepler#1466, #471: 0 W, or less than its parts, for twenty minutes."""
    intel.zone("intel-rapl:0", "package-0")
    base = intel.chip(0, "power_meter", power1_average_interval=1000)
    began = intel.now

    def step(dt: float) -> None:
        intel.uses(dt, zone0=200)
        intel.watts[f"{base}/power1_average"] = silent_watts if intel.now - began <= 1200 else 400.0

    intel.watts[f"{base}/power1_average"] = silent_watts
    played = intel.play(step, 1800)
    assert played.node_joules["other"] == pytest.approx(600 * 200, rel=0.01 if not silent_watts else 0.1)


# --- a CPU meter under another name


def test_ampere_altras_cpu_power_is_the_cpu(tmp_path: Path) -> None:
    """kepler#485, #2062, AmpereComputing/ampere-lts-kernel#186: "CPU power" of apm_xgene, "IO power" beside it."""
    node = WrittenNode(tmp_path, cpus=80, cpuinfo="processor\t: 0\nCPU implementer\t: 0x41\nCPU part\t: 0xd0c\n\n")
    base = node.chip(0, "apm_xgene", power1_label="CPU power", power2_label="IO power")
    node.watts = {f"{base}/power1_input": 22.04, f"{base}/power2_input": 31.9}
    played = node.play(lambda _: None, 10)
    assert played.node_watts == {"cpu": pytest.approx(22.04)}
    assert played.device("apm_xgene-CPU_power").device.quality == "measured"


def test_power9_counts_its_chips_within_the_system(tmp_path: Path) -> None:
    node = WrittenNode(tmp_path, cpus=8, sockets=2, cpuinfo="processor\t: 0\ncpu\t\t: POWER9\n\n")
    labels = {"System": 400.0, "Chip 0": 98.0, "Chip 0 Vdd": 60.0, "Chip 1": 90.0}
    for number, (label, watts) in enumerate(labels.items(), 1):
        base = node.chip(0, "ibmpowernv", **{f"power{number}_label": label})
        node.watts[f"{base}/power{number}_input"] = watts
    played = node.play(lambda _: None, 10)
    assert played.node_watts == {"cpu": pytest.approx(188.0), "other": pytest.approx(212.0)}
    assert played.device("ibmpowernv-Chip_1").device.capacity == 4.0


@pytest.mark.parametrize("nodes", ["listed", "not listed"])
def test_the_cards_of_a_server_apu_include_its_packages(tmp_path: Path, nodes: str) -> None:
    """MI300A: the kernel says of amdgpu's power that on APUs it includes the CPU. Sockets are found by NUMA node."""
    node = WrittenNode(tmp_path, cpus=8, sockets=4, cpuinfo=AMD)
    for socket in range(4):
        node.zone(f"intel-rapl:{socket}", f"package-{socket}")
        base = apu(node, socket, numa_node=socket if nodes == "not listed" else 3 - socket)
        node.watts[f"{base}/power1_input"] = 350.0
        if nodes == "listed":
            node.text(f"sys/devices/system/node/node{3 - socket}/cpulist", f"{2 * socket}-{2 * socket + 1}")
    played = node.play(lambda dt: node.uses(dt, zone0=100, zone1=100, zone2=100, zone3=100), 10)
    assert played.node_watts == {"gpu": pytest.approx(1400.0)}
    assert {played.device(f"package-{n}").device.within for n in range(4)} == {
        f"GPU-00000000000000a{n}" for n in range(4)
    }
    assert played.device("package-2").device.within == "GPU-00000000000000a2"


def apu(node: WrittenNode, number: int, product: str = "0x74a0", **device: object) -> str:
    base = node.chip(number, "amdgpu", power1_label="PPT", power1_cap=550_000_000)
    for file, value in {"device": product, "unique_id": f"00000000000000a{number}", **device}.items():
        node.text(f"{base}/device/{file}", value)
    return base


def test_a_card_of_the_same_generation_that_is_no_apu_is_added(tmp_path: Path) -> None:
    """MI300X beside EPYC."""
    node = WrittenNode(tmp_path, cpus=8, cpuinfo=AMD)
    node.zone("intel-rapl:0", "package-0")
    node.watts[f"{apu(node, 0, '0x74a1', numa_node=0)}/power1_input"] = 700.0
    played = node.play(lambda dt: node.uses(dt, zone0=200), 10)
    assert played.node_watts == {"cpu": pytest.approx(200.0), "gpu": pytest.approx(700.0)}


def test_a_server_apu_whose_card_has_no_meter_has_its_package(tmp_path: Path) -> None:
    """A container that sees the card and not its power; one NUMA node whose number is not known."""
    node = WrittenNode(tmp_path, cpus=8, cpuinfo=AMD)
    node.zone("intel-rapl:0", "package-0")
    apu(node, 0, numa_node=-1)
    played = node.play(lambda dt: node.uses(dt, zone0=100), 10)
    assert played.node_watts == {"cpu": pytest.approx(100.0)}


@pytest.mark.parametrize("ids", ["the same", "different", "none"])
def test_eight_functions_of_one_socket_count_once(tmp_path: Path, ids: str) -> None:
    """MI300X cut into eight PCI functions, each of which reports the socket's power."""
    node = WrittenNode(tmp_path, cpus=8, cpuinfo=AMD)
    for function in range(8):
        folder = f"sys/devices/pci0000:00/0000:05:00.{function}"
        unique = {"the same": "00000000000000a0", "different": f"00000000000000a{function}", "none": "0"}[ids]
        node.text(f"{folder}/unique_id", unique)
        base = node.chip(function, "amdgpu", power1_label="PPT")
        (tmp_path / base / "device").symlink_to(f"../../../../{folder}")
        node.watts[f"{base}/power1_input"] = 700.0
    played = node.play(lambda _: None, 10)
    assert played.node_joules["gpu"] == pytest.approx(7000.0)
    gpus = [row.device for row in played.snapshot.energy.devices if row.device.component == "gpu"]
    assert len(gpus) == 8
    assert sum(device.within is None for device in gpus) == 1


def test_two_drivers_that_measure_the_processor_count_once(tmp_path: Path) -> None:
    node = WrittenNode(tmp_path, cpuinfo=AMD)
    node.watts[f"{node.chip(0, 'fam15h_power', power1_crit=95000000)}/power1_input"] = 60.0
    node.watts[f"{node.chip(1, 'board_ec', power1_label='CPU power')}/power1_input"] = 61.0
    played = node.play(lambda _: None, 10)
    assert played.node_watts == {"cpu": pytest.approx(60.0)}


def test_the_operator_says_what_a_sensor_measures(tmp_path: Path) -> None:
    node = WrittenNode(tmp_path)
    node.components = {"board_ec/VIN7": "cpu", "board_ec/power2": "platform"}
    base = node.chip(0, "board_ec", power1_label="VIN7")
    node.watts = {f"{base}/power1_input": 40.0, f"{base}/power2_input": 90.0}
    played = node.play(lambda _: None, 10)
    assert played.node_watts == {"cpu": pytest.approx(40.0), "other": pytest.approx(50.0)}


def test_a_supplys_rail_is_no_cpu_meter(tmp_path: Path) -> None:
    node = WrittenNode(tmp_path)
    node.watts[f"{node.chip(0, 'corsairpsu', power1_label='CPU power')}/power1_input"] = 40.0
    played = node.play(lambda _: None, 10)
    assert played.device("cpu-estimate").device.quality == "estimated"


# --- scope of meter and users


def _neighbours(node: WrittenNode, seconds: float) -> None:
    """60 W idle and 200 W while the neighbours use 31 of 32 CPUs, every other minute; nginx uses 0.1 CPU."""
    busy = (node.now - 5000.0) % 120 >= 60
    node.uses(seconds, zone0=200.0 if busy else 60.0)
    node.used["/system.slice/nginx.service"] += 0.1 * seconds
    for cpu in node.cpu_busy:
        node.cpu_busy[cpu] += (31.0 if busy else 0.2) / 32 * seconds


@pytest.fixture
def tenant(tmp_path: Path) -> WrittenNode:
    node = WrittenNode(tmp_path, cpus=32)
    node.namespaced = True
    node.zone("intel-rapl:0", "package-0")
    node.used |= {"/system.slice": 0.0, "/system.slice/nginx.service": 1.0}
    return node


def test_a_container_that_sees_the_machines_meter_owes_its_own_part(tenant: WrittenNode) -> None:
    """henrygd/beszel#2332, #176: in an LXC container, meter and /proc/stat are the machine's, the groups are not."""
    played = tenant.play(lambda dt: _neighbours(tenant, dt), 600)
    assert played.container("nginx.service") < 300.0
    assert played.unattributed("unknown") == pytest.approx(42_000, rel=0.05)
    assert played.problem("cgroups")[0] == "not_found"
    assert played.device("package-0").idle_watts == pytest.approx(60.0, rel=0.05)


def test_where_proc_stat_is_the_containers_too_nothing_is_divided(tenant: WrittenNode) -> None:
    tenant.text("proc/self/mounts", f"lxcfs {tenant.root}/proc/stat fuse.lxcfs rw 0 0")
    played = tenant.play(lambda dt: _neighbours(tenant, dt), 120)
    assert played.container("nginx.service") == 0.0
    assert played.unattributed("unknown") == pytest.approx(played.node_joules["cpu"])
    assert "only our own subtree" in played.problem("cgroups")[1]
    assert played.device("package-0").utilization_ratio is None


def test_a_guest_that_sees_the_hosts_meter_is_charged_with_nothing(tmp_path: Path) -> None:
    node = WrittenNode(tmp_path, cpus=32, cpuinfo=INTEL.format("hypervisor"))
    node.zone("intel-rapl:0", "package-0")
    node.used |= {"/system.slice": 0.0, "/system.slice/nginx.service": 1.0}
    played = node.play(lambda dt: _neighbours(node, dt), 60)
    assert played.container("nginx.service") == 0.0
    assert "virtual machine" in played.problem("cgroups")[1]


def test_a_guest_with_a_meter_of_its_own_divides_it_if_told_so(tmp_path: Path) -> None:
    node = WrittenNode(tmp_path, cpus=32, cpuinfo=INTEL.format("hypervisor"))
    node.zone("intel-rapl:0", "package-0")
    node.used |= {"/nginx.service": 1.0}

    def step(dt: float) -> None:
        node.used["/nginx.service"] += dt
        node.uses(dt, zone0=50.0)

    played = node.play(step, 60, whole=True)
    assert played.container("nginx.service") > 0.0
    total = played.container("nginx.service") + played.unattributed("idle")
    assert total == pytest.approx(played.node_joules["cpu"])


def test_of_two_lines_in_proc_stat_the_true_one_counts(tmp_path: Path) -> None:
    """lxc/lxcfs#406: two "cpu" lines, the first all zeros."""
    node = WrittenNode(tmp_path)
    node.first_lines = ["cpu  0 0 0 0 0 0 0 0 0 0"]
    node.used |= {"/a.service": 1.0}

    def step(dt: float) -> None:
        node.used["/a.service"] += dt
        node.cpu_busy[0] += dt

    played = node.play(step, 40)
    assert played.container("a.service") == pytest.approx(2.99 * 40, rel=0.05)


def test_busy_times_that_contradict_each_other_for_long_are_a_problem(intel: WrittenNode) -> None:
    intel.zone("intel-rapl:0", "package-0")
    intel.used |= {"/a.service": 1.0}

    def step(dt: float) -> None:
        intel.used["/a.service"] += dt  # and /proc/stat stands still

    assert intel.play(step, 90).problem("cgroups")[0] == "implausible"


# --- sockets


@pytest.mark.parametrize("first", [8, 12])
def test_cpus_that_come_online_later_belong_to_their_socket(tmp_path: Path, first: int) -> None:
    """prometheus/procfs#84, node_exporter#873, #2604: part or all of the second socket comes online after 30 s."""
    node = WrittenNode(tmp_path, cpus=16, sockets=2)
    node.text("sys/devices/system/cpu/online", f"0-{first - 1}")
    node.zone("intel-rapl:0", "package-0")
    node.zone("intel-rapl:1", "package-1")
    late = {cpu: node.cpu_busy.pop(cpu) for cpu in range(first, 16)}

    def step(dt: float) -> None:
        node.uses(dt, zone0=40, zone1=40)
        if late and node.now > 5030:
            node.cpu_busy.update(late)
            late.clear()
            node.text("sys/devices/system/cpu/online", "0-15")
        for cpu in range(8, 16) if not late else ():
            node.cpu_busy[cpu] += dt

    played = node.play(step, 200)
    assert played.device("package-1").utilization_ratio == pytest.approx(1.0)
    assert played.device("package-0").utilization_ratio == 0.0


# --- a node that is always busy


@pytest.mark.parametrize("idle_watts", [40.0, 55.0, 65.0])
@pytest.mark.parametrize("cpuinfo", [INTEL.format(""), AMD, ""])
def test_active_joules_of_a_node_saturated_from_the_start(tmp_path: Path, idle_watts: float, cpuinfo: str) -> None:
    """Before anything is learned: 100 W of work on packages that idle at 29, 35 and 39 % of their power."""
    node = WrittenNode(tmp_path, cpuinfo=cpuinfo)
    node.zone("intel-rapl:0", "package-0")
    node.used |= {"/train.service": 1.0}

    def step(dt: float) -> None:
        node.uses(dt, zone0=idle_watts + 100)
        node.used["/train.service"] += 8 * dt
        for cpu in node.cpu_busy:
            node.cpu_busy[cpu] += dt

    played = node.play(step, 60)
    row = played.device("package-0")
    assert played.container("train.service") == pytest.approx(100 * 60, rel=0.15)
    assert row.idle_method == "prior"
    assert row.idle_low_watts is not None
    assert row.idle_high_watts is not None
    assert row.idle_low_watts < idle_watts < row.idle_high_watts
