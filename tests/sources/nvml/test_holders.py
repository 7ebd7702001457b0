"""Processes that hold and use NVIDIA cards."""

from __future__ import annotations

import pytest

from exporter.records import (
    GroupKey,
    Process,
)
from exporter.sources.nvml.source import NvmlSource
from exporter.sources.usage.cgroups import CgroupSource
from tests.support.gpu_uses import known
from tests.support.nvml.node import Node
from tests.support.nvml.readings import by_pid


class TestUsers:
    def test_seconds_and_names(self, node: Node, source: NvmlSource) -> None:
        gpu = node.driver.add_gpu()
        group = node.process(4242, "/kubepods/pod1/ctr", comm="vllm")
        gpu.process(4242)
        assert by_pid(source.read(node.now))[4242].seconds == 0
        node.step({gpu: {4242: 40}})
        source.read(node.now)
        node.step({gpu: {4242: 60}})
        use = by_pid(source.read(node.now))[4242]
        assert use.seconds == pytest.approx(0.6, rel=1e-3)
        assert (use.device, use.group, use.hold) == (gpu.uuid, group, 1.0)
        assert use.process == Process(known(use).key, "vllm")
        assert known(use).key.start_ticks == 4711

    def test_what_was_used_before_the_first_read_is_not_counted(self, node: Node, source: NvmlSource) -> None:
        """Fault 29: with 0 the driver averages over its whole buffer and reports exited processes."""
        gpu = node.driver.add_gpu()
        node.process(1)
        gpu.process(1)
        gpu.sample(1, 100, timestamp_us=999_000_000)
        gpu.sample(77, 100, timestamp_us=998_000_000)
        node.process(5)
        gpu.sample(5, 100, timestamp_us=997_000_000)
        assert [use.seconds for use in source.read(node.now).gpu_uses] == [0]
        node.sleep(1)
        assert [use.seconds for use in source.read(node.now).gpu_uses] == [0]

    def test_garbage_and_stale_samples(self, node: Node, source: NvmlSource) -> None:
        """Fault 29: a hundred unordered samples above 100 % are clamped; a window holds no more than itself."""
        gpu = node.driver.add_gpu()
        gpu.every_sample()
        node.process(1)
        gpu.process(1)
        node.step({gpu: {1: 10}})
        source.read(node.now)
        for number in range(50):
            gpu.sample(1, 3_000_000_000, timestamp_us=round(node.now * 1e6) + (37 * number % 50) * 10_000)
            gpu.sample(1, 100, timestamp_us=900_000_000 + number)
        node.sleep(1)
        assert by_pid(source.read(node.now))[1].seconds == pytest.approx(0.55, abs=0.06)

    def test_window_holds_no_more_than_itself(self, node: Node, source: NvmlSource) -> None:
        """Fault 29: the driver's clock may run ahead of ours."""
        gpu = node.driver.add_gpu()
        gpu.every_sample()
        node.process(1)
        gpu.process(1)
        source.read(node.now)
        node.step({gpu: {1: 100}})
        source.read(node.now)
        for ahead in (0.8, 1.9):
            gpu.sample(1, 100, timestamp_us=round((node.now + ahead) * 1e6))
        node.sleep(1)
        assert by_pid(source.read(node.now))[1].seconds == 1.0

    def test_clock_that_is_set_back(self, node: Node, source: NvmlSource) -> None:
        """Fault 50: samples are stamped by the wall clock; an hour less must not hide an hour of samples."""
        gpu = node.driver.add_gpu()
        node.process(1)
        gpu.process(1)
        for _ in range(3):
            source.read(node.now)
            node.step({gpu: {1: 50}})
        node.set_back = 500.0
        source.read(node.now)
        gpu.clear_samples()  # they leave the driver's buffer in time
        for _ in range(2):
            node.step({gpu: {1: 50}})
            reading = source.read(node.now)
        assert by_pid(reading)[1].seconds == pytest.approx(0.5, rel=0.1)

    def test_idle_card_has_holders_without_seconds(self, node: Node, source: NvmlSource) -> None:
        """Fault 29: NOT_FOUND is an idle card."""
        gpu = node.driver.add_gpu()
        node.process(1)
        gpu.process(1, memory_bytes=None)
        source.read(node.now)
        node.step({gpu: {1: 50}})
        source.read(node.now)
        for _ in range(100):
            node.step({gpu: {}})
            reading = source.read(node.now)
        assert [(use.seconds, use.hold) for use in reading.gpu_uses] == [(0.0, 1.0)]
        assert not reading.problems
        node.step({gpu: {1: 80}})
        assert by_pid(source.read(node.now))[1].seconds == pytest.approx(0.8, rel=0.1)

    def test_lists_are_queried_rarely(self, node: Node, source: NvmlSource) -> None:
        gpu = node.driver.add_gpu()
        node.process(1)
        gpu.process(1)
        for _ in range(11):
            source.read(node.now)
            node.step({gpu: {1: 50}})
        assert node.driver.calls("nvmlDeviceGetGraphicsRunningProcesses_v3") <= 6  # each is two calls
        node.driver.reset_calls()
        node.process(2)
        gpu.process(2)
        for _ in range(2):
            node.step({gpu: {1: 50}})
            reading = source.read(node.now)
        assert 2 not in by_pid(reading)
        node.step({gpu: {1: 50, 2: 20}})
        assert 2 in by_pid(source.read(node.now)), "one that works is found at once"
        assert node.driver.calls("nvmlDeviceGetGraphicsRunningProcesses_v3") > 0

    def test_process_that_exited_is_charged_its_last_seconds(self, node: Node, source: NvmlSource) -> None:
        gpu = node.driver.add_gpu()
        for pid in (1, 2):
            node.process(pid)
            gpu.process(pid)
        source.read(node.now)
        node.step({gpu: {1: 50, 2: 50}})
        source.read(node.now)
        node.step({gpu: {1: 50, 2: 30}})
        gpu.end(2)
        node.end(2)
        last = by_pid(source.read(node.now))[2]
        assert last.seconds == pytest.approx(0.3, rel=0.01)
        assert last.hold == 0
        node.step({gpu: {1: 50, 2: 30}})  # the driver goes on naming it
        assert set(by_pid(source.read(node.now))) == {1}

    def test_use_of_a_short_lived_process_is_unattributed(self, node: Node, source: NvmlSource) -> None:
        gpu = node.driver.add_gpu()
        node.process(1)
        gpu.process(1)
        source.read(node.now)
        node.step({gpu: {1: 50}})
        source.read(node.now)
        node.step({gpu: {1: 50, 99: 25}})
        uses = by_pid(source.read(node.now))
        assert uses[1].seconds == pytest.approx(0.5, rel=0.01)
        assert uses[None].seconds == pytest.approx(0.25, rel=0.01)
        assert (uses[None].hold, uses[None].group) == (0, None)

    def test_scrambled_lists_count_for_nothing(self, node: Node, source: NvmlSource) -> None:
        """Fault 24: early R535 drivers write larger entries; the samples still show which process is busy."""
        gpu = node.driver.add_gpu()
        for pid in (1, 2, 3):
            node.process(pid)
            gpu.process(pid, memory_bytes=pid << 30)
        node.driver.wide_processes()
        assert not source.read(node.now).gpu_uses
        for _ in range(7):
            node.step({gpu: {1: 20, 3: 40}})
            reading = source.read(node.now)
        uses = by_pid(reading)
        assert set(uses) == {1, 3}
        assert (uses[1].hold, uses[3].hold) == (1, 1)
        assert not reading.problems

    def test_process_that_left_the_card_holds_it_no_longer(self, node: Node, source: NvmlSource) -> None:
        gpu = node.driver.add_gpu()
        for pid in (1, 2):
            node.process(pid)
            gpu.process(pid)
        for _ in range(2):
            source.read(node.now)
            node.step({gpu: {1: 50, 2: 30}})
        gpu.end(2)
        for _ in range(6):
            use = by_pid(source.read(node.now))[2]
            node.step({gpu: {1: 50, 2: 30}})
        node.driver.reset_calls()
        for _ in range(10):
            source.read(node.now)
            node.step({gpu: {1: 50, 2: 30}})
        assert use.seconds == pytest.approx(0.3, rel=0.01)
        assert use.hold == 0
        assert node.driver.calls("nvmlDeviceGetGraphicsRunningProcesses_v3") == 2, "once in 5 seconds is enough"

    def test_pids_of_another_namespace_are_unattributed(self, node: Node, source: NvmlSource) -> None:
        """Fault 28: what is not in /proc is left unnamed, its share goes to no other, and the fix is reported once."""
        gpu = node.driver.add_gpu()
        node.process(645400)
        gpu.process(645400)
        gpu.process(324)
        reading = source.read(node.now)
        assert not reading.problems, "it may have exited just now"
        for _ in range(6):
            node.step({gpu: {645400: 50, 324: 50}})
            reading = source.read(node.now)
        uses = by_pid(reading)
        assert uses[None].seconds == pytest.approx(uses[645400].seconds, rel=0.01)
        assert uses[None].hold == 1.0
        (problem,) = reading.problems
        assert "hostPID: true" in problem.fix

    def test_pid_that_means_another_process_here(self, node: Node, source: NvmlSource) -> None:
        """Fault 28: where /proc is not of our pid namespace, only a process that has the card open counts."""
        (node.root / "proc").mkdir()
        (node.root / "proc/self").symlink_to("999999")
        source = NvmlSource(node.host, node.bindings)
        gpu = node.driver.add_gpu()
        for pid in (7, 8):
            node.process(pid)
            gpu.process(pid)
            (node.root / f"proc/{pid}/fd").mkdir()
        (node.root / "proc/8/fd/4").symlink_to("/dev/nvidia0")
        (node.root / "proc/7/fd/4").symlink_to("/dev/null")
        assert set(by_pid(source.read(node.now))) == {None, 8}
        source.close()

    def test_two_cards(self, node: Node, source: NvmlSource) -> None:
        """Fault 30: one process on two cards has a use on each."""
        first, second = node.driver.add_gpu(), node.driver.add_gpu()
        node.process(1)
        first.process(1)
        second.process(1)
        source.read(node.now)
        node.step({first: {1: 90}, second: {1: 10}})
        source.read(node.now)
        node.step({first: {1: 90}, second: {1: 10}})
        reading = source.read(node.now)
        assert by_pid(reading, first.uuid)[1].seconds == pytest.approx(0.9, rel=0.01)
        assert by_pid(reading, second.uuid)[1].seconds == pytest.approx(0.1, rel=0.01)

    def test_mps_server_has_nothing_when_its_clients_are_known(self, node: Node, source: NvmlSource) -> None:
        """Fault 30: what the driver reports for the MPS server is split among its clients."""
        gpu = node.driver.add_gpu()
        node.process(10, comm="nvidia-cuda-mps")
        gpu.process(10)
        for pid in (11, 12):
            node.process(pid)
            gpu.process(pid, kind="mps")
        source.read(node.now)
        for _ in range(2):
            node.step({gpu: {10: 80}})
            reading = source.read(node.now)
        uses = by_pid(reading)
        assert set(uses) == {11, 12}
        assert uses[11].seconds == uses[12].seconds == pytest.approx(0.4, rel=0.01)

    def test_reused_pid_is_another_process(self, node: Node, source: NvmlSource) -> None:
        """Fault 34."""
        gpu = node.driver.add_gpu()
        node.process(1, start_ticks=5)
        gpu.process(1)
        before = known(by_pid(source.read(node.now))[1]).key
        node.process(1, "/other", start_ticks=9)
        node.sleep(1)
        after = by_pid(source.read(node.now))[1]
        assert (before.start_ticks, known(after).key.start_ticks) == (5, 9)
        assert after.group is not None
        assert after.group.path == "/other"

    @pytest.mark.parametrize("version", [1, 2])
    def test_group_is_the_one_that_cpu_use_is_attributed_to(self, node: Node, source: NvmlSource, version: int) -> None:
        gpu = node.driver.add_gpu()
        gpu.process(1)
        key = node.process(1, "/docker/abc")
        if version == 1:
            (node.root / "sys/fs/cgroup/cpu.stat").unlink()
            node.write("sys/fs/cgroup/cpuacct/cpuacct.usage", "0\n")
            folder = node.write("sys/fs/cgroup/cpuacct/docker/abc/cpuacct.usage", "0\n").parent
            node.write("sys/fs/cgroup/cpuacct/docker/cpuacct.usage", "0\n")
            node.write("proc/1/cgroup", "5:memory:/elsewhere\n4:cpu,cpuacct:/docker/abc\n0::/other\n")
            key = GroupKey("/docker/abc", folder.stat().st_ino)
        else:
            node.write("sys/fs/cgroup/docker/cpu.stat", "usage_usec 0\n")
        cgroups = CgroupSource(node.host)
        booked = cgroups.read(node.now).cpu
        cgroups.close()
        assert by_pid(source.read(node.now))[1].group == key
        assert booked is not None
        assert key in booked.started

    def test_group_that_moved(self, node: Node, source: NvmlSource) -> None:
        gpu = node.driver.add_gpu()
        gpu.process(1)
        node.process(1, "/before")
        source.read(node.now)
        key = node.process(1, "/after")
        node.sleep(10)
        assert by_pid(source.read(node.now))[1].group == key

    def test_group_seen_from_inside_a_cgroup_namespace(self, node: Node, source: NvmlSource) -> None:
        gpu = node.driver.add_gpu()
        gpu.process(1)
        key = node.process(1, "/kubepods/burstable/pod1/ctr")
        node.write("proc/1/cgroup", "0::/../../pod1/ctr\n")
        node.write("sys/fs/cgroup/kubepods/burstable/pod1/ctr/cgroup.procs", "12\n1\n")
        assert by_pid(source.read(node.now))[1].group == key
