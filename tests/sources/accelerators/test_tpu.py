"""Google TPUs on written PCI devices and Google's own gRPC server: state always, joules only if asked."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from exporter.accounting.devices import Devices
from exporter.accounting.measurement import Use
from exporter.records import Unavailable
from exporter.sources.accelerators.tpu import TpuSource
from exporter.sources.accelerators.tpu_metrics import TpuMetrics, decode, encode
from tests.support.fake_tpu import DUTY, TOTAL, USED, FakeTpu, Messages
from tests.support.patience import wait_for
from tests.support.written_node import WrittenNode

GIBIBYTE = 1 << 30


@pytest.fixture(scope="module")
def messages(tmp_path_factory: pytest.TempPathFactory) -> Messages:
    return Messages(tmp_path_factory.mktemp("proto"))


@pytest.fixture
def runtime(messages: Messages) -> Iterator[FakeTpu]:
    fake = FakeTpu(messages)
    fake.values = {
        TOTAL: dict.fromkeys(range(4), 16.0 * GIBIBYTE),
        USED: {n: (3.0 + n) * GIBIBYTE for n in range(4)},
        DUTY: {n: 25.0 * n for n in range(4)},
    }
    fake.start()
    yield fake
    fake.stop()


@pytest.fixture
def node(tmp_path: Path) -> WrittenNode:
    made = WrittenNode(tmp_path)
    made.flush()
    return made


def chip(node: WrittenNode, number: int, device: str = "0x0063", function: int = 0, vendor: str = "0x1ae0") -> None:
    folder = f"sys/bus/pci/devices/0000:00:0{4 + number}.{function}"
    node.text(f"{folder}/vendor", vendor)
    node.text(f"{folder}/device", device)
    node.text(f"sys/kernel/iommu_groups/{number}/type", "DMA")
    (node.root / folder / "iommu_group").symlink_to(node.root / f"sys/kernel/iommu_groups/{number}")


def hold(node: WrittenNode, pid: int, path: str) -> None:
    fields = ["S", "1", *["0"] * 17, "4711", *["0"] * 10]
    node.text(f"proc/{pid}/stat", f"{pid} (python) {' '.join(fields)}")
    node.text(f"proc/{pid}/cgroup", "0::/job")
    (node.root / f"proc/{pid}/fd").mkdir()
    (node.root / f"proc/{pid}/fd/9").symlink_to(path)


def asked(metrics: TpuMetrics) -> None:
    """Ask, without a thread, and again as long as the service is only late, as on a busy machine."""

    def responded() -> bool:
        metrics.ask()
        return metrics.problem is None or metrics.problem.reason != "timeout"

    wait_for(responded, "a response")


def test_chips_have_duty_cycle_and_memory_and_no_joules(node: WrittenNode, runtime: FakeTpu) -> None:
    for number in range(4):
        chip(node, number)
    reading = TpuSource(node.host(), address=runtime.address, start=asked).read(node.now)
    assert [gpu.utilization_ratio for gpu in reading.gpus] == [0.0, 0.25, 0.5, 0.75]
    assert [gpu.memory_used_bytes for gpu in reading.gpus] == [(3.0 + n) * GIBIBYTE for n in range(4)]
    first = reading.gpus[0]
    assert (first.uuid, first.gpu_model, first.index) == ("tpu-0000:00:04.0", "TPU v5e", "0")
    assert first.memory_total_bytes == 16 * GIBIBYTE
    assert (reading.meters, reading.bounds, reading.problems) == ((), (), ())


def test_two_cores_of_a_chip_are_one_chip(node: WrittenNode, runtime: FakeTpu) -> None:
    """Two PCI functions; the runtime counts memory by core and duty cycle by chip."""
    for number in range(2):
        for function in (0, 1):
            chip(node, number, "0x0076", function)
    reading = TpuSource(node.host(), address=runtime.address, start=asked).read(node.now)
    assert [gpu.memory_used_bytes for gpu in reading.gpus] == [7 * GIBIBYTE, 11 * GIBIBYTE]
    assert [gpu.utilization_ratio for gpu in reading.gpus] == [0.0, 0.25]


def test_joules_are_an_estimate_within_the_operators_bounds(node: WrittenNode, runtime: FakeTpu) -> None:
    chip(node, 0)
    metrics: list[TpuMetrics] = []
    source = TpuSource(node.host(), (50.0, 150.0), runtime.address, start=metrics.append)
    devices, truth = Devices(), 0.0
    for duty in [0.0, *([100.0] * 30), *([40.0] * 30)]:
        runtime.values[DUTY] = {0: duty}
        source.read(node.now) if not metrics else None
        metrics[0].ask()
        reading = source.read(node.now)
        devices.measure(reading.meters, Use(1.0, 8.0, gpus=reading.gpus))
        node.now += 1.0
        truth += 50 + duty
    (meter,) = reading.meters
    assert (meter.device.quality, meter.device.method) == ("estimated", "utilization_model")
    assert reading.bounds[0][1:] == (50.0, 150.0)
    assert devices.node_joules["gpu"] == pytest.approx(truth, rel=0.03)


@pytest.mark.parametrize(
    ("device", "subsystem", "model", "watts"),
    [
        ("0x0027", "0x004e", "TPU v2", None),
        ("0x0027", "0x004f", "TPU v3", (123.0, 262.0)),
        ("0x0027", "", "TPU v2 or v3", None),
        ("0x005e", "", "TPU v4", (90.0, 192.0)),
        ("0x0063", "", "TPU v5e", None),
    ],
)
def test_published_watts_are_those_of_the_model_and_no_others(
    node: WrittenNode, runtime: FakeTpu, device: str, subsystem: str, model: str, watts: tuple[float, float] | None
) -> None:
    chip(node, 0, device)
    if subsystem:
        node.text("sys/bus/pci/devices/0000:00:04.0/subsystem_device", subsystem)
    runtime.values[DUTY] = {0: 50.0}
    reading = TpuSource(node.host(), "published", runtime.address, start=asked).read(node.now)
    assert [gpu.gpu_model for gpu in reading.gpus] == [model]
    assert [bound[1:] for bound in reading.bounds] == ([] if watts is None else [watts])
    assert [meter.device.quality for meter in reading.meters] == ([] if watts is None else ["estimated"])
    if watts is None:
        (problem,) = reading.problems
        assert (problem.reason, model in problem.message) == ("not_found", True)
        assert "--tpu.watts LOW-HIGH" in problem.fix
    else:
        assert reading.problems == ()


def test_a_machine_at_rest_has_no_service_and_no_problem(node: WrittenNode) -> None:
    """Nothing holds a chip: the runtime serves nothing, which is no fault; at rest it draws what it does at rest."""
    chip(node, 0)
    reading = TpuSource(node.host(), (50.0, 150.0), "localhost:1", start=asked).read(node.now)
    assert reading.problems == ()
    assert reading.gpus[0].utilization_ratio is None
    assert [getattr(meter, "watts", None) for meter in reading.meters] == [50.0]


@pytest.mark.parametrize("path", ["/dev/vfio/0", "/dev/accel0"])
def test_a_program_without_metrics_is_a_problem_after_a_minute(node: WrittenNode, path: str) -> None:
    chip(node, 0)
    hold(node, 77, path)
    source = TpuSource(node.host(), (50.0, 150.0), "localhost:1", start=asked)
    reading = source.read(node.now)
    assert [use.pid for use in reading.gpu_uses] == [77]
    assert (reading.meters, reading.problems) == ((), ())
    node.now += 61.0
    (problem,) = source.read(node.now).problems
    assert "a program holds a TPU" in problem.message


def test_an_old_answer_is_none(node: WrittenNode, runtime: FakeTpu) -> None:
    chip(node, 0)
    source = TpuSource(node.host(), address=runtime.address, start=asked)
    assert source.read(node.now).gpus[0].utilization_ratio == 0.0
    node.now += 11.0
    assert source.read(node.now).gpus[0].utilization_ratio is None


def test_a_runtime_that_lacks_a_metric_is_told_apart(node: WrittenNode, runtime: FakeTpu) -> None:
    del runtime.values[DUTY]
    metrics = TpuMetrics(node.host(), runtime.address)
    metrics.ask()
    assert metrics.problem is not None
    assert "no metric tpu.runtime.tensorcore" in metrics.problem.message


def test_the_thread_asks_and_ends(node: WrittenNode, runtime: FakeTpu) -> None:
    chip(node, 0)
    source = TpuSource(node.host(), address=runtime.address)
    try:
        wait_for(lambda: source.read(node.now).gpus[0].memory_total_bytes)
    finally:
        source.close()


def test_other_devices_and_makers_are_no_tpu(node: WrittenNode) -> None:
    chip(node, 0, "0x0042")
    chip(node, 1, "0x0063", vendor="0x8086")
    with pytest.raises(Unavailable) as caught:
        TpuSource(node.host()).read(node.now)
    assert caught.value.reason == "not_found"


def test_a_message_of_another_kind_is_refused() -> None:
    assert decode(b"") == {}
    with pytest.raises(ValueError, match=r"cut short|wire type|without end"):
        decode(b"\x0a\xff\x01")
    assert encode("a") == b"\x0a\x01a"


@pytest.mark.parametrize("lie", [float("nan"), float("inf"), -1.0, -1e308])
def test_a_metric_that_is_no_number_is_unknown(node: WrittenNode, runtime: FakeTpu, lie: float) -> None:
    """And not at rest, which would be power of the estimate."""
    chip(node, 0)
    runtime.values = {name: {0: lie} for name in (TOTAL, USED, DUTY)}
    hold(node, 4711, "/dev/vfio/0")
    reading = TpuSource(node.host(), (50.0, 150.0), runtime.address, start=asked).read(node.now)
    (gpu,) = reading.gpus
    assert (gpu.utilization_ratio, gpu.memory_used_bytes, gpu.memory_total_bytes) == (None, None, None)
    assert reading.meters == ()
