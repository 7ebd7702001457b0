"""State of NVIDIA cards: gauges, activity and throttling."""

from __future__ import annotations

import ctypes
from typing import Any

import pytest

from exporter.sources.nvml import driver
from exporter.sources.nvml.source import NvmlSource
from tests.support.nvml import control
from tests.support.nvml.node import Node
from tests.support.nvml.readings import only_state


class TestState:
    def test_all_that_a_card_reports(self, node: Node, source: NvmlSource) -> None:
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

    def test_what_a_card_does_not_report_is_unknown(self, node: Node, source: NvmlSource) -> None:
        """Fault 24."""
        gpu = node.driver.add_gpu(architecture=control.VOLTA)
        gpu.temperature_celsius = gpu.util_percent = gpu.sm_clock_hertz = None
        state = only_state(source.read(node.now))
        assert state.temperature_celsius is state.utilization_ratio is state.sm_active_ratio is None
        assert [domain for domain, _ in state.clock_hertz] == ["memory"]

    def test_gauges_are_at_most_five_seconds_old_and_cards_take_turns(self, node: Node, source: NvmlSource) -> None:
        gpus = [node.driver.add_gpu(mig=["1g.10gb"] if number == 3 else ()) for number in range(4)]
        source.read(node.now)
        changed: list[int] = []
        for _ in range(5):
            node.sleep(1)
            for gpu in gpus:
                gpu.temperature_celsius += 1
                gpu.memory_used_bytes += 1 << 20
            states = source.read(node.now).gpus
            whole = [state for state in states if not state.gpu_instance]
            changed.append(
                sum(
                    state.temperature_celsius == gpu.temperature_celsius for state, gpu in zip(whole, gpus, strict=True)
                )
            )
        assert changed == [0, 1, 1, 1, 1]

    def test_structures_are_those_of_the_bindings(self, bindings: Any) -> None:
        assert driver._FIELD.size == ctypes.sizeof(bindings.c_nvmlFieldValue_t)
        assert driver._METRIC.size == ctypes.sizeof(bindings.c_nvmlGpmMetric_t)
        for number, name in enumerate(("dVal", "uiVal", "ulVal", "ullVal", "sllVal", "siVal", "usVal")):
            assert driver._VALUES[number].size == getattr(bindings.c_nvmlValue_t, name).size

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
    def test_activity_without_permission_is_a_problem(self, node: Node, source: NvmlSource, function: str) -> None:
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

    def test_throttling_that_is_not_reported_is_unknown(self, node: Node, source: NvmlSource) -> None:
        """Fault 24: absent, not 0; a virtual GPU's guest learns nothing of it."""
        gpu = node.driver.add_gpu()
        for field in (74, 269, 270, 271):
            gpu.field(field, code=control.NOT_SUPPORTED)
        for sort in ("Event", "Throttle"):
            node.driver.fail(f"nvmlDeviceGetCurrentClocks{sort}Reasons", code=control.NOT_SUPPORTED)
        for _ in range(2):
            assert only_state(source.read(node.now)).throttle_seconds == ()
            node.sleep(1)
