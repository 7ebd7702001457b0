"""Intel Gaudi cards on a scripted libhlml: energy in mJ, users by open files, faults, and a child that dies."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from exporter.accounting.devices import Devices
from exporter.accounting.measurement import Use
from exporter.host import Host
from exporter.records import EnergyReading, PowerReading, Problem, Reading, Unavailable
from exporter.sources.accelerators.gaudi import GaudiSource
from exporter.sources.accelerators.gaudi_process import GaudiProcess
from exporter.sources.accelerators.hlml import Hlml
from exporter.sources.driver_process import Timeouts
from tests.support.hlml import control
from tests.support.hlml.control import Card, FakeHlml


class Node:
    """A machine with scripted cards and written processes."""

    def __init__(self, root: Path, fake: FakeHlml) -> None:
        self.root = root
        self.fake = fake
        self.now = 1000.0
        self.host = Host(str(root / "proc"), str(root / "sys"), clock=lambda: self.now)
        self.write("sys/fs/cgroup/cpu.stat", "usage_usec 0\n")
        self.write("proc/1/comm", "init\n")

    def write(self, path: str, text: str) -> None:
        file = self.root / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)

    def process(self, pid: int, node: str, start_ticks: int = 4711) -> None:
        """A process that has a device file open."""
        fields = ["S", "1", *["0"] * 17, str(start_ticks), *["0"] * 10]
        self.write(f"proc/{pid}/stat", f"{pid} (python) {' '.join(fields)}\n")
        self.write(f"proc/{pid}/cgroup", f"0::/job-{pid}\n")
        self.write(f"sys/fs/cgroup/job-{pid}/cpu.stat", "usage_usec 0\n")
        (self.root / f"proc/{pid}/fd").mkdir()
        (self.root / f"proc/{pid}/fd/7").symlink_to(node)

    def source(self) -> GaudiSource:
        return GaudiSource(self.host, Hlml((str(self.fake.library),)))

    def step(self, seconds: float = 1.0, **fields: object) -> None:
        """Let time pass; cards count what they draw."""
        self.now += seconds
        for card in self.fake.cards:
            for name, value in fields.items():
                setattr(card, name, value)
            if card.energy_joules is not None and "energy_joules" not in fields:
                card.energy_joules += (card.power_watts or 0.0) * seconds
        self.fake.write()


@pytest.fixture
def node(hlml: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Node:
    cards = [Card(f"01P0-HL3250A0-{n}", n, f"0000:{n + 1:02x}:00.0") for n in range(2)]
    fake = FakeHlml(hlml, tmp_path, cards)
    monkeypatch.setenv(control.STATE_VARIABLE, str(fake.path))
    return Node(tmp_path, fake)


def values(reading: Reading) -> dict[str, float]:
    return {m.device.id: m.joules if isinstance(m, EnergyReading) else m.watts for m in reading.meters}


def test_a_card_is_read_in_si_units(node: Node) -> None:
    card = node.fake.cards[0]
    card.energy_joules, card.power_watts, card.utilization_percent, card.throttle_bits = 123456.789, 612.5, 87, 1
    node.fake.write()
    source = node.source()
    source.read(node.now)
    node.step(energy_joules=123456.789)
    reading = source.read(node.now)
    first = reading.gpus[0]
    assert values(reading)[card.uuid] == pytest.approx(123456.789)
    assert (first.index, first.gpu_model, first.driver_version, first.pci_bus_id) == (
        "0",
        "HL-325L",
        "1.24.2-481",
        "0000:01:00.0",
    )
    assert (first.utilization_ratio, first.power_limit_watts, first.temperature_celsius) == (0.87, 900.0, 32.0)
    assert (first.memory_used_bytes, first.memory_total_bytes) == (672 << 20, 128 << 30)
    assert dict(first.throttle_seconds) == {"sw_power_cap": 1.0, "sw_thermal_slowdown": 0.0}
    device = reading.meters[0].device
    assert (device.component, device.source, device.method, device.max_watts) == (
        "gpu",
        "gaudi",
        "energy_counter",
        1800,
    )
    assert not reading.problems


@pytest.mark.parametrize("folder", ["/dev/accel/accel", "/dev/hl"])
def test_the_process_that_opened_a_card_is_charged(node: Node, folder: str) -> None:
    """Workers that it forked inherit the descriptor; hl-smi has the control node open and holds nothing."""
    node.process(100, f"{folder}1", start_ticks=5000)
    node.process(101, f"{folder}1", start_ticks=6000)
    node.process(102, f"{folder}_controlD0" if "accel" in folder else "/dev/hl_controlD0")
    source = node.source()
    source.read(node.now)
    node.step(2.0, utilization_percent=50)
    (use,) = source.read(node.now).gpu_uses
    assert (use.device, use.pid, use.seconds, use.reported) == (node.fake.cards[1].uuid, 100, 1.0, True)
    assert use.group is not None
    assert use.group.path == "/job-100"


def test_what_a_card_does_not_support_is_unknown_and_its_power_is_integrated(node: Node) -> None:
    """meters2 §10.6: "N/A"."""
    card = node.fake.cards[0]
    card.energy_joules = card.temperature_celsius = card.utilization_percent = card.throttle_bits = None
    card.memory_total_bytes = card.power_limit_watts = None
    node.fake.write()
    node.process(100, "/dev/accel/accel0")
    source = node.source()
    reading = source.read(node.now)
    meter = next(meter for meter in reading.meters if meter.device.id == card.uuid)
    assert isinstance(meter, PowerReading)
    assert (meter.watts, meter.device.method) == (240.0, "power_integrated")
    state = reading.gpus[0]
    assert (state.utilization_ratio, state.temperature_celsius, state.memory_used_bytes) == (None, None, None)
    assert [use.reported for use in reading.gpu_uses] == [False]


def test_a_counter_that_stands_still_is_replaced_by_the_power(node: Node) -> None:
    """meters2 §10.6: counter frozen."""
    source = node.source()
    problems: list[Problem] = []
    for _ in range(12):
        node.step(energy_joules=5000.0)
        reading = source.read(node.now)
        problems += reading.problems
    assert all(isinstance(meter, PowerReading) for meter in reading.meters)
    assert len(problems) == 2
    assert "does not advance" in problems[0].message
    assert node.fake.cards[0].uuid in problems[0].message


def test_a_reload_of_the_driver_loses_no_joule_that_was_read(node: Node) -> None:
    """meters2 §10.6: the counter begins again at 0; two readings later it counts again."""
    source, devices = node.source(), Devices()

    def tick() -> None:
        devices.measure(source.read(node.now).meters, Use(1.0, 4.0))

    tick()
    for _ in range(5):
        node.step()
        tick()
    assert devices.joules[node.fake.cards[0].uuid] == pytest.approx(1200.0)
    node.step(energy_joules=0.0)
    tick()
    for _ in range(5):
        node.step()
        tick()
    assert devices.joules[node.fake.cards[0].uuid] == pytest.approx(2400.0)


def test_a_lost_card_is_a_problem_and_the_other_is_read(node: Node) -> None:
    source = node.source()
    source.read(node.now)
    node.fake.cards[1].minor = 99
    node.fake.script("hlml_device_get_minor_number", control.NOT_SUPPORTED)
    reading = node.source().read(node.now)
    assert len(reading.gpus) == 2
    assert not reading.gpu_uses


def test_cards_that_come_and_go_keep_their_joules(node: Node) -> None:
    """One is taken out and put back at another place: a counter is of a UUID, not of an index."""
    source, devices = node.source(), Devices()
    first, second = node.fake.cards

    def tick(seconds: float) -> None:
        node.step(seconds)
        devices.measure(source.read(node.now).meters, Use(seconds, 4.0))

    tick(1.0)
    for cards in ([first, second], [second], [second, first]):
        node.fake.cards[:] = cards
        tick(61.0)
        for _ in range(5):
            tick(1.0)
    assert set(devices.joules) == {first.uuid, second.uuid}
    assert devices.joules[second.uuid] == pytest.approx(240.0 * 3 * 66)
    assert devices.joules[first.uuid] == pytest.approx(240.0 * 2 * 66)


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        (control.CARD_IS_LOST, "driver"),
        (control.DRIVER_NOT_LOADED, "driver"),
        (control.TIMEOUT, "timeout"),
        (49, "driver"),
    ],
)
def test_failures_of_all_cards_take_the_source_down_with_the_reason(node: Node, code: int, reason: str) -> None:
    source = node.source()
    source.read(node.now)
    node.fake.script("hlml_device_get_total_energy_consumption", code)
    node.fake.script("hlml_device_get_power_usage", code)
    with pytest.raises(Unavailable) as caught:
        source.read(node.now + 1.0)
    assert caught.value.reason == reason
    assert caught.value.fix


def test_a_driver_without_cards(node: Node) -> None:
    node.fake.cards = []
    node.fake.write()
    with pytest.raises(Unavailable, match="sees no Gaudi card"):
        node.source().read(node.now)


def test_a_missing_library_says_how_to_get_it(node: Node) -> None:
    """meters2 §10.6: library missing. Intel's own bindings print a line and go on."""
    with pytest.raises(Unavailable) as caught:
        GaudiSource(node.host, Hlml(("/nonexistent/libhlml.so",))).read(node.now)
    assert (caught.value.reason, "/usr/lib/habanalabs" in caught.value.fix) == ("not_found", True)


