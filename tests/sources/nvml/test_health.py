"""What is known of how well an NVIDIA card and its numbers are: agreement, freshness, sleep, ECC and Xid errors."""

from __future__ import annotations

import pickle
from collections.abc import Iterator

import pytest

from exporter.records import (
    EnergyReading,
    GpuState,
    GroupKey,
    Model,
    PowerReading,
    Problem,
    Process,
    Reading,
    Unavailable,
    Workload,
)
from exporter.sampling.sampler import Sampler, SamplerOptions
from exporter.snapshot import DeviceRow, Snapshot
from exporter.sources.nvml.cross_check import FIRST_SECONDS, WINDOW_SECONDS
from exporter.sources.nvml.source import RESCAN_SECONDS, NvmlSource
from exporter.workloads.protocol import Namer
from tests.support.nvml import control
from tests.support.nvml.control import Gpu
from tests.support.nvml.node import IDLE_WATTS, Node


def run(node: Node, source: NvmlSource, gpu: Gpu, seconds: float, error: float = 1.0) -> Reading:
    """Let a card draw 60 W, of which its counter counts ``error`` times as much, and read it every second."""
    for _ in range(int(seconds)):
        node.step({gpu: {}})
        gpu.energy_joules += IDLE_WATTS * (error - 1)
        reading = source.read(node.now)
    return reading


def agreement(reading: Reading) -> float | None:
    (meter,) = reading.meters
    assert isinstance(meter, EnergyReading)
    return meter.agreement_ratio


def state(reading: Reading) -> GpuState:
    (only,) = reading.gpus
    return only


class TestAgreement:
    def test_is_reported_after_a_minute_and_kept_up_to_date(self, node: Node, source: NvmlSource) -> None:
        gpu = node.driver.add_gpu()
        source.read(node.now)
        assert agreement(run(node, source, gpu, FIRST_SECONDS - 1)) is None
        assert agreement(run(node, source, gpu, 1)) == pytest.approx(1.0)
        assert agreement(run(node, source, gpu, WINDOW_SECONDS, error=1.04)) == pytest.approx(1.04, rel=1e-3)

    def test_counter_far_off_is_a_problem_for_as_long_as_it_is(self, node: Node, source: NvmlSource) -> None:
        """Fault 25: a counter in the wrong unit; which of both is right is unknown, so it stays and is reported."""
        gpu = node.driver.add_gpu()
        source.read(node.now)
        for _ in range(2):
            reading = run(node, source, gpu, FIRST_SECONDS, error=0.06)
            (problem,) = reading.problems
            assert (problem.reason, gpu.uuid in problem.message) == ("implausible", True)
            assert isinstance(reading.meters[0], EnergyReading)
        assert not run(node, source, gpu, 2 * WINDOW_SECONDS).problems

    def test_frozen_counter_is_reported_once(self, node: Node, source: NvmlSource) -> None:
        """Fault 25: its power is integrated from then on, and the device's method shows it."""
        gpu = node.driver.add_gpu()
        gpu.energy_joules, gpu.power_watts = 50, 300
        problems: list[Problem] = []
        for _ in range(20):
            reading = source.read(node.now)
            problems += reading.problems
            node.sleep(1)
        (meter,) = reading.meters
        assert isinstance(meter, PowerReading)
        assert (meter.watts, meter.device.method) == (300, "power_integrated")
        assert [problem.reason for problem in problems] == ["implausible"]

    def test_without_a_gauge_there_is_nothing_to_compare(self, node: Node, source: NvmlSource) -> None:
        gpu = node.driver.add_gpu()
        gpu.field(186, code=control.NOT_SUPPORTED)
        source.read(node.now)
        assert agreement(run(node, source, gpu, FIRST_SECONDS + 1)) is None


