"""NVIDIA cards through the real bindings and a scripted driver library: energy, users, state, and how it all fails."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest

from exporter.records import (
    EnergyReading,
    GpuState,
    GpuUse,
    GroupKey,
    Model,
    Namer,
    PowerReading,
    Process,
    ProcessOwner,
    Reading,
    Unavailable,
    Workload,
)
from exporter.sampling.sampler import Sampler, SamplerOptions
from exporter.snapshot import Snapshot
from exporter.sources.nvml.source import RESCAN_SECONDS, NvmlSource
from exporter.sources.usage.cgroups import CgroupSource
from tests.support.nvml import control
from tests.support.nvml.control import FakeDriver, Gpu
from tests.support.nvml.node import IDLE_WATTS, Node, fresh_bindings

COUNTER = 83
POWER_INSTANT = 186


def by_pid(reading: Reading, device: str | None = None) -> dict[int, GpuUse]:
    return {use.process.key.pid: use for use in reading.gpu_uses if device in (None, use.device)}


def energy(reading: Reading) -> dict[str, float]:
    return {m.device.id: m.joules for m in reading.meters if isinstance(m, EnergyReading)}


def only_state(reading: Reading) -> GpuState:
    (state,) = reading.gpus
    return state


class TestMeter:
    def test_counter_becomes_joules(self, node: Node, source: NvmlSource) -> None:
        gpu = node.driver.add_gpu("NVIDIA A100-SXM4-80GB", architecture=control.AMPERE)
        gpu.energy_joules, gpu.power_limit_watts = 1234.567, 400
        (meter,) = source.read(node.now).meters
        assert isinstance(meter, EnergyReading)
        assert (meter.joules, meter.wraps_at, meter.at) == (1234.567, None, node.now)
        device = meter.device
        assert (device.id, device.component, device.source, device.quality) == (gpu.uuid, "gpu", "nvml", "measured")
        assert (device.name, device.capacity, device.max_watts) == ("NVIDIA A100-SXM4-80GB", 1.0, 800.0)
        assert device.method == "energy_counter"

    @pytest.mark.parametrize(("limit", "ceiling"), [(70.0, 500.0), (None, 1500.0)])
    def test_ceiling_without_a_high_limit(
        self, node: Node, source: NvmlSource, limit: float | None, ceiling: float
    ) -> None:
        node.driver.add_gpu().power_limit_watts = limit
        assert source.read(node.now).meters[0].device.max_watts == ceiling

    def test_without_fields_the_single_call_is_asked(self, node: Node, source: NvmlSource) -> None:
        node.driver.add_gpu().energy_joules = 7.5
        node.driver.fail("nvmlDeviceGetFieldValues", code=control.FUNCTION_NOT_FOUND)
        assert energy(source.read(node.now)).popitem()[1] == 7.5

    @pytest.mark.parametrize("value_type", [0, 1, 3, 4])
    def test_type_of_a_field_is_believed(self, node: Node, source: NvmlSource, value_type: int) -> None:
        """Fault 24: the driver says with each field how to read it."""
        gpu = node.driver.add_gpu()
        gpu.energy_joules = 99.0
        gpu.field(COUNTER, value_type=value_type)
        assert energy(source.read(node.now))[gpu.uuid] == 99.0

    def test_card_without_counter_is_integrated(self, node: Node, source: NvmlSource) -> None:
        """Fault 24: NOT_SUPPORTED leads to the power, and the device says so."""
        gpu = node.driver.add_gpu("Tesla P100", architecture=4)
        gpu.energy_joules = None
        gpu.power_instant_watts, gpu.power_average_watts = 181.5, 170
        (meter,) = source.read(node.now).meters
        assert isinstance(meter, PowerReading)
        assert (meter.watts, meter.device.method) == (181.5, "power_integrated")
        gpu.power_instant_watts = None
        node.sleep(1)
        (meter,) = source.read(node.now).meters
        assert isinstance(meter, PowerReading)
        assert meter.watts == 170

    def test_failing_counter_is_a_problem_first_and_given_up_later(self, node: Node, source: NvmlSource) -> None:
        """Fault 24: one UNKNOWN keeps the counter, so that no joule is lost; a lasting one ends it."""
        gpu, _ = node.driver.add_gpu(), node.driver.add_gpu()
        gpu.field(COUNTER, code=control.UNKNOWN)
        node.driver.fail("nvmlDeviceGetTotalEnergyConsumption", code=control.UNKNOWN, gpu=gpu)
        readings = []
        for _ in range(4):
            readings.append(source.read(node.now))
            node.sleep(1)
        assert [len(reading.meters) for reading in readings] == [1, 1, 2, 2]
        assert [len(reading.problems) for reading in readings] == [1, 1, 1, 0], "the change is said once"
        assert isinstance(readings[2].meters[0], PowerReading)
        gpu.field(COUNTER)
        node.driver.mend("nvmlDeviceGetTotalEnergyConsumption", gpu=gpu)
        assert isinstance(source.read(node.now).meters[0], PowerReading), "a meter that changes back loses joules"

    def test_only_card_whose_counter_fails_keeps_its_session(self, node: Node, source: NvmlSource) -> None:
        """Fault 24: everything else it tells, so a new session would not help; its power takes over in time."""
        gpu = node.driver.add_gpu()
        gpu.field(COUNTER, code=control.UNKNOWN)
        node.driver.fail("nvmlDeviceGetTotalEnergyConsumption", code=control.UNKNOWN)
        for _ in range(4):
            reading = source.read(node.now)
            assert only_state(reading).temperature_celsius is not None
            node.sleep(1)
        assert isinstance(reading.meters[0], PowerReading)
        assert node.driver.calls("nvmlInitWithFlags") == 1

    def test_frozen_counter_is_replaced_by_power(self, node: Node, source: NvmlSource) -> None:
        """Fault 25: a counter that stands still while the card draws power is not believed."""
        gpu = node.driver.add_gpu()
        gpu.energy_joules, gpu.power_watts = 50, 300
        kinds = []
        for _ in range(12):
            kinds.append(type(source.read(node.now).meters[0]))
            node.sleep(1)
        assert kinds[0] is kinds[9] is EnergyReading
        assert kinds[-1] is PowerReading

    def test_grace_hopper_prefers_the_power_of_the_gpu_alone(self, node: Node, source: NvmlSource) -> None:
        gpu = node.driver.add_gpu("NVIDIA GH200 480GB")
        gpu.energy_joules, gpu.power_instant_watts = 5_000, 320
        gpu.scope(control.SCOPE_MODULE, power_watts=600)
        (meter,) = source.read(node.now).meters
        assert isinstance(meter, PowerReading)
        assert meter.watts == 320

    def test_grace_hopper_that_knows_the_module_only_is_the_platforms(self, node: Node, source: NvmlSource) -> None:
        """Fault 16: the CPU's own meters would be counted twice. The only card of its machine, in one session."""
        gpu = node.driver.add_gpu("NVIDIA GH200 480GB")
        gpu.field(POWER_INSTANT, code=control.NOT_SUPPORTED)
        for _ in range(4):
            reading = source.read(node.now)
            node.sleep(1)
        (meter,), (problem,) = reading.meters, reading.problems
        assert isinstance(meter, EnergyReading)
        assert (meter.device.component, meter.device.name) == ("platform", "NVIDIA GH200 480GB (whole module)")
        assert (problem.reason, "no process is charged" in problem.message) == ("not_found", True)
        assert node.driver.calls("nvmlInitWithFlags") == 1

    def test_card_that_tells_neither_energy_nor_power(self, node: Node, source: NvmlSource) -> None:
        """Fault 24: a vGPU. Its users and its memory are known all the same, and the session goes on."""
        gpu = node.driver.add_gpu("GRID T4-16C", architecture=6)
        gpu.energy_joules = gpu.power_watts = None
        node.process(1)
        gpu.process(1)
        source.read(node.now)
        for _ in range(2):
            node.sleep(1)
            gpu.sample(1, 40, timestamp_us=round((node.now - 0.1) * 1e6))
            reading = source.read(node.now)
        assert not reading.meters
        assert by_pid(reading)[1].seconds == pytest.approx(0.4, rel=0.01)
        assert only_state(reading).memory_total_bytes
        (problem,) = reading.problems
        assert (problem.reason, bool(problem.fix)) == ("not_found", True)
        assert node.driver.calls("nvmlInitWithFlags") == 1