def test_a_library_without_a_function_has_no_such_value(node: Node, tmp_path: Path) -> None:
    """An older release."""
    source = tmp_path / "old.c"
    kept = control.SOURCE.read_text().replace("int hlml_device_get_utilization_rates", "int hlml_renamed")
    source.write_text(kept)
    target = tmp_path / "libold.so"
    assert os.system(f"cc -shared -fPIC -o {target} {source}") == 0
    reading = GaudiSource(node.host, Hlml((str(target),))).read(node.now)
    assert [gpu.utilization_ratio for gpu in reading.gpus] == [None, None]
    assert len(reading.meters) == 2


# --- in a child process

SHORT = Timeouts(first=30.0, answer=0.5, start=0.0)


@pytest.fixture
def child(node: Node, monkeypatch: pytest.MonkeyPatch) -> Iterator[GaudiProcess]:
    for name, value in node.fake.environment().items():
        monkeypatch.setenv(name, value)
    source = GaudiProcess(node.host, SHORT)
    yield source
    source.close()


def test_a_child_answers_what_the_library_says(node: Node, child: GaudiProcess) -> None:
    reading = child.read(time.monotonic())
    assert [gpu.uuid for gpu in reading.gpus] == [card.uuid for card in node.fake.cards]
    assert values(reading)[node.fake.cards[0].uuid] == 1000.0