class TestFreshness:
    def test_repeated_value_is_no_reading(self, node: Node, source: NvmlSource) -> None:
        """Fault 27: the driver hands out what it knew before; what was used meanwhile comes with the next reading."""
        gpu = node.driver.add_gpu()
        source.read(node.now)
        assert run(node, source, gpu, 1).meters
        gpu.repeat()
        assert source.read(node.now).meters, "the stamp is new"
        for _ in range(3):
            node.sleep(1)
            reading = source.read(node.now)
            assert (reading.meters, reading.problems) == ((), ())
            assert reading.gpus, "its other values have no stamp"
        gpu.repeat(False)
        gpu.energy_joules += 180
        (meter,) = source.read(node.now).meters
        assert isinstance(meter, EnergyReading)
        assert meter.joules == IDLE_WATTS + 180

    def test_lasting_repetition_is_a_problem(self, node: Node, source: NvmlSource) -> None:
        """Fault 27: and not a frozen counter, which the power would replace."""
        gpu, other = node.driver.add_gpu(), node.driver.add_gpu()
        for _ in range(2):
            source.read(node.now)
            node.step({gpu: {}, other: {}})
        gpu.repeat()
        for _ in range(12):
            node.step({other: {}})
            reading = source.read(node.now)
        (problem,) = reading.problems
        assert (problem.reason, gpu.uuid in problem.message) == ("timeout", True)
        assert [meter.device.id for meter in reading.meters] == [other.uuid]
        gpu.repeat(False)
        node.step({gpu: {}, other: {}})
        assert all(isinstance(meter, EnergyReading) for meter in source.read(node.now).meters)

    def test_stamps_that_never_move_mean_nothing(self, node: Node, source: NvmlSource) -> None:
        """Fault 27: some drivers may not stamp at all."""
        gpu = node.driver.add_gpu()
        gpu.repeat()
        source.read(node.now)
        for _ in range(3):
            assert run(node, source, gpu, 1).meters
            node.sleep(1)
            assert source.read(node.now).meters

    def test_value_that_moves_without_its_stamp_proves_the_stamp_wrong(self, node: Node, source: NvmlSource) -> None:
        """Fault 27."""
        gpu = node.driver.add_gpu()
        source.read(node.now)
        run(node, source, gpu, 2)
        gpu.repeat()
        source.read(node.now)
        assert run(node, source, gpu, 1).meters
        node.sleep(1)
        assert source.read(node.now).meters


class TestErrors:
    def test_ecc_errors_are_read_once_a_minute(self, node: Node, source: NvmlSource) -> None:
        gpu = node.driver.add_gpu()
        gpu.ecc(corrected=7, uncorrected=1)
        gpu.repair(pending=True)
        reading = source.read(node.now)
        assert dict(state(reading).ecc_errors) == {"corrected": 7, "uncorrected": 1}
        assert dict(state(reading).memory_repair) == {"pending": 1, "failed": 0}
        gpu.ecc(corrected=9, uncorrected=1)
        node.driver.reset_calls()
        assert dict(state(run(node, source, gpu, 59)).ecc_errors)["corrected"] == 7
        assert node.driver.calls("nvmlDeviceGetFieldValues") == 59, "one call a second, for the meter"
        assert dict(state(run(node, source, gpu, 1)).ecc_errors)["corrected"] == 9

    def test_card_without_ecc_shows_none(self, node: Node, source: NvmlSource) -> None:
        gpu = node.driver.add_gpu("NVIDIA GeForce RTX 4090")
        gpu.ecc(corrected=None, uncorrected=None)
        gpu.repair(pending=None, failed=None)
        only = state(source.read(node.now))
        assert (only.ecc_errors, only.memory_repair) == ((), ())

    def test_xid_errors_are_counted_from_0(self, node: Node, source: NvmlSource) -> None:
        first, second = node.driver.add_gpu(), node.driver.add_gpu()
        first.xid(13)  # before anybody looked
        reading = source.read(node.now)
        assert [(gpu.xid_errors, gpu.last_xid) for gpu in reading.gpus] == [(0, None), (0, None)]
        second.xid(31)
        second.xid(94)
        node.step({first: {}, second: {}}, seconds=10)
        reading = source.read(node.now)
        assert [(gpu.xid_errors, gpu.last_xid) for gpu in reading.gpus] == [(0, None), (2, 94)]

    def test_xid_errors_are_not_waited_for(self, node: Node, source: NvmlSource) -> None:
        """The queue is read every 10 s, with a wait of 1 ms."""
        gpu = node.driver.add_gpu()
        source.read(node.now)
        node.driver.reset_calls()
        run(node, source, gpu, 30)
        assert node.driver.calls("nvmlEventSetWait_v2") == 3

    def test_card_that_reports_no_xid_errors(self, node: Node, source: NvmlSource) -> None:
        """Fault 24: unknown is absent, and queried once."""
        gpu = node.driver.add_gpu()
        node.driver.fail("nvmlDeviceRegisterEvents", code=control.NOT_SUPPORTED)
        source.read(node.now)
        assert state(run(node, source, gpu, 30)).xid_errors is None
        assert node.driver.calls("nvmlDeviceRegisterEvents", gpu) == 1
        assert node.driver.calls("nvmlEventSetFree") == 1

    def test_queues_are_given_back(self, node: Node, source: NvmlSource) -> None:
        """Fault 33, and a count goes on in the next session."""
        gpu = node.driver.add_gpu()
        source.read(node.now)
        gpu.xid(31)
        run(node, source, gpu, 10)
        source.close()
        assert node.driver.calls("nvmlEventSetFree") == node.driver.calls("nvmlEventSetCreate") == 1
        gpu.xid(43)  # nobody listens
        node.sleep(1)
        assert state(source.read(node.now)).xid_errors == 1

    def test_a_reading_is_plain_values(self, node: Node, source: NvmlSource) -> None:
        """It has to pass from one process to another."""
        gpu = node.driver.add_gpu(mig=("1g.10gb",))
        gpu.ecc(corrected=1)
        gpu.xid(1)
        source.read(node.now)
        reading = run(node, source, gpu, FIRST_SECONDS + 1)
        assert pickle.loads(pickle.dumps(reading)) == reading