class TestState:
    def test_all_it_says(self, node: Node, source: NvmlSource) -> None:
        gpu = node.driver.add_gpu(memory_bytes=80 << 30, pci_bus=0x41)
        gpu.memory_used_bytes, gpu.temperature_celsius, gpu.util_percent = 8 << 30, 61, 40
        gpu.sm_clock_hertz, gpu.memory_clock_hertz = 1.98e9, 2.619e9
        state = only_state(source.read(node.now))
        assert (state.uuid, state.index, state.pci_bus_id) == (gpu.uuid, "0", "0000:41:00.0")
        assert (state.gpu_model, state.driver_version) == (gpu.name, "580.95.05")
        assert (state.power_limit_watts, state.temperature_celsius, state.utilization_ratio) == (700, 61, 0.4)
        assert state.memory_used_bytes is not None
        assert state.memory_used_bytes >= 8 << 30
        assert state.memory_total_bytes == 80 << 30
        assert dict(state.clock_hertz) == {"sm": 1.98e9, "memory": 2.619e9}

    def test_what_it_does_not_say_is_unknown(self, node: Node, source: NvmlSource) -> None:
        """Fault 24."""
        gpu = node.driver.add_gpu(architecture=control.VOLTA)
        gpu.temperature_celsius = gpu.util_percent = gpu.sm_clock_hertz = None
        state = only_state(source.read(node.now))
        assert state.temperature_celsius is state.utilization_ratio is state.sm_active_ratio is None
        assert [domain for domain, _ in state.clock_hertz] == ["memory"]

    def test_activity_from_the_second_read_on(self, node: Node, source: NvmlSource) -> None:
        gpu = node.driver.add_gpu()
        gpu.gpm(control.GPM_SM_UTIL, 70)
        gpu.gpm(control.GPM_ANY_TENSOR_UTIL, 25)
        gpu.gpm(control.GPM_DRAM_BW_UTIL, None)
        assert only_state(source.read(node.now)).sm_active_ratio is None
        node.sleep(1)
        state = only_state(source.read(node.now))
        assert (state.sm_active_ratio, state.tensor_active_ratio, state.dram_active_ratio) == (0.7, 0.25, None)

    @pytest.mark.parametrize("function", ["nvmlGpmSampleGet", "nvmlGpmMigSampleGet"])
    def test_activity_that_it_may_not_tell_is_said(self, node: Node, source: NvmlSource, function: str) -> None:
        """Fault 48: absent, with the reason for as long as it is so."""
        gpu = node.driver.add_gpu(mig=["7g.80gb"] if "Mig" in function else [])
        node.driver.fail(function, code=control.NO_PERMISSION)
        for _ in range(3):
            reading = source.read(node.now)
            (problem,) = reading.problems
            assert (problem.reason, gpu.uuid in problem.message) == ("permission", True)
            assert all(state.sm_active_ratio is None for state in reading.gpus)
            node.sleep(1)
        node.driver.mend(function)
        for _ in range(2):
            node.sleep(1)
            reading = source.read(node.now)
        assert (reading.problems, reading.gpus[-1].sm_active_ratio) == ((), 0.0)

    def test_throttling_is_counted_from_the_drivers_clocks(self, node: Node, source: NvmlSource) -> None:
        gpu = node.driver.add_gpu()
        gpu.throttle(sw_power_cap=1000.0)
        source.read(node.now)
        node.sleep(1)
        gpu.throttle(sw_power_cap=0.25, hw_thermal=0.5)
        seconds = dict(only_state(source.read(node.now)).throttle_seconds)
        assert seconds["sw_power_cap"] == pytest.approx(0.25)
        assert seconds["hw_thermal_slowdown"] == pytest.approx(0.5)

    def test_throttling_of_older_drivers_is_counted_while_it_is_in_force(self, node: Node, source: NvmlSource) -> None:
        node.driver.driver_version = "470.82.01"
        gpu = node.driver.add_gpu()
        gpu.field(74, code=control.NOT_SUPPORTED)
        node.driver.fail("nvmlDeviceGetCurrentClocksEventReasons", code=control.FUNCTION_NOT_FOUND)
        gpu.throttle(["sw_power_cap", "hw_thermal"])
        source.read(node.now)
        node.sleep(2)
        seconds = dict(only_state(source.read(node.now)).throttle_seconds)
        gpu.throttle()
        node.sleep(2)
        assert seconds == dict(only_state(source.read(node.now)).throttle_seconds)
        assert (seconds["sw_power_cap"], seconds["hw_thermal_slowdown"], seconds["hw_power_brake"]) == (2, 2, 0)

    def test_throttling_that_nobody_tells_is_unknown(self, node: Node, source: NvmlSource) -> None:
        """Fault 24: absent, not 0; a virtual GPU's guest learns nothing of it."""
        gpu = node.driver.add_gpu()
        for field in (74, 269, 270, 271):
            gpu.field(field, code=control.NOT_SUPPORTED)
        for sort in ("Event", "Throttle"):
            node.driver.fail(f"nvmlDeviceGetCurrentClocks{sort}Reasons", code=control.NOT_SUPPORTED)
        for _ in range(2):
            assert only_state(source.read(node.now)).throttle_seconds == ()
            node.sleep(1)


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
        assert use.process == Process(use.process.key, "vllm")
        assert use.process.key.start_ticks == 4711

    def test_what_was_used_before_the_first_read_is_not_counted(self, node: Node, source: NvmlSource) -> None:
        """Fault 29: told 0, the driver averages over its whole buffer and names the dead."""
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

    def test_lists_are_asked_for_rarely(self, node: Node, source: NvmlSource) -> None:
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

    def test_process_that_exited_pays_its_last_seconds(self, node: Node, source: NvmlSource) -> None:
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

    def test_one_that_came_and_went_is_nobody_else(self, node: Node, source: NvmlSource) -> None:
        gpu = node.driver.add_gpu()
        node.process(1)
        gpu.process(1)
        source.read(node.now)
        node.step({gpu: {1: 50}})
        source.read(node.now)
        node.step({gpu: {1: 50, 99: 25}})
        uses = by_pid(source.read(node.now))
        assert uses[1].seconds == pytest.approx(0.5, rel=0.01)
        assert uses[0].seconds == pytest.approx(0.25, rel=0.01)
        assert (uses[0].hold, uses[0].group) == (0, None)

    def test_scrambled_lists_count_for_nothing(self, node: Node, source: NvmlSource) -> None:
        """Fault 24: early R535 drivers write larger entries; the samples still tell who works."""
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

    def test_one_that_let_go_of_the_card_holds_it_no_longer(self, node: Node, source: NvmlSource) -> None:
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

    def test_pids_of_another_namespace_are_nobodys(self, node: Node, source: NvmlSource) -> None:
        """Fault 28: what is not in /proc is left unnamed, its share goes to no other, and the fix is said once."""
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
        assert uses[0].seconds == pytest.approx(uses[645400].seconds, rel=0.01)
        assert uses[0].hold == 1.0
        (problem,) = reading.problems
        assert "hostPID: true" in problem.fix

    def test_pid_that_means_another_process_here(self, node: Node, source: NvmlSource) -> None:
        """Fault 28: where /proc is not of our pid namespace, only who has the card open is believed."""
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
        assert set(by_pid(source.read(node.now))) == {0, 8}
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
        """Fault 30: what the driver books on the MPS server is its clients'."""
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
        before = by_pid(source.read(node.now))[1].process.key
        node.process(1, "/other", start_ticks=9)
        node.sleep(1)
        after = by_pid(source.read(node.now))[1]
        assert (before.start_ticks, after.process.key.start_ticks) == (5, 9)
        assert after.group is not None
        assert after.group.path == "/other"

    @pytest.mark.parametrize("version", [1, 2])
    def test_group_is_the_one_that_the_cpu_is_booked_on(self, node: Node, source: NvmlSource, version: int) -> None:
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


