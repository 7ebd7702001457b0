"""MIG instances: activity, holders and changes of the layout."""

from __future__ import annotations

import pytest

from exporter.sources.nvml.source import NvmlSource
from tests.support.nvml import control
from tests.support.nvml.control import Gpu
from tests.support.nvml.node import Node
from tests.support.nvml.readings import MIG_LAYOUT, by_pid, energy, only_state


class TestMig:
    def load(self, node: Node, *, hopper: bool = True) -> Gpu:
        gpu = node.driver.add_gpu(architecture=control.HOPPER if hopper else control.AMPERE, mig=MIG_LAYOUT)
        for number, part in enumerate(gpu.mig):
            node.process(number + 1)
            part.process(number + 1)
            part.gpm(control.GPM_SM_UTIL, (100, 50, 0)[number])
        return gpu

    def test_activity_times_fraction(self, node: Node, source: NvmlSource) -> None:
        self.load(node)
        source.read(node.now)
        node.sleep(1)
        reading = source.read(node.now)
        uses = by_pid(reading)
        assert [uses[pid].seconds for pid in (1, 2, 3)] == pytest.approx([3 / 7, 0.5 * 2 / 7, 0])
        assert [uses[pid].hold for pid in (1, 2, 3)] == pytest.approx([3 / 7, 2 / 7, 1 / 7])
        card, *parts = reading.gpus
        assert (card.gpu_instance, card.utilization_ratio) == ("", None)
        assert [part.gpu_instance for part in parts] == ["1", "2", "3"]
        assert [part.sm_active_ratio for part in parts] == [1.0, 0.5, 0.0]
        assert all(part.power_limit_watts is None for part in parts)
        assert [part.memory_total_bytes for part in parts] == [40 << 30, 20 << 30, 10 << 30]

    def test_without_activity_a_held_instance_counts_as_busy(self, node: Node, source: NvmlSource) -> None:
        gpu = self.load(node, hopper=False)
        node.process(4)
        gpu.mig[0].process(4)
        gpu.end(2)
        source.read(node.now)
        node.sleep(2)
        uses = by_pid(source.read(node.now))
        assert [uses[pid].seconds for pid in (1, 3, 4)] == pytest.approx([3 / 7, 2 / 7, 3 / 7])
        assert uses[1].hold == pytest.approx(1.5 / 7)

    def test_holders_of_all_instances_are_read_with_one_query(self, node: Node, source: NvmlSource) -> None:
        """Each list takes milliseconds, and there may be 56 instances; each is queried if the card reports none."""
        gpu = self.load(node)
        source.read(node.now)
        assert node.driver.calls("nvmlDeviceGetComputeRunningProcesses_v3") == 2, "the bindings ask for the size first"
        for pid in (1, 2, 3):
            gpu.end(pid)
        node.driver.reset_calls()
        node.sleep(10)
        assert not {1, 2, 3} & by_pid(source.read(node.now)).keys()
        assert node.driver.calls("nvmlDeviceGetComputeRunningProcesses_v3") == 1 + 3

    def test_no_process_on_any_instance_is_an_idle_card(self, node: Node, source: NvmlSource) -> None:
        """The driver reports no utilisation under MIG; without it the card's idle watts would never be known."""
        gpu = node.driver.add_gpu(mig=["3g.40gb"], architecture=control.AMPERE)
        assert source.read(node.now).gpus[0].utilization_ratio == 0
        node.process(1)
        gpu.mig[0].process(1)
        node.sleep(10)
        assert source.read(node.now).gpus[0].utilization_ratio is None

    def test_card_without_any_instance_is_idle(self, node: Node, source: NvmlSource) -> None:
        """MIG is on without an instance: no process can run there."""
        gpu = node.driver.add_gpu(architecture=control.AMPERE)
        gpu.state.mig_mode = 1
        reading = source.read(node.now)
        assert (only_state(reading).utilization_ratio, reading.gpu_uses) == (0.0, ())

    def test_holders_without_permission_are_a_problem(self, node: Node, source: NvmlSource) -> None:
        """Fault 48: without privilege; then it is unknown whether the card is idle, too."""
        gpu = node.driver.add_gpu(architecture=control.AMPERE, mig=["3g.40gb"])
        lists = [f"nvmlDeviceGet{sort}RunningProcesses_v3" for sort in ("Compute", "Graphics", "MPSCompute")]
        for name in lists:
            node.driver.fail(name, code=control.NO_PERMISSION)
        for _ in range(3):
            reading = source.read(node.now)
            node.sleep(1)
            (problem,) = reading.problems
            assert (problem.reason, gpu.uuid in problem.message) == ("permission", True)
            assert "NVIDIA_MIG_MONITOR_DEVICES=all" in problem.fix
        assert reading.gpus[0].utilization_ratio is None
        for name in lists:
            node.driver.mend(name)
        node.sleep(5)
        reading = source.read(node.now)
        assert (reading.problems, reading.gpus[0].utilization_ratio) == ((), 0.0)

    def test_what_the_card_refuses_its_instances_may_report(self, node: Node, source: NvmlSource) -> None:
        gpu = self.load(node)
        node.driver.fail("nvmlDeviceGetComputeRunningProcesses_v3", code=control.NO_PERMISSION, times=1)
        node.driver.fail("nvmlDeviceGetGraphicsRunningProcesses_v3", code=control.NO_PERMISSION, times=1)
        reading = source.read(node.now)
        assert (set(by_pid(reading)), reading.problems) == ({1, 2, 3}, ())
        assert len(gpu.mig) == 3

    def test_changed_layout(self, node: Node, source: NvmlSource) -> None:
        """Fault 26: the old instances end, the new ones begin, the card goes on."""
        gpu = self.load(node)
        for _ in range(2):
            source.read(node.now)
            node.step({gpu: {}})
        (whole,) = gpu.set_mig(["7g.80gb"])
        node.process(9)
        whole.process(9)
        for _ in range(8):
            reading = source.read(node.now)
            node.step({gpu: {}})
        assert set(by_pid(reading)) == {9}
        assert len(reading.gpus) == 2
        gpu.set_mig([])
        gpu.process(9)
        for _ in range(8):
            reading = source.read(node.now)
            node.step({gpu: {}})
        assert len(reading.gpus) == 1
        assert by_pid(reading)[9].hold == 1.0
        assert energy(reading)
