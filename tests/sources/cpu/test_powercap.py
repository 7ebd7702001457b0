"""Powercap zones other than RAPL's: Arm's SCMI has watts only, names by its firmware, and zones within zones."""

from __future__ import annotations

from pathlib import Path

import pytest

from exporter.records import EnergyReading, PowerReading, Unavailable
from exporter.sources.cpu.powercap import PowercapSource
from tests.support.written_node import WrittenNode

ROOT = "sys/class/powercap"
ARM = "processor\t: 0\nCPU implementer\t: 0x41\nCPU part\t: 0xd0c\n\n"


@pytest.fixture
def node(tmp_path: Path) -> WrittenNode:
    return WrittenNode(tmp_path, cpus=80, cpuinfo=ARM)


def scmi(node: WrittenNode, zone: str, name: str, watts: float) -> str:
    node.text(f"{ROOT}/{zone}/name", name)
    node.text(f"{ROOT}/{zone}/max_power_range_uw", 2**32 - 1)
    node.watts[f"{ROOT}/{zone}/power_uw"] = watts
    return f"{ROOT}/{zone}/power_uw"


def test_a_zone_whose_name_says_so_is_the_cpu(node: WrittenNode) -> None:
    scmi(node, "arm-scmi:0", "SOC", 140.0)
    scmi(node, "arm-scmi:0:0", "CPU power", 95.0)
    scmi(node, "arm-scmi:0:1", "IO power", 20.0)
    played = node.play(lambda _: None, 10)
    assert played.node_watts == {"cpu": pytest.approx(95.0)}
    rows = {row.device.id: row.device for row in played.snapshot.energy.devices}
    assert {id_: (one.component, one.within, one.method) for id_, one in rows.items()} == {
        "powercap-SOC": ("platform", "node", "power_integrated"),
        "powercap-CPU_power": ("cpu", "powercap-SOC", "power_integrated"),
        "powercap-IO_power": ("platform", "powercap-SOC", "power_integrated"),
    }


def test_the_operator_says_what_a_zone_is(node: WrittenNode) -> None:
    """A CPU zone within the machine's, both by the operator."""
    scmi(node, "arm-scmi:0", "SYS", 300.0)
    scmi(node, "arm-scmi:0:0", "PKG", 120.0)
    node.components = {"arm-scmi/SYS": "platform", "arm-scmi/PKG": "cpu"}
    played = node.play(lambda _: None, 10)
    assert played.node_watts == {"cpu": pytest.approx(120.0), "other": pytest.approx(180.0)}


def test_a_cpu_zone_beside_hwmons_counts_once(node: WrittenNode) -> None:
    """Altra's regulators by hwmon; the zone measures the same socket and is shown."""
    base = node.chip(0, "apm_xgene", power1_label="CPU power", power2_label="IO power")
    node.watts |= {f"{base}/power1_input": 92.0, f"{base}/power2_input": 30.0}
    scmi(node, "arm-scmi:0", "CPU power", 95.0)
    played = node.play(lambda _: None, 10)
    assert played.node_watts == {"cpu": pytest.approx(92.0)}
    assert played.device("powercap-CPU_power").watts == pytest.approx(95.0)


def test_a_zone_within_a_zone_of_the_same_component_is_not_added(node: WrittenNode) -> None:
    scmi(node, "arm-scmi:0", "CPU power", 95.0)
    scmi(node, "arm-scmi:0:0", "CPU 0 power", 50.0)
    assert node.play(lambda _: None, 10).node_watts == {"cpu": pytest.approx(95.0)}


def test_another_control_type_with_a_counter(node: WrittenNode) -> None:
    """Whatever has energy_uj is a counter, with its range; shown until its meaning is known."""
    node.text(f"{ROOT}/vendor-meter:0/name", "widget")
    node.text(f"{ROOT}/vendor-meter:0/energy_uj", 5_000_000)
    node.text(f"{ROOT}/vendor-meter:0/power_uw", 1)
    node.text(f"{ROOT}/vendor-meter:0/max_energy_range_uj", 10_000_000)
    (meter,) = PowercapSource(node.host()).read(node.now).meters
    assert isinstance(meter, EnergyReading)
    assert (meter.joules, meter.wraps_at, meter.device.within) == (5.0, 10.0, "node")


def test_raps_zones_and_models_of_the_kernel_are_left_out(node: WrittenNode) -> None:
    node.zone("intel-rapl:0", "package-0")
    node.flush()
    node.text(f"{ROOT}/dtpm:0/name", "soc")
    node.text(f"{ROOT}/dtpm:0/power_uw", 1_000_000)
    node.text(f"{ROOT}/arm-scmi/enabled", 1)
    with pytest.raises(Unavailable) as caught:
        PowercapSource(node.host()).read(node.now)
    assert caught.value.reason == "not_found"


def test_two_zones_of_one_name_are_two_devices(node: WrittenNode) -> None:
    scmi(node, "arm-scmi:0", "CPU power", 95.0)
    scmi(node, "arm-scmi:1", "CPU power", 90.0)
    played = node.play(lambda _: None, 10)
    assert played.node_watts == {"cpu": pytest.approx(185.0)}


def test_a_zone_that_cannot_be_read_leaves_the_others(node: WrittenNode) -> None:
    scmi(node, "arm-scmi:0", "CPU power", 95.0)
    scmi(node, "arm-scmi:1", "DDR power", 12.0)
    node.flush()
    node.text(f"{ROOT}/arm-scmi:1/power_uw", "abc")
    reading = PowercapSource(node.host()).read(node.now)
    (meter,) = reading.meters
    assert isinstance(meter, PowerReading)
    assert [problem.reason for problem in reading.problems] == ["implausible"]


def test_zones_that_only_limit_are_no_meters(node: WrittenNode) -> None:
    node.text(f"{ROOT}/arm-scmi:0/name", "SOC")
    node.text(f"{ROOT}/arm-scmi:0/constraint_0_power_limit_uw", 1)
    with pytest.raises(Unavailable) as caught:
        PowercapSource(node.host()).read(node.now)
    assert "arm_scmi_powercap" in caught.value.fix


def test_descriptors_are_given_back(node: WrittenNode) -> None:
    scmi(node, "arm-scmi:0", "CPU power", 95.0)
    node.flush()
    host = node.host()
    left = host.fds.left
    source = PowercapSource(host)
    source.read(node.now)
    source.close()
    assert host.fds.left == left