class TestMig:
    LAYOUT = ("3g.40gb", "2g.20gb", "1g.10gb")

    def load(self, node: Node, *, hopper: bool = True) -> Gpu:
        gpu = node.driver.add_gpu(architecture=control.HOPPER if hopper else control.AMPERE, mig=self.LAYOUT)
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

    def test_holders_of_all_instances_are_asked_for_at_once(self, node: Node, source: NvmlSource) -> None:
        """Each list takes milliseconds, and there may be 56 instances; only who sees nobody looks into each."""
        gpu = self.load(node)
        source.read(node.now)
        assert node.driver.calls("nvmlDeviceGetComputeRunningProcesses_v3") == 2, "the bindings ask for the size first"
        for pid in (1, 2, 3):
            gpu.end(pid)
        node.driver.reset_calls()
        node.sleep(10)
        assert not {1, 2, 3} & by_pid(source.read(node.now)).keys()
        assert node.driver.calls("nvmlDeviceGetComputeRunningProcesses_v3") == 1 + 3

    def test_nobody_on_any_instance_is_an_idle_card(self, node: Node, source: NvmlSource) -> None:
        """The driver tells no utilisation under MIG; without it the card's idle watts would never be known."""
        gpu = node.driver.add_gpu(mig=["3g.40gb"], architecture=control.AMPERE)
        assert source.read(node.now).gpus[0].utilization_ratio == 0
        node.process(1)
        gpu.mig[0].process(1)
        node.sleep(10)
        assert source.read(node.now).gpus[0].utilization_ratio is None

    def test_card_without_any_instance_is_idle(self, node: Node, source: NvmlSource) -> None:
        """MIG is on and nothing is cut: nobody can run there."""
        gpu = node.driver.add_gpu(architecture=control.AMPERE)
        gpu.state.mig_mode = 1
        reading = source.read(node.now)
        assert (only_state(reading).utilization_ratio, reading.gpu_uses) == (0.0, ())

    def test_who_may_not_know_the_holders_says_so(self, node: Node, source: NvmlSource) -> None:
        """Fault 48: without privilege; then nobody knows whether the card is idle either."""
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

    def test_what_the_card_may_not_tell_its_instances_may(self, node: Node, source: NvmlSource) -> None:
        gpu = self.load(node)
        node.driver.fail("nvmlDeviceGetComputeRunningProcesses_v3", code=control.NO_PERMISSION, times=1)
        node.driver.fail("nvmlDeviceGetGraphicsRunningProcesses_v3", code=control.NO_PERMISSION, times=1)
        reading = source.read(node.now)
        assert (set(by_pid(reading)), reading.problems) == ({1, 2, 3}, ())
        assert len(gpu.mig) == 3

    def test_cut_anew(self, node: Node, source: NvmlSource) -> None:
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