class TestThrottleFields:
    @pytest.mark.parametrize(
        ("version", "counted"), [("580.82.07", True), ("590.48.01", True), ("580.65.06", False), ("575.51.03", False)]
    )
    def test_numbers_are_those_of_the_driver(self, node: Node, source: NvmlSource, version: str, counted: bool) -> None:
        """Fields 269–271 meant power smoothing before driver 580.82: then they are not read."""
        node.driver.driver_version = version
        gpu = node.driver.add_gpu()
        source.read(node.now)
        node.sleep(1)
        gpu.throttle(hw_thermal=0.25)
        seconds = dict(state(source.read(node.now)).throttle_seconds)
        assert seconds["hw_thermal_slowdown"] == (0.25 if counted else 0)


class TestSleep:
    STATUS = "sys/bus/pci/devices/0000:{}:00.0/power/runtime_status"

    def card(self, node: Node, bus: int, status: str) -> Gpu:
        node.write(f"sys/bus/pci/drivers/nvidia/0000:{bus:02x}:00.0", "")
        node.write(self.STATUS.format(f"{bus:02x}"), f"{status}\n")
        return node.driver.add_gpu(pci_bus=bus)

    def test_card_that_sleeps_from_the_start_is_not_woken(self, node: Node, source: NvmlSource) -> None:
        """Not even a session is opened: the driver's devices would be. It is named by its place, for want of its id."""
        self.card(node, 0x41, "suspended")
        for _ in range(3):
            assert source.read(node.now) == Reading(asleep=("0000:41:00.0",))
            node.sleep(RESCAN_SECONDS)
        assert node.driver.all_calls() == {}
        node.write(self.STATUS.format("41"), "active\n")
        assert source.read(node.now).meters

    def test_of_two_cards_one_sleeps(self, node: Node, source: NvmlSource) -> None:
        """The other is found by its address, because asking for a handle by index would wake the first."""
        sleeper, other = self.card(node, 0x41, "suspended"), self.card(node, 0x42, "active")
        for _ in range(3):
            reading = source.read(node.now)
            assert [meter.device.id for meter in reading.meters] == [other.uuid]
            assert [gpu.index for gpu in reading.gpus] == ["1"]
            assert reading.asleep == ("0000:41:00.0",)
            assert not reading.problems
            node.step({other: {}}, seconds=RESCAN_SECONDS)
        assert all(node.driver.calls(name, sleeper) == 0 for name in node.driver.all_calls())

    def test_card_that_falls_asleep_is_left_alone_and_named(self, node: Node, source: NvmlSource) -> None:
        sleeper, other = self.card(node, 0x41, "active"), self.card(node, 0x42, "active")
        source.read(node.now)
        node.write(self.STATUS.format("41"), "suspended\n")
        node.driver.reset_calls()
        for _ in range(5):
            node.step({other: {}}, seconds=RESCAN_SECONDS / 2)
            reading = source.read(node.now)
            assert reading.asleep == (sleeper.uuid,)
        assert all(node.driver.calls(name, sleeper) == 0 for name in node.driver.all_calls())
        assert node.driver.calls("nvmlDeviceGetFieldValues", other) > 0
        node.write(self.STATUS.format("42"), "suspended\n")
        node.driver.reset_calls()
        assert set(source.read(node.now).asleep) == {sleeper.uuid, other.uuid}
        assert "nvmlDeviceGetCount_v2" not in node.driver.all_calls()
        node.write(self.STATUS.format("41"), "active\n")
        node.sleep(1)
        assert [meter.device.id for meter in source.read(node.now).meters] == [sleeper.uuid]

    def test_address_that_this_container_does_not_have(self, node: Node, source: NvmlSource) -> None:
        """sysfs shows the host's cards: one that is not ours is no problem of ours."""
        self.card(node, 0x41, "suspended")
        ours = self.card(node, 0x42, "active")
        node.write("sys/bus/pci/drivers/nvidia/0000:43:00.0", "")
        reading = source.read(node.now)
        assert [meter.device.id for meter in reading.meters] == [ours.uuid]
        assert not reading.problems


