"""HPE Cray's pm_counters: one update per reading, restarts of the controller, the parts of the node, frozen files."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from exporter.records import EnergyReading, PowerReading, Reading, Unavailable
from exporter.sources.cray.source import CraySource
from tests.support.written_node import AMD, WrittenNode

ROOT = "sys/cray/pm_counters"
EX = {"": 812, "cpu_": 160, "memory_": 60, "accel0_": 130, "accel1_": 131, "accel2_": 132, "accel3_": 133}
"""A node's watts, with its four accelerators."""


class CrayNode(WrittenNode):
    """Writes the counters with the rest of the machine; ``drawn`` is watts by the start of the file's name."""

    def __init__(self, root: Path, drawn: dict[str, int] = EX) -> None:
        super().__init__(root, cpus=16, cpuinfo=AMD)
        self.drawn: dict[str, float] = dict(drawn)
        self.counted: dict[str, float] = dict.fromkeys(drawn, 5e6)
        self.freshness = 100
        self.counter("generation", "12")
        self.counter("startup", "1700000000000000")
        self.counter("version", "3")
        self.counter("raw_scan_hz", "10")
        self.counter("power_cap", "0 W 0 us")
        self.update(0.0)

    def counter(self, name: str, text: str) -> None:
        self.text(f"{ROOT}/{name}", text)

    def update(self, seconds: float) -> None:
        """Advance everything by one update of the controller."""
        self.freshness += 1
        self.counter("freshness", str(self.freshness))
        for part, watts in self.drawn.items():
            self.counted[part] += watts * seconds
            self.counter(f"{part}energy", f"{int(self.counted[part])} J 1700000000000000 us")
            self.counter(f"{part}power", f"{int(watts)} W 1700000000000000 us")

    def pass_time(self, seconds: float = 1.0) -> None:
        """Let the controller count."""
        self.now += seconds
        self.update(seconds)


@pytest.fixture
def node(tmp_path: Path) -> CrayNode:
    return CrayNode(tmp_path)


def joules(reading: Reading) -> dict[str, float]:
    return {meter.device.id: meter.joules for meter in reading.meters if isinstance(meter, EnergyReading)}


def test_the_node_includes_its_parts(node: CrayNode) -> None:
    reading = CraySource(node.host()).read(node.now)
    devices = {meter.device.id: meter.device for meter in reading.meters}
    assert {id_: (one.component, one.within) for id_, one in devices.items()} == {
        "cray-node": ("platform", None),
        "cray-cpu": ("cpu", "cray-node"),
        "cray-memory": ("dram", "cray-node"),
        **{f"cray-accel{n}": ("gpu", "cray-node") for n in range(4)},
    }
    assert devices["cray-cpu"].capacity == 16.0
    assert {one.method for one in devices.values()} == {"energy_counter"}


def test_without_other_meters_the_parts_count_and_the_rest_is_other(node: CrayNode) -> None:
    played = node.play(node.update, 60)
    assert played.node_joules == pytest.approx({"cpu": 160 * 60, "dram": 60 * 60, "gpu": 526 * 60, "other": 66 * 60})
    assert sum(played.node_joules.values()) == pytest.approx(812 * 60)


@pytest.mark.parametrize("nodes", ["one file of all accelerators", "no accelerator at all"])
def test_accelerators_without_a_file_of_their_own(tmp_path: Path, nodes: str) -> None:
    """meters2 §10.5: accel files absent; older controllers have one file of all."""
    drawn = {"": 500, "cpu_": 200, "memory_": 50} | ({"accel_": 150} if nodes.startswith("one") else {})
    node = CrayNode(tmp_path, drawn)
    played = node.play(node.update, 20)
    assert played.node_watts.get("gpu") == (pytest.approx(150.0) if nodes.startswith("one") else None)
    assert sum(played.node_joules.values()) == pytest.approx(500 * 20)


