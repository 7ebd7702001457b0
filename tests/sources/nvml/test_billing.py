"""What the sampler charges to each process for NVIDIA cards, compared with a script of loads."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping

import pytest

from exporter.records import ProcessOwner
from exporter.sampling.sampler import Sampler, SamplerOptions
from exporter.snapshot import Snapshot
from exporter.sources.nvml.source import NvmlSource
from tests.support.group_names import GroupNames
from tests.support.nvml import control
from tests.support.nvml.control import Gpu
from tests.support.nvml.node import IDLE_WATTS, Node
from tests.support.nvml.readings import MIG_LAYOUT


def joules_of(snapshot: Snapshot, mode: str) -> dict[int, float]:
    return {
        row.owner.pid: sum(
            joules
            for (component, m), joules in zip(row.cells, row.joules, strict=True)
            if (component, m) == ("gpu", mode)
        )
        for row in snapshot.energy.processes
        if isinstance(row.owner, ProcessOwner)
    }


class Bill:
    """Runs the sampler over a script and adds up what each process should owe."""

    def __init__(self, node: Node, *gpus: Gpu) -> None:
        self.node = node
        options = SamplerOptions(
            source_timeout_seconds=5, interval_seconds=5, idle_watts={g.uuid: IDLE_WATTS for g in gpus}
        )
        self.sampler = Sampler([NvmlSource(node.host, node.bindings)], GroupNames(), node.host, options)
        self.snapshot = self.sampler.tick()
        self.truth: dict[int, float] = {}

    def run(self, gpu: Gpu, loads: Mapping[int, int], ticks: int = 20, watts_per_percent: float = 5.0) -> None:
        for _ in range(ticks):
            watts = sum(loads.values()) * watts_per_percent
            self.node.step({gpu: loads}, watts=watts)
            self.snapshot = self.sampler.tick()
            for pid, percent in loads.items():
                self.truth[pid] = self.truth.get(pid, 0.0) + percent * watts_per_percent

    def check(self) -> None:
        """Nothing is lost, nothing is counted twice, and everyone's active joules are within 2 % of the truth."""
        for row in self.snapshot.energy.devices:
            assert row.watts is not None
        total = sum(row.joules for row in self.snapshot.energy.devices)
        active, idle = joules_of(self.snapshot, "active"), joules_of(self.snapshot, "idle")
        unattributed = sum(joules for _, _, joules in self.snapshot.energy.unattributed)
        assert sum(active.values()) + sum(idle.values()) + unattributed == pytest.approx(total, rel=1e-9)
        assert self.snapshot.energy.conservation_error_ratio < 1e-9
        assert total > 0
        for pid, joules in self.truth.items():
            assert active.get(pid, 0.0) == pytest.approx(joules, rel=0.02), pid


@pytest.fixture
def bill(node: Node) -> Iterator[Callable[..., Bill]]:
    made: list[Bill] = []

    def make(*gpus: Gpu) -> Bill:
        made.append(Bill(node, *gpus))
        return made[-1]

    yield make
    for one in made:
        one.sampler.close()


class TestBill:
    def test_one_process(self, node: Node, bill: Callable[..., Bill]) -> None:
        gpu = node.driver.add_gpu()
        node.process(1)
        gpu.process(1)
        account = bill(gpu)
        account.run(gpu, {1: 70})
        account.check()
        assert joules_of(account.snapshot, "idle")[1] == pytest.approx(20 * IDLE_WATTS)

    def test_three_to_one_beside_an_idle_holder(self, node: Node, bill: Callable[..., Bill]) -> None:
        gpu = node.driver.add_gpu()
        for pid in (1, 2, 3):
            node.process(pid)
            gpu.process(pid)
        account = bill(gpu)
        account.run(gpu, {1: 60, 2: 20})
        account.check()
        assert joules_of(account.snapshot, "active")[3] == 0
        assert joules_of(account.snapshot, "idle")[3] == pytest.approx(20 * IDLE_WATTS / 3)

    def test_process_that_vanishes(self, node: Node, bill: Callable[..., Bill]) -> None:
        gpu = node.driver.add_gpu()
        for pid in (1, 2):
            node.process(pid)
            gpu.process(pid)
        account = bill(gpu)
        account.run(gpu, {1: 40, 2: 40}, ticks=10)
        node.end(2)
        gpu.end(2)
        account.run(gpu, {1: 40}, ticks=10)
        account.check()

    def test_pids_of_another_namespace_are_charged_to_no_process(self, node: Node, bill: Callable[..., Bill]) -> None:
        """Fault 28: the known process is charged its own share only."""
        gpu = node.driver.add_gpu()
        node.process(1)
        gpu.process(1)
        gpu.process(324)
        account = bill(gpu)
        account.run(gpu, {1: 40, 324: 40})
        del account.truth[324]
        account.check()

    def test_instances(self, node: Node, bill: Callable[..., Bill]) -> None:
        gpu = node.driver.add_gpu(mig=MIG_LAYOUT)
        for number, part in enumerate(gpu.mig):
            node.process(number + 1)
            part.process(number + 1)
            part.gpm(control.GPM_SM_UTIL, (90, 45, 20)[number])
        account = bill(gpu)
        for _ in range(2):  # a first comparison of counters needs two reads
            account.run(gpu, {}, ticks=1)
        slices = {1: 90 * 3, 2: 45 * 2, 3: 20}
        for _ in range(30):
            node.step({gpu: {}}, watts=sum(slices.values()))
            account.snapshot = account.sampler.tick()
        account.truth = {pid: 30.0 * watts for pid, watts in slices.items()}
        account.check()

    def test_driver_reload(self, node: Node, bill: Callable[..., Bill]) -> None:
        """Fault 21: the counter starts again at 0, the exported total goes on and never jumps."""
        gpu = node.driver.add_gpu()
        node.process(1)
        gpu.process(1)
        gpu.energy_joules = 1e6
        account = bill(gpu)
        account.run(gpu, {1: 50}, ticks=5)
        before = account.snapshot.energy.devices[0].joules
        gpu.energy_joules = 0
        account.run(gpu, {1: 50}, ticks=10)
        (row,) = account.snapshot.energy.devices
        assert row.resets == 1
        assert before < row.joules <= before + 10 * (IDLE_WATTS + 250)
        assert row.joules == pytest.approx(before + 9 * (IDLE_WATTS + 250))

    def test_hanging_driver(self, node: Node) -> None:
        """Fault 23: a call that does not return costs this source only; it is back when the call is."""
        node.driver.add_gpu()
        options = SamplerOptions(source_timeout_seconds=5, interval_seconds=5)
        sampler = Sampler([NvmlSource(node.host, node.bindings)], GroupNames(), node.host, options)
        assert sampler.tick().energy.devices
        sampler.reconfigure(SamplerOptions(source_timeout_seconds=0.05))
        node.driver.hang("nvmlDeviceGetFieldValues")
        node.sleep(1)
        (health,) = sampler.tick().exporter.sources
        assert (health.up, health.reason) == (False, "timeout")
        node.driver.release()
        for _ in range(500):
            node.sleep(0.01)
            time.sleep(0.01)
            (health,) = sampler.tick().exporter.sources
            if health.up:
                break
        assert health.up
        sampler.close()
