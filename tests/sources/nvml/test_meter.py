"""Energy of NVIDIA cards: counters, integrated power, broken and module-wide meters."""

from __future__ import annotations

import pytest

from exporter.records import (
    EnergyReading,
    PowerReading,
)
from exporter.sources.nvml.source import NvmlSource
from tests.support.nvml import control
from tests.support.nvml.node import Node
from tests.support.nvml.readings import COUNTER, POWER_INSTANT, by_pid, energy, only_state


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

    def test_without_fields_the_single_call_is_used(self, node: Node, source: NvmlSource) -> None:
        node.driver.add_gpu().energy_joules = 7.5
        node.driver.fail("nvmlDeviceGetFieldValues", code=control.FUNCTION_NOT_FOUND)
        assert energy(source.read(node.now)).popitem()[1] == 7.5

    @pytest.mark.parametrize("value_type", [0, 1, 3, 4])
    def test_type_of_a_field_is_believed(self, node: Node, source: NvmlSource, value_type: int) -> None:
        """Fault 24: the driver reports the type of each field."""
        gpu = node.driver.add_gpu()
        gpu.energy_joules = 99.0
        gpu.field(COUNTER, value_type=value_type)
        assert energy(source.read(node.now))[gpu.uuid] == 99.0

    def test_card_without_counter_is_integrated(self, node: Node, source: NvmlSource) -> None:
        """Fault 24: NOT_SUPPORTED leads to the power, and the device's method shows it."""
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

    def test_failing_counter_is_a_problem_first_and_replaced_later(self, node: Node, source: NvmlSource) -> None:
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
        """Fault 24: it reports everything else, so a new session would not help; its power replaces it in time."""
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

    def test_card_that_reports_neither_energy_nor_power(self, node: Node, source: NvmlSource) -> None:
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