class Nobody(Namer):
    """Names nothing."""

    def workload(self, group: GroupKey) -> Workload:
        return Workload()

    def model(self, group: GroupKey | None, process: Process) -> Model | None:
        return None


class TestDeviceRow:
    @pytest.fixture
    def sampler(self, node: Node) -> Iterator[Sampler]:
        options = SamplerOptions(source_timeout_seconds=5, interval_seconds=5)
        made = Sampler([NvmlSource(node.host, node.bindings)], Nobody(), node.host, options)
        yield made
        made.close()

    @staticmethod
    def row(snapshot: Snapshot, gpu: Gpu) -> DeviceRow:
        return next(row for row in snapshot.energy.devices if row.device.id == gpu.uuid)

    def test_lost_card(self, node: Node, sampler: Sampler) -> None:
        """Fault 22: up 0, its gauges absent, its joules kept, and the time of its last reading stands still."""
        gpu, other = node.driver.add_gpu(), node.driver.add_gpu()
        sampler.tick()
        node.step({gpu: {}, other: {}})
        before = self.row(sampler.tick(), gpu)
        assert (before.up, before.watts, before.last_read) == (True, IDLE_WATTS, node.host.wall())
        gpu.lose()
        node.set_back = 500.0  # the wall clock is set: what was read does not move with it (fault 50)
        for _ in range(3):
            node.step({other: {}})
            snapshot = sampler.tick()
        after = self.row(snapshot, gpu)
        assert (after.up, after.watts, after.joules) == (False, None, before.joules)
        assert after.last_read == before.last_read
        assert {state.uuid for state in snapshot.gpu.states} == {other.uuid}
        assert self.row(snapshot, other).last_read == node.host.wall()

    def test_stale_card_while_the_source_is_up(self, node: Node, sampler: Sampler) -> None:
        """Fault 27: `up` of the source is 1 and it has samples; only the card's own time shows it."""
        gpu, other = node.driver.add_gpu(), node.driver.add_gpu()
        for _ in range(2):
            sampler.tick()
            node.step({gpu: {}, other: {}})
        gpu.repeat()
        fresh = self.row(sampler.tick(), gpu)
        for _ in range(5):
            node.step({other: {}})
            snapshot = sampler.tick()
        assert snapshot.exporter.sources[0].up
        assert (self.row(snapshot, gpu).up, self.row(snapshot, gpu).last_read) == (False, fresh.last_read)
        gpu.repeat(False)
        gpu.energy_joules += 6 * IDLE_WATTS
        node.step({other: {}})
        assert self.row(sampler.tick(), gpu).joules == pytest.approx(fresh.joules + 6 * IDLE_WATTS), "nothing is lost"

    def test_sleeping_card_is_neither_up_nor_down(self, node: Node, sampler: Sampler) -> None:
        gpu = node.driver.add_gpu(pci_bus=0x41)
        sampler.tick()
        node.write("sys/bus/pci/devices/0000:41:00.0/power/runtime_status", "suspended\n")
        node.sleep(1)
        row = self.row(sampler.tick(), gpu)
        assert (row.up, row.watts) == (None, None)

    def test_disagreement_reaches_the_failures(self, node: Node, sampler: Sampler) -> None:
        """Fault 25."""
        gpu = node.driver.add_gpu()
        sampler.tick()
        for _ in range(int(FIRST_SECONDS)):
            node.step({gpu: {}})
            gpu.energy_joules += 4 * IDLE_WATTS
            snapshot = sampler.tick()
        assert self.row(snapshot, gpu).agreement_ratio == pytest.approx(5.0, rel=1e-3)
        (health,) = snapshot.exporter.sources
        assert (health.up, health.failures["implausible"]) == (True, 1)
        assert "power gauge" in health.message


def test_source_that_cannot_open_a_session_reports_it(node: Node, source: NvmlSource) -> None:
    """Fault 20: sleep is not mistaken for it."""
    node.driver.add_gpu()
    node.driver.break_all(control.DRIVER_NOT_LOADED)
    with pytest.raises(Unavailable):
        source.read(node.now)