def test_a_file_of_all_accelerators_includes_those_of_each(tmp_path: Path) -> None:
    node = CrayNode(tmp_path, EX | {"accel_": 526})
    played = node.play(node.update, 20)
    assert played.node_watts["gpu"] == pytest.approx(526.0)
    assert played.device("cray-accel2").device.within == "cray-accel"


def test_the_cards_driver_and_rapl_count_in_place_of_the_files(node: CrayNode) -> None:
    """MI250X: the card's power by amdgpu is below accelN's, which is before the regulators; what they lose is other."""
    node.zone("intel-rapl:0", "package-0")
    for card in range(4):
        base = node.chip(card, "amdgpu", power1_cap=560_000_000)
        node.text(f"{base}/device/unique_id", f"00000000000000b{card}")
        node.watts[f"{base}/power1_average"] = 120.0

    def step(seconds: float) -> None:
        node.update(seconds)
        node.uses(seconds, zone0=150)

    played = node.play(step, 60)
    expected = {"cpu": 150.0, "dram": 60.0, "gpu": 480.0, "other": 812.0 - 150 - 60 - 480}
    assert played.node_watts == pytest.approx(expected)
    assert sum(played.node_joules.values()) == pytest.approx(812 * 60)
    assert played.device("cray-accel0").joules == pytest.approx(130 * 60)


def test_counters_that_move_during_the_reads_are_read_again(node: CrayNode) -> None:
    """meters2 §10.5: freshness moves in the middle of a round, as often as the controller updates."""
    source = CraySource(node.host())
    source.read(node.now)
    torn = _Torn(node, source, times=1)
    node.now += 1.0
    reading = source.read(node.now)
    assert torn.updates == 1
    assert joules(reading)["cray-node"] == int(node.counted[""])
    assert joules(reading)["cray-cpu"] == int(node.counted["cpu_"])


def test_counters_that_move_in_every_round_are_not_read(node: CrayNode) -> None:
    source = CraySource(node.host())
    source.read(node.now)
    _Torn(node, source, times=99)
    with pytest.raises(Unavailable) as caught:
        source.read(node.now + 1.0)
    assert caught.value.reason == "timeout"


class _Torn:
    """Updates the counters at the moment in which the node's energy file is read: a pipe's writer does not know when,
    so this stands at the last place before the kernel."""

    def __init__(self, node: CrayNode, source: CraySource, times: int) -> None:
        self.updates = 0
        meter = next(one for one in source._meters if one.device.id == "cray-node")
        kept, left = meter.energy, [times]

        class File:
            path = kept.path

            def read(inner, size: int) -> bytes:  # noqa: N805
                if left[0] > 0:
                    left[0] -= 1
                    self.updates += 1
                    node.update(0.1)
                return kept.read(size)

            def close(inner) -> None:  # noqa: N805
                kept.close()

        meter.energy = File()  # type: ignore[assignment]


def test_a_controller_that_begins_again_costs_no_joule_and_adds_none(node: CrayNode) -> None:
    """meters2 §10.5: startup changes. The counters then have other values, also larger ones."""
    source = CraySource(node.host())
    before = joules(source.read(node.now))
    node.pass_time()
    node.counted = dict.fromkeys(node.counted, 9e6)
    node.counter("startup", "1700000100000000")
    node.update(0.0)
    assert joules(source.read(node.now)) == before
    node.pass_time(2.0)
    after = joules(source.read(node.now))
    assert after["cray-node"] - before["cray-node"] == pytest.approx(2 * 812)


def test_a_change_of_the_power_cap_is_no_event(node: CrayNode) -> None:
    source = CraySource(node.host())
    before = joules(source.read(node.now))
    node.counter("generation", "13")
    node.counter("power_cap", "600 W 0 us")
    node.pass_time()
    assert joules(source.read(node.now))["cray-cpu"] - before["cray-cpu"] == 160


