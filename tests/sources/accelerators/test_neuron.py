"""AWS Neuron devices: a ratio each minute, joules only with the operator's watts, files that a driver moved."""

from __future__ import annotations

from pathlib import Path

import pytest

from exporter.accounting.devices import Devices
from exporter.accounting.measurement import Use
from exporter.records import Unavailable
from exporter.sources.accelerators.neuron import NeuronSource
from tests.support.written_node import WrittenNode

ROOT = "sys/devices/virtual/neuron_device"
OLD, NEW = "stats/power", "hardware/power"


def device(node: WrittenNode, number: int, folder: str = OLD, serial: str = "") -> str:
    base = f"{ROOT}/neuron{number}"
    node.text(f"{base}/info/serial_number", serial or f"00f3c1a0e4b5d7{number:02x}")
    node.text(f"{base}/info/architecture/device_name", "Trainium2")
    node.text(f"{base}/power/runtime_status", "unsupported")
    return f"{base}/{folder}/utilization"


def say(node: WrittenNode, path: str, mean: float, stamp: int = 1767225600, status: str = "POWER_STATUS_VALID") -> None:
    node.text(path, f"{status},{stamp},{mean / 2:.2f},{mean + 5:.2f},{mean:.2f}")


@pytest.fixture
def node(tmp_path: Path) -> WrittenNode:
    return WrittenNode(tmp_path)


@pytest.mark.parametrize("folder", [OLD, NEW, "neuron_core0/stats/power"])
def test_the_ratio_is_found_where_any_driver_has_it(node: WrittenNode, folder: str) -> None:
    """meters2 §10.7: both old and new paths; never the folder of runtime power management."""
    say(node, device(node, 0, folder), 18.86)
    reading = NeuronSource(node.host()).read(node.now)
    (gpu,) = reading.gpus
    assert gpu.power_utilization_ratio == pytest.approx(0.1886)
    assert (gpu.gpu_model, gpu.index) == ("Trainium2", "0")
    assert gpu.uuid == "neuron-00f3c1a0e4b5d700"
    assert not reading.meters, "without a maximum there are no joules"
    assert not reading.problems


def test_the_old_place_comes_first(node: WrittenNode) -> None:
    say(node, device(node, 0, OLD), 10.0)
    say(node, device(node, 0, NEW), 90.0)
    (gpu,) = NeuronSource(node.host()).read(node.now).gpus
    assert gpu.power_utilization_ratio == pytest.approx(0.1)


def test_joules_with_the_operators_watts_are_an_estimate(node: WrittenNode) -> None:
    path = device(node, 0)
    source, devices = NeuronSource(node.host(), (100.0, 500.0)), Devices()
    for minute, mean in enumerate((0.0, 50.0, 50.0, 100.0)):
        say(node, path, mean, stamp=1767225600 + 60 * minute)
        for _ in range(60):
            reading = source.read(node.now)
            devices.measure(reading.meters, Use(1.0, 8.0, gpus=reading.gpus))
            node.now += 1.0
    (meter,) = reading.meters
    assert (meter.device.quality, meter.device.method) == ("estimated", "utilization_model")
    assert reading.bounds[0][1:] == (100.0, 500.0)
    truth = 60 * (100 + 300 + 300 + 500)
    assert devices.node_joules["gpu"] == pytest.approx(truth, rel=0.01)


@pytest.mark.parametrize("status", ["POWER_STATUS_NO_DATA", "POWER_STATUS_INVALID", ""])
def test_without_data_there_is_neither_ratio_nor_joule(node: WrittenNode, status: str) -> None:
    """meters2 §10.7: NO_DATA; its zeros are no power."""
    say(node, device(node, 0), 0.0, status=status)
    reading = NeuronSource(node.host(), (100.0, 500.0)).read(node.now)
    assert reading.gpus[0].power_utilization_ratio is None
    assert not reading.meters
    assert (reading.problems[0].reason, "neuron0" in reading.problems[0].message) == ("driver", True)


def test_the_same_timestamp_twice_is_the_same_value_and_then_an_old_one(node: WrittenNode) -> None:
    """meters2 §10.7."""
    say(node, device(node, 0), 40.0)
    source = NeuronSource(node.host())
    source.read(node.now)
    node.now += 100.0
    assert source.read(node.now).gpus[0].power_utilization_ratio == pytest.approx(0.4)
    node.now += 100.0
    reading = source.read(node.now)
    assert reading.gpus[0].power_utilization_ratio is None
    assert "no new value" in reading.problems[0].message


@pytest.mark.parametrize(
    "text", ["POWER_STATUS_VALID,1,2", "POWER_STATUS_VALID,1,0,0,140.00", "POWER_STATUS_VALID,1,0,0,x"]
)
def test_what_is_no_ratio_is_a_problem(node: WrittenNode, text: str) -> None:
    node.text(device(node, 0), text)
    reading = NeuronSource(node.host()).read(node.now)
    assert reading.problems[0].reason == "implausible"


def test_a_device_without_the_file_is_there_and_says_so(node: WrittenNode) -> None:
    device(node, 0)
    reading = NeuronSource(node.host()).read(node.now)
    assert reading.gpus[0].power_utilization_ratio is None
    assert "aws-neuronx-dkms" in reading.problems[0].fix


def test_who_has_a_device_open_holds_it(node: WrittenNode) -> None:
    say(node, device(node, 3), 40.0)
    fields = ["S", "1", *["0"] * 17, "4711", *["0"] * 10]
    node.text("proc/77/stat", f"77 (python) {' '.join(fields)}")
    node.text("proc/77/cgroup", "0::/job")
    (node.root / "proc/77/fd").mkdir()
    (node.root / "proc/77/fd/9").symlink_to("/dev/neuron3")
    node.flush()
    (use,) = NeuronSource(node.host()).read(node.now).gpu_uses
    assert (use.pid, use.reported, use.seconds) == (77, False, 0.0)


def test_other_machines_have_none(node: WrittenNode) -> None:
    with pytest.raises(Unavailable) as caught:
        NeuronSource(node.host()).read(node.now)
    assert caught.value.reason == "not_found"


def test_devices_without_a_serial_number_are_told_apart(node: WrittenNode) -> None:
    for number in (0, 1):
        say(node, device(node, number, serial="0"), 5.0)
    assert [gpu.uuid for gpu in NeuronSource(node.host()).read(node.now).gpus] == ["neuron-0", "neuron-1"]