def test_a_driver_that_crashes_takes_only_its_child(node: Node, child: GaudiProcess) -> None:
    child.read(time.monotonic())
    node.fake.script("hlml_device_get_power_usage", control.CRASH)
    with pytest.raises(Unavailable, match="SIGABRT"):
        child.read(time.monotonic())
    node.fake.scripts.clear()
    node.fake.write()
    assert child.read(time.monotonic()).meters


def test_a_driver_that_hangs_is_killed(node: Node, child: GaudiProcess) -> None:
    child.read(time.monotonic())
    node.fake.script("hlml_device_get_power_usage", seconds=600.0)
    with pytest.raises(Unavailable) as caught:
        child.read(time.monotonic())
    assert (caught.value.reason, "habanalabs" in caught.value.fix) == ("timeout", True)


def test_machines_without_the_library_start_no_process(tmp_path: Path) -> None:
    with pytest.raises(Unavailable) as caught:
        GaudiProcess(Host(str(tmp_path), str(tmp_path))).read(0.0)
    assert caught.value.reason == "not_found"


@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(loads=st.lists(st.tuples(st.integers(0, 900), st.integers(0, 900)), min_size=2, max_size=20))
def test_what_the_cards_count_is_the_nodes(node: Node, loads: list[tuple[int, int]]) -> None:
    """Whatever two cards draw: device joules, node joules and the truth are one."""
    for card in node.fake.cards:
        card.energy_joules, card.power_watts = 1000.0, 240.0
    node.step(0.0)
    source, devices = node.source(), Devices()
    devices.measure(source.read(node.now).meters, Use(1.0, 4.0))
    for watts in loads:
        for card, drawn in zip(node.fake.cards, watts, strict=True):
            card.power_watts = float(drawn)
        node.step()
        devices.measure(source.read(node.now).meters, Use(1.0, 4.0))
    truth = sum(map(sum, loads))
    assert devices.node_joules["gpu"] == pytest.approx(truth, abs=1e-3)


def test_the_record_of_a_card_is_complete() -> None:
    """The line that the C library reads has all fields of `Card`."""
    assert len(replace(Card("u", 0, "b")).line().split()) == 13