class TestLifecycle:
    @pytest.mark.parametrize("preload", ["", "import sys; sys.modules['pynvml'] = None; "])
    def test_without_driver_or_bindings(self, preload: str) -> None:
        """Fault 19: no library, or no module, is a reason with a fix; a process of its own has loaded neither."""
        script = (
            f"{preload}from exporter.host import Host; from exporter.sources.nvml.source import NvmlSource\n"
            "from exporter.records import Unavailable\n"
            "try: NvmlSource(Host()).read(1.0); print('driver')\n"
            "except Unavailable as error: print(error.reason, bool(error.fix))"
        )
        environment = {key: value for key, value in os.environ.items() if not key.startswith(("LD_", "FAKE_"))}
        done = subprocess.run(
            [sys.executable, "-c", script], check=False, capture_output=True, text=True, env=environment
        )
        if done.stdout.strip() == "driver":
            pytest.skip("this machine has an NVIDIA driver")
        assert done.stdout.strip() == "not_found True", done.stderr

    def test_no_card(self, node: Node, source: NvmlSource) -> None:
        with pytest.raises(Unavailable, match="no GPU") as caught:
            source.read(node.now)
        assert caught.value.reason == "not_found"

    def test_upgraded_driver(self, node: Node, source: NvmlSource) -> None:
        """Fault 20: the mismatch is said with its fix, and reading goes on as soon as it can."""
        node.driver.add_gpu()
        source.read(node.now)
        node.driver.break_all(control.LIB_RM_VERSION_MISMATCH)
        for _ in range(2):
            with pytest.raises(Unavailable) as caught:
                source.read(node.now)
            assert caught.value.reason == "driver"
            assert "reload the module" in caught.value.fix
        node.driver.break_all(0)
        node.sleep(1)
        assert source.read(node.now).meters

    def test_older_library_lacks_versioned_functions(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """Fault 20: NVMLLibraryMismatchError is no NVMLError; the lists are unknown, the rest is read."""
        missing = [f"nvmlDeviceGet{sort}RunningProcesses_v3" for sort in ("Compute", "Graphics", "MPSCompute")]
        old = control.build(tmp_path / "old", without=missing)
        with FakeDriver(old, tmp_path) as driver:
            monkeypatch.setenv(control.STATE_VARIABLE, str(driver.path))
            node = Node(tmp_path, driver, fresh_bindings(old))
            gpu = driver.add_gpu()
            node.process(1)
            source = NvmlSource(node.host, node.bindings)
            source.read(node.now)
            for _ in range(2):
                node.step({gpu: {1: 50}})
                reading = source.read(node.now)
            assert reading.meters
            assert by_pid(reading)[1].seconds == pytest.approx(0.5, rel=0.01)
            assert by_pid(reading)[1].hold == 1.0
            source.close()

    def test_container_that_lost_its_devices(self, node: Node, source: NvmlSource) -> None:
        """Fault 24: Unknown Error from everything ends the session; the next read opens another."""
        node.driver.add_gpu()
        source.read(node.now)
        node.driver.break_all(control.UNKNOWN)
        with pytest.raises(Unavailable):
            source.read(node.now)
        node.driver.break_all(0)
        assert source.read(node.now).meters

    def test_lost_card(self, node: Node, source: NvmlSource) -> None:
        """Fault 22: its series are absent, the other card goes on, and a reset brings it back."""
        first, second = node.driver.add_gpu(), node.driver.add_gpu()
        source.read(node.now)
        first.lose()
        for _ in range(2):
            node.step({second: {}})
            reading = source.read(node.now)
            assert set(energy(reading)) == {second.uuid}
            assert {state.uuid for state in reading.gpus} == {second.uuid}
            (problem,) = reading.problems
            assert (problem.reason, first.uuid in problem.message) == ("driver", True)
        first.lose(False)
        node.step({first: {}, second: {}}, seconds=RESCAN_SECONDS)
        assert set(energy(source.read(node.now))) == {first.uuid, second.uuid}

    def test_last_card_lost(self, node: Node, source: NvmlSource) -> None:
        """Fault 22: with no card left the source is down, until it can open a session again."""
        gpu = node.driver.add_gpu()
        source.read(node.now)
        gpu.lose()
        for _ in range(2):
            with pytest.raises(Unavailable) as caught:
                source.read(node.now)
            assert caught.value.reason == "driver"
        gpu.lose(False)
        assert source.read(node.now).meters

    def test_plugged_and_unplugged(self, node: Node, source: NvmlSource) -> None:
        """Faults 31 and 32: a new card appears; when one goes, the others move up and are still who they are."""
        first = node.driver.add_gpu()
        first.energy_joules = 1
        source.read(node.now)
        second = node.driver.add_gpu()
        second.energy_joules = 2
        assert energy(source.read(node.now)) == {first.uuid: 1, second.uuid: 2}
        first.remove()
        reading = source.read(node.now)
        assert energy(reading) == {second.uuid: 2}
        assert only_state(reading).index == "0"

    def test_card_that_the_library_does_not_know_yet(self, node: Node, source: NvmlSource) -> None:
        """Fault 32: the library knows the cards of its start; more of them in /proc ask for a new session."""
        node.driver.add_gpu()
        source.read(node.now)
        for address in ("0000:01:00.0", "0000:02:00.0"):
            node.write(f"proc/driver/nvidia/gpus/{address}/information", "")
        node.driver.reset_calls()
        for _ in range(3):
            node.sleep(RESCAN_SECONDS)
            source.read(node.now)
        assert node.driver.calls("nvmlInitWithFlags") == 1, "once: a container may see fewer than there are for good"

    def test_sleeping_card_is_not_touched(self, node: Node, source: NvmlSource) -> None:
        gpu = node.driver.add_gpu(pci_bus=0x41)
        source.read(node.now)
        status = node.write("sys/bus/pci/devices/0000:41:00.0/power/runtime_status", "suspended\n")
        node.sleep(1)
        calls = node.driver.calls("nvmlDeviceGetFieldValues", gpu)
        reading = source.read(node.now)
        assert (reading.meters, reading.gpus, reading.problems) == ((), (), ())
        assert node.driver.calls("nvmlDeviceGetFieldValues", gpu) == calls
        other = node.driver.add_gpu(pci_bus=0x42)
        other.lose()
        node.write("sys/bus/pci/drivers/nvidia/0000:42:00.0", "")
        node.sleep(60)
        assert source.read(node.now).problems, "the session goes on for the one that sleeps"
        other.remove()
        (node.root / "sys/bus/pci/drivers/nvidia/0000:42:00.0").unlink()
        status.write_text("active\n")
        node.sleep(60)
        assert isinstance(source.read(node.now).meters[0], EnergyReading), "sleep is not a frozen counter"

    def test_close_gives_everything_back(self, node: Node, source: NvmlSource) -> None:
        """Fault 33: a clean stop leaves no sample and no session in the driver."""
        node.driver.add_gpu()
        source.read(node.now)
        source.close()
        source.close()
        assert node.driver.calls("nvmlGpmSampleFree") == node.driver.calls("nvmlGpmSampleAlloc") == 2
        assert node.driver.calls("nvmlShutdown") == 1


class Names(Namer):
    """Every group is a container of its own."""

    def workload(self, group: GroupKey) -> Workload:
        return Workload(container=group.path.strip("/"), runtime="docker")

    def model(self, group: GroupKey | None, process: Process) -> Model | None:
        return None


def joules_of(snapshot: Snapshot, mode: str) -> dict[int, float]:
    return {
        row.owner.pid: sum(
            joules
            for (component, m), joules in zip(row.cells, row.joules, strict=True)
            if (component, m) == ("gpu", mode)
        )
        for row in snapshot.processes
        if isinstance(row.owner, ProcessOwner)
    }


class Bill:
    """Runs the sampler over a script and adds up what each process should owe."""

    def __init__(self, node: Node, *gpus: Gpu) -> None:
        self.node = node
        options = SamplerOptions(
            source_timeout_seconds=5, interval_seconds=5, idle_watts={g.uuid: IDLE_WATTS for g in gpus}
        )
        self.sampler = Sampler([NvmlSource(node.host, node.bindings)], Names(), node.host, options)
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
        for row in self.snapshot.devices:
            assert row.watts is not None
        total = sum(row.joules for row in self.snapshot.devices)
        active, idle = joules_of(self.snapshot, "active"), joules_of(self.snapshot, "idle")
        unattributed = sum(joules for _, _, joules in self.snapshot.unattributed)
        assert sum(active.values()) + sum(idle.values()) + unattributed == pytest.approx(total, rel=1e-9)
        assert self.snapshot.conservation_error_ratio < 1e-9
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

    def test_pids_of_another_namespace_cost_nobody(self, node: Node, bill: Callable[..., Bill]) -> None:
        """Fault 28: the known process pays its own share only."""
        gpu = node.driver.add_gpu()
        node.process(1)
        gpu.process(1)
        gpu.process(324)
        account = bill(gpu)
        account.run(gpu, {1: 40, 324: 40})
        del account.truth[324]
        account.check()

    def test_instances(self, node: Node, bill: Callable[..., Bill]) -> None:
        gpu = node.driver.add_gpu(mig=TestMig.LAYOUT)
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
        before = account.snapshot.devices[0].joules
        gpu.energy_joules = 0
        account.run(gpu, {1: 50}, ticks=10)
        (row,) = account.snapshot.devices
        assert row.resets == 1
        assert before < row.joules <= before + 10 * (IDLE_WATTS + 250)
        assert row.joules == pytest.approx(before + 9 * (IDLE_WATTS + 250))

    def test_hanging_driver(self, node: Node) -> None:
        """Fault 23: a call that does not return costs this source only; it is back when the call is."""
        node.driver.add_gpu()
        options = SamplerOptions(source_timeout_seconds=5, interval_seconds=5)
        sampler = Sampler([NvmlSource(node.host, node.bindings)], Names(), node.host, options)
        assert sampler.tick().devices
        sampler.reconfigure(SamplerOptions(source_timeout_seconds=0.05))
        node.driver.hang("nvmlDeviceGetFieldValues")
        node.sleep(1)
        (health,) = sampler.tick().sources
        assert (health.up, health.reason) == (False, "timeout")
        node.driver.release()
        for _ in range(500):
            node.sleep(0.01)
            time.sleep(0.01)
            (health,) = sampler.tick().sources
            if health.up:
                break
        assert health.up
        sampler.close()
