"""A slow driver: no use is lost, and expensive queries are made more rarely."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

from exporter.host import Host
from exporter.sampling.sampler import Sampler, SamplerOptions
from exporter.snapshot import AccountRow, Snapshot
from exporter.sources.nvml.source import NvmlSource
from tests.support.group_names import GroupNames
from tests.support.nvml.node import Node

LOOK = "nvmlDeviceGetMigDeviceHandleByIndex"
LIST = "nvmlDeviceGetGraphicsRunningProcesses_v3"
SEVEN = ["1g.10gb"] * 7


@pytest.fixture
def source(node: Node) -> Iterator[NvmlSource]:
    """Its clock passes by itself as well, so that it knows how long a call took."""
    began = time.monotonic()
    root = node.root
    host = Host(str(root / "proc"), str(root / "sys"), clock=lambda: node.now + time.monotonic() - began)
    made = NvmlSource(host, node.bindings)
    yield made
    made.close()


def of_gpu(row: AccountRow, names: tuple[str, ...], values: tuple[float, ...]) -> float:
    return sum(value for name, value in zip(names, values, strict=True) if name == "gpu")


def check(snapshot: Snapshot) -> bool:
    """Containers have the watts that the card has, and no more seconds than there were; False without a reading."""
    if not snapshot.energy.containers or not snapshot.energy.devices or snapshot.energy.devices[0].watts is None:
        return False
    (device,) = snapshot.energy.devices
    watts = [of_gpu(row, row.components, row.watts) for row in snapshot.energy.containers]
    ratios = [of_gpu(row, row.busy_components, row.ratios) for row in snapshot.energy.containers]
    assert sum(watts) == pytest.approx(device.watts, rel=1e-6)
    assert max(ratios) <= 1.0 + 1e-6
    return True


def test_reads_that_outlive_several_ticks(node: Node) -> None:
    """Fault 27: each is late, and covers four ticks; the process that used the card is charged all of it."""
    gpu = node.driver.add_gpu()
    for pid in (1, 2):
        node.process(pid)
        gpu.process(pid)
    node.driver.delay("nvmlDeviceGetFieldValues", seconds=0.2)
    host = Host(str(node.root / "proc"), str(node.root / "sys"))
    options = SamplerOptions(interval_seconds=0.05, source_timeout_seconds=0.01)
    sampler = Sampler([NvmlSource(host, node.bindings)], GroupNames(), host, options)
    last, seen = time.monotonic(), 0
    for _ in range(40):
        time.sleep(0.05)
        now = time.monotonic()
        gpu.energy_joules += 300 * (now - last)
        last = now
        for pid, percent in ((1, 60), (2, 20)):
            gpu.sample(pid, percent)
        snapshot = sampler.tick()
        seen += check(snapshot)
    sampler.close()
    assert seen >= 3
    (device,) = snapshot.energy.devices
    assert device.joules > 100
    assert not [joules for _, reason, joules in snapshot.energy.unattributed if reason == "gap"]
    (health,) = snapshot.exporter.sources
    assert health.failures["timeout"] >= 1


def test_layouts_that_are_expensive_to_query_are_queried_rarely(node: Node, source: NvmlSource) -> None:
    """Seven calls of 20 ms every 5 s were 3 % of the time; they may take 2 %."""
    node.driver.add_gpu(mig=SEVEN)
    node.driver.delay(LOOK, seconds=0.02)
    source.read(node.now)
    node.driver.reset_calls()
    for _ in range(60):
        node.sleep(1)
        source.read(node.now)
    assert 7 <= node.driver.calls(LOOK) <= 60 // 7 * 7, "a rest of 7 s at least; longer where the calls took longer"
    assert node.driver.calls(LIST) >= 4 * 2, "who holds it is a question of its own"
    node.driver.reset_calls()
    node.driver.delay(LOOK, seconds=0.2)
    node.sleep(60)
    source.read(node.now)
    node.driver.delay(LOOK, seconds=0)
    node.driver.reset_calls()
    node.sleep(59)
    source.read(node.now)
    assert node.driver.calls(LOOK) == 0
    node.sleep(2)
    source.read(node.now)
    assert node.driver.calls(LOOK) == 7, "once a minute at least"


def test_an_unknown_instance_is_looked_for_at_once(node: Node, source: NvmlSource) -> None:
    """Fault 26: the process list names it; however rarely the layout is queried."""
    gpu = node.driver.add_gpu(mig=["3g.40gb"])
    node.driver.delay(LOOK, seconds=0.2)
    source.read(node.now)
    node.driver.delay(LOOK, seconds=0)
    old, new = gpu.set_mig(["3g.40gb", "1g.10gb"])
    for pid, part in ((1, old), (2, new)):
        node.process(pid)
        part.process(pid)
    for _ in range(7):
        node.sleep(1)
        reading = source.read(node.now)
    assert [state.gpu_instance for state in reading.gpus] == ["", "1", "2"]
    assert {use.pid for use in reading.gpu_uses} == {1, 2}


def test_looks_at_several_cards_are_spread(node: Node, source: NvmlSource) -> None:
    """A read is as long as one look, not as eight; the first read knows them all."""
    cards = [node.driver.add_gpu() for _ in range(4)]
    node.driver.delay(LIST, seconds=0.11)
    source.read(node.now)
    assert [node.driver.calls(LIST, card) for card in cards] == [1] * 4
    node.sleep(10)
    for number in range(1, 5):
        node.driver.reset_calls()
        source.read(node.now)
        assert sum(node.driver.calls(LIST, card) > 0 for card in cards) == 1, number
        node.sleep(0.1)