def test_energy_that_stands_still_while_freshness_runs_is_replaced_by_the_power(node: CrayNode) -> None:
    """meters2 §10.5: said once, with the file."""
    source = CraySource(node.host())
    source.read(node.now)
    frozen = node.counted["cpu_"]
    for _ in range(12):
        node.pass_time()
        node.counter("cpu_energy", f"{int(frozen)} J 0 us")
        reading = source.read(node.now)
    (problem,) = reading.problems
    assert "cpu_energy" in problem.message
    (meter,) = [meter for meter in reading.meters if meter.device.id == "cray-cpu"]
    assert isinstance(meter, PowerReading)
    assert (meter.watts, meter.device.method) == (160.0, "power_integrated")


def test_counters_that_nothing_updates_are_no_readings(node: CrayNode) -> None:
    source = CraySource(node.host())
    source.read(node.now)
    node.now += 11.0
    with pytest.raises(Unavailable) as caught:
        source.read(node.now)
    assert caught.value.reason == "driver"
    assert "freshness" in caught.value.message


@pytest.mark.parametrize(
    ("text", "reason"),
    [("", "implausible"), ("abc J 0 us", "implausible"), ("-5 J 0 us", "implausible"), ("7 kWh 0 us", "implausible")],
)
def test_a_file_that_has_no_joules_is_a_problem_and_the_others_are_read(node: CrayNode, text: str, reason: str) -> None:
    node.counter("memory_energy", text)
    reading = CraySource(node.host()).read(node.now)
    (problem,) = reading.problems
    assert problem.reason == reason
    assert "memory_energy" in problem.message
    assert len(reading.meters) == len(EX) - 1


def test_bare_numbers_are_joules(tmp_path: Path) -> None:
    """Older controllers write no unit."""
    node = CrayNode(tmp_path, {"": 400})
    node.counter("energy", "8123")
    assert joules(CraySource(node.host()).read(node.now)) == {"cray-node": 8123.0}


def test_files_that_appear_later_are_found(node: CrayNode) -> None:
    source = CraySource(node.host())
    source.read(node.now)
    node.drawn["accel4_"], node.counted["accel4_"] = 99, 0.0
    node.pass_time(61.0)
    assert "cray-accel4" in joules(source.read(node.now))


def test_other_machines_have_none(tmp_path: Path) -> None:
    node = WrittenNode(tmp_path)
    with pytest.raises(Unavailable) as caught:
        CraySource(node.host()).read(node.now)
    assert (caught.value.reason, "not HPE Cray" in caught.value.fix) == ("not_found", True)


def test_descriptors_are_given_back(node: CrayNode) -> None:
    host = node.host()
    left = host.fds.left
    source = CraySource(host)
    source.read(node.now)
    assert host.fds.left < left
    source.close()
    assert host.fds.left == left


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    loads=st.lists(
        st.tuples(*(st.integers(0, most) for most in (400, 120, 560, 560, 560, 560, 200))), min_size=3, max_size=12
    ),
    restarts=st.sets(st.integers(0, 11)),
)
def test_whatever_is_drawn_is_counted_once(
    tmp_path_factory: pytest.TempPathFactory, loads: list[tuple[int, ...]], restarts: set[int]
) -> None:
    """The parts and other are the node, whatever the controller does; a restart loses one tick at most."""
    node = CrayNode(tmp_path_factory.mktemp("cray"))
    parts = ("cpu_", "memory_", "accel0_", "accel1_", "accel2_", "accel3_")
    step = iter(range(len(loads)))
    kept = [0.0]

    def advance(seconds: float) -> None:
        number = next(step)
        node.drawn = {"": float(sum(loads[number])), **dict(zip(parts, loads[number], strict=False))}
        if number in restarts:
            node.counted = dict.fromkeys(node.counted, 17.0)
            node.counter("startup", f"17000001{number:02d}000000")
        else:
            kept[0] += sum(loads[number]) * seconds
        node.update(seconds)

    played = node.play(advance, len(loads))
    assert sum(played.node_joules.values()) == pytest.approx(kept[0], abs=8.0 * len(loads))
