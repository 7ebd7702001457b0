"""From readings to joules that may be added up: nested, estimated, unwatched and stuck devices."""

from __future__ import annotations

import pytest

from exporter.accounting.device_inventory import RETIRE_AFTER_SECONDS, SavedDevice
from exporter.accounting.devices import Devices, DeviceState, Restart
from exporter.accounting.measurement import Measured, Use
from exporter.accounting.meters import Point
from exporter.records import CpuUse, Device, EnergyReading, GpuState, GpuUse, PowerBounds, Process, ProcessKey

PSYS = Device("psys-0", "platform", "rapl", "measured", "psys", 4.0)
PACKAGE = Device("package-0", "cpu", "rapl", "measured", "package-0", 4.0, within="psys-0", socket=0)
DRAM = Device("dram-0", "dram", "rapl", "measured", "dram", 4.0, within="psys-0", socket=0)
BOOTED_AT = 1_700_000_000.0
ESTIMATE = Device("cpu-estimate", "cpu", "estimate", "estimated", "cpu", 4.0, idle_watts=3.0)


class Node:
    """Devices read once a second."""

    def __init__(self, devices: Devices | None = None) -> None:
        self.devices = devices or Devices()
        self.now = 0.0

    def tick(
        self, joules: dict[Device, float], busy: float = 0.0, seconds: float = 1.0, window: float = 1.0
    ) -> Measured:
        self.now += seconds
        readings = [EnergyReading(device, self.now, value, None) for device, value in joules.items()]
        return self.devices.measure(readings, Use(window, 4.0, CpuUse(self.now, window, busy)))


def parts(measured: Measured) -> dict[str, tuple[float, float, float]]:
    return {e.device.id: (e.active, e.idle, e.gap) for e in measured.energies}


def test_node_is_the_platform_no_more() -> None:
    """Fault 16."""
    node = Node()
    node.tick({PSYS: 1000.0, PACKAGE: 500.0, DRAM: 50.0})
    measured = node.tick({PSYS: 1100.0, PACKAGE: 560.0, DRAM: 60.0})
    assert {key: sum(value) for key, value in parts(measured).items()} == {
        "package-0": 60.0,
        "dram-0": 10.0,
        "other": 30.0,
    }
    rows = node.devices.node_rows(measured)
    assert {row.component: row.watts for row in rows} == {"cpu": 60.0, "dram": 10.0, "other": 30.0}


def test_other_never_falls_and_takes_back_what_was_too_much() -> None:
    """Meters are not read at the same instant: the sum of all parts must still be the platform's joules."""
    node = Node()
    psys, package, total = 0.0, 0.0, 0.0
    node.tick({PSYS: psys, PACKAGE: package})
    for step in (60.0, 40.0, 55.0, 45.0):
        psys, package = psys + 50.0, package + step
        other = next(e for e in node.tick({PSYS: psys, PACKAGE: package}).energies if e.device.id == "other")
        assert other.active >= 0
        total += other.active
    assert total == pytest.approx(psys - package)


@pytest.mark.parametrize("away", [1, 5])
def test_what_the_parts_used_while_the_platform_was_not_read_is_no_other(away: int) -> None:
    """Its counter went on: what it shows afterwards has the joules of the parts in those ticks too."""
    node = Node()
    for second in range(3):
        node.tick({PSYS: 100.0 * second, PACKAGE: 60.0 * second})
    for second in range(3, 3 + away):
        assert "other" not in parts(node.tick({PACKAGE: 60.0 * second}))
    back = parts(node.tick({PSYS: 100.0 * (3 + away), PACKAGE: 60.0 * (3 + away)}))
    assert sum(back["other"]) == pytest.approx(40.0 * (1 + away))


@pytest.mark.parametrize("ended_at", [5.0, 20.0])
def test_a_platform_that_is_read_later_than_its_parts_after_a_restart_is_not_counted_on_top(ended_at: float) -> None:
    """Its gap has what they used since, theirs included; if it was away before, theirs is not known any more."""
    points = {"psys-0": Point(0.0, 0.0), "package-0": Point(60.0 * ended_at, ended_at)}
    saved = {device.id: SavedDevice(device) for device in (PSYS, PACKAGE)}
    node = Node(Devices(None, Restart(DeviceState(points, known=saved), ended_at=ended_at, sources=("rapl",))))
    node.now = 30.0
    for second in range(31, 41):
        node.tick({PACKAGE: 60.0 * second})
    back = parts(node.tick({PSYS: 100.0 * 41, PACKAGE: 60.0 * 41}))
    if ended_at > 10.0:
        assert "other" not in back
        back = parts(node.tick({PSYS: 100.0 * 42, PACKAGE: 60.0 * 42}))
        assert sum(back["other"]) == pytest.approx(40.0)
    else:
        assert sum(back["other"]) == pytest.approx(40.0 * 41 + 60.0 * ended_at)


def test_a_platform_that_begins_anew_owes_nothing_for_before() -> None:
    """Fault 3: else nothing would be seen of the fans for as long as it was away."""
    node = Node()
    for second in range(3):
        node.tick({PSYS: 1e6 + 100.0 * second, PACKAGE: 60.0 * second})
    for second in range(3, 60):
        node.tick({PACKAGE: 60.0 * second})
    node.tick({PSYS: 0.0, PACKAGE: 60.0 * 60})
    back = parts(node.tick({PSYS: 100.0, PACKAGE: 60.0 * 61}))
    assert sum(back["other"]) == pytest.approx(40.0)


SOCKET = Device("socket-0", "cpu", "hwmon", "measured", "socket", 4.0, within="package-0", socket=0)


@pytest.mark.parametrize(
    ("sources", "devices", "awaited"),
    [
        (("hwmon", "rapl"), (PACKAGE, SOCKET), True),
        (("hwmon",), (PACKAGE, SOCKET), False),
        (("hwmon", "rapl"), (SOCKET,), False),
    ],
    ids=["awaited", "switched off", "given up in the run before"],
)
def test_a_part_counts_unless_its_whole_is_awaited(
    sources: tuple[str, ...], devices: tuple[Device, ...], awaited: bool
) -> None:
    """Fault 16: with ``--no-source.rapl`` the CPU is not lost; RAPL's counter is not counted again when it returns."""
    points = {"package-0": Point(100.0, 0.0), "socket-0": Point(100.0, 0.0)}
    saved = {device.id: SavedDevice(device) for device in devices}
    node = Node(Devices(None, Restart(DeviceState(points, known=saved), sources=sources)))
    joules = sum(sum(sum(value) for value in parts(node.tick({SOCKET: at})).values()) for at in (150.0, 200.0))
    assert joules == (0.0 if awaited else 100.0)
    back = parts(node.tick({PACKAGE: 250.0, SOCKET: 250.0}))
    assert sum(back["package-0"]) == (150.0 if awaited else 0.0)
    assert "socket-0" not in back


def test_estimate_steps_aside_for_a_meter_and_never_comes_back() -> None:
    node = Node()
    node.tick({ESTIMATE: 10.0})
    measured = node.tick({ESTIMATE: 20.0}, busy=2.0)
    assert parts(measured) == {"cpu-estimate": (7.0, 3.0, 0.0)}
    node.tick({ESTIMATE: 30.0, PACKAGE: 500.0})
    measured = node.tick({ESTIMATE: 40.0, PACKAGE: 560.0})
    assert set(parts(measured)) == {"package-0"}
    assert parts(node.tick({ESTIMATE: 50.0})) == {}


def test_time_nobody_watched_is_a_gap() -> None:
    node = Node(Devices({"package-0": 10.0}))
    node.tick({PACKAGE: 0.0})
    measured = node.tick({PACKAGE: 400.0}, seconds=4.0, busy=1.0)
    assert parts(measured) == {"package-0": (90.0, 10.0, 300.0)}


def test_stuck_counter_under_load_is_flagged_and_nothing_invented() -> None:
    """Fault 14."""
    node = Node()
    for _ in range(12):
        measured = node.tick({PACKAGE: 500.0}, busy=3.0)
    (row,) = node.devices.rows(measured, {}, BOOTED_AT)
    assert (row.stuck, row.joules, row.watts) == (True, 0.0, 0.0)
    measured = node.tick({PACKAGE: 560.0}, busy=3.0)
    assert not node.devices.rows(measured, {}, BOOTED_AT)[0].stuck


def test_vanished_device_keeps_its_joules_and_loses_its_watts() -> None:
    """Faults 8 and 9: it goes on when it returns, under the same name; what it used meanwhile is a gap."""
    node = Node(Devices({"package-0": 0.0}))
    node.tick({PACKAGE: 0.0, DRAM: 0.0})
    node.tick({PACKAGE: 50.0, DRAM: 5.0})
    measured = node.tick({DRAM: 10.0})
    assert {row.device.id: row.watts for row in node.devices.rows(measured, {}, BOOTED_AT)} == {
        "package-0": None,
        "dram-0": 5.0,
    }
    for _ in range(3):
        node.tick({DRAM: 10.0})
    measured = node.tick({PACKAGE: 300.0, DRAM: 10.0}, busy=1.0)
    assert parts(measured)["package-0"] == (50.0, 0.0, 200.0)


def test_socket_has_its_own_utilization() -> None:
    devices = Devices()
    use = Use(1.0, 8.0, CpuUse(1.0, 1.0, 4.0), socket_busy_seconds={0: 3.0, 1: 1.0})
    other = Device("package-1", "cpu", "rapl", "measured", "package-1", 4.0, socket=1)
    measured = devices.measure([EnergyReading(PACKAGE, 1.0, 0.0, None), EnergyReading(other, 1.0, 0.0, None)], use)
    assert measured.utilization == {"package-0": 0.75, "package-1": 0.25}


def test_gpus_without_a_meter_count_as_well() -> None:
    """Two virtual GPUs are two, so that a process on both is not busy twice; one that sleeps is still there."""
    devices = Devices()
    states = [GpuState("GPU-1", "0"), GpuState("GPU-2", "1"), GpuState("GPU-2", "1", "3")]
    assert devices.capacity(Use(1.0, 4.0, gpus=states)) == {"gpu": 2.0}
    assert devices.capacity(Use(1.0, 4.0, gpus=states[:1])) == {"gpu": 2.0}


def test_gpu_that_was_read_late_was_watched_all_the_time() -> None:
    """Its source reports since when; a card that was absent (0 s) was not read, whatever the tick."""
    card, away = (Device(f"GPU-{n}", "gpu", "nvml", "measured", "", 1.0) for n in (1, 2))
    devices = Devices({"GPU-1": 10.0, "GPU-2": 10.0})

    def tick(at: float, joules: float, *windows: float) -> Measured:
        readings = [EnergyReading(device, at, joules, None) for device in (card, away)]
        states = [GpuState(f"GPU-{n}", str(n), window_seconds=window) for n, window in enumerate(windows, start=1)]
        uses = [GpuUse("GPU-1", None, Process(ProcessKey(1, 1), "x"), 2.0)]
        return devices.measure(readings, Use(1.0, 4.0, gpu_uses=uses, gpus=states))

    tick(1.0, 0.0, 0.0, 0.0)
    measured = tick(5.0, 400.0, 4.0, 0.0)
    assert parts(measured) == {"GPU-1": (360.0, 40.0, 0.0), "GPU-2": (0.0, 0.0, 400.0)}
    assert measured.utilization["GPU-1"] == 0.5
    assert devices.state().baselines == {"GPU-1": [(0.5, 100.0)], "GPU-2": []}, (
        "nothing is learned from time without readings"
    )


def test_modules_of_several_sockets_are_the_platform_together() -> None:
    """Fault 16: Grace Hopper with two sockets; a third meter of the first socket's module does not count again."""
    modules, grace = [], []
    for n in (0, 1):
        modules.append(Device(f"module-{n}", "platform", "hwmon", "measured", "", 4.0, socket=n))
        grace.append(Device(f"grace-{n}", "cpu", "hwmon", "measured", "", 4.0, socket=n, within=f"module-{n}"))
    again = Device("GPU-1", "platform", "nvml", "measured", "", 1.0)
    node = Node()
    node.tick(dict.fromkeys((again, *modules, *grace), 0.0))
    measured = node.tick({again: 450.0, **dict.fromkeys(modules, 500.0), **dict.fromkeys(grace, 100.0)})
    assert {key: sum(value) for key, value in parts(measured).items()} == {
        "grace-0": 100.0,
        "grace-1": 100.0,
        "other": 800.0,
    }
    rows = node.devices.node_rows(measured)
    assert {row.component: row.watts for row in rows} == {"cpu": 200.0, "other": 800.0}


def test_bounds_belong_to_their_device() -> None:
    node = Node()
    measured = node.tick({ESTIMATE: 1.0})
    (row,) = node.devices.rows(measured, {"cpu-estimate": PowerBounds("cpu-estimate", 1.0, 9.0)}, BOOTED_AT)
    assert (row.low_watts, row.high_watts, row.idle_watts) == (1.0, 9.0, 3.0)


def test_when_a_device_was_last_read() -> None:
    """Faults 22 and 27: a device without a believable reading is down, and its last reading stays where it was."""
    node = Node()
    measured = node.tick({PACKAGE: 0.0, DRAM: 0.0})
    assert [row.up for row in node.devices.rows(measured, {}, BOOTED_AT)] == [True, True]
    node.now += 1.0
    readings = [EnergyReading(PACKAGE, node.now, 1e9, None), EnergyReading(DRAM, node.now, 5.0, None, None, 0.97)]
    measured = node.devices.measure(readings, Use(1.0, 4.0))
    rows = {row.device.id: row for row in node.devices.rows(measured, {}, BOOTED_AT)}
    assert (rows["package-0"].up, rows["package-0"].last_read) == (False, BOOTED_AT + 1.0)
    assert (rows["dram-0"].up, rows["dram-0"].last_read) == (True, BOOTED_AT + 2.0)
    assert rows["dram-0"].agreement_ratio == 0.97


def test_sleeping_device_is_neither_up_nor_down() -> None:
    node = Node()
    node.devices.rows(node.tick({PACKAGE: 0.0}), {}, BOOTED_AT)
    measured = node.devices.measure([], Use(1.0, 4.0, asleep=("package-0",)))
    (row,) = node.devices.rows(measured, {}, BOOTED_AT)
    assert (row.up, row.last_read) == (None, BOOTED_AT + 1.0)


def test_a_part_that_was_away_is_taken_back_from_other_after_a_restart_too() -> None:
    """The platform's joules had it meanwhile; both counters begin with a gap."""
    points = {"psys-0": Point(1_000.0, 10.0), "package-0": Point(300.0, 5.0)}
    saved = {device.id: SavedDevice(device) for device in (PSYS, PACKAGE)}
    node = Node(Devices(None, Restart(DeviceState(points, known=saved), ended_at=10.0, sources=("rapl",))))
    node.now = 10.0
    total = 0.0
    for second in range(11, 31):
        total += sum(sum(value) for value in parts(node.tick({PSYS: 100.0 * second, PACKAGE: 60.0 * second})).values())
    assert total == pytest.approx(100.0 * 20)


def test_totals_survive_a_restart() -> None:
    """Fault 53: the device's counter, the node's and what retired devices had; the next run adds to them."""
    node = Node()
    for second in range(3):
        node.tick({PACKAGE: 60.0 * second, DRAM: 5.0 * second})
    measured = node.tick({PACKAGE: 180.0})
    for at in (0.0, RETIRE_AFTER_SECONDS):
        node.devices.review(measured, BOOTED_AT + at)
    state = node.devices.state()
    assert state.joules == {"package-0": 180.0}
    assert state.node_joules == {"cpu": 180.0, "dram": 10.0}
    assert state.retired_joules == {"dram": 10.0}
    again = Node(Devices(None, Restart(state, ended_at=node.now, sources=("rapl",))))
    again.now = node.now
    again.tick({PACKAGE: 240.0})
    assert again.devices.joules == {"package-0": 240.0}
    assert again.devices.node_joules == {"cpu": 240.0, "dram": 10.0}
    assert again.devices.retired_joules == {"dram": 10.0}


def test_the_index_of_a_gpu_is_kept_while_it_sleeps_and_across_a_restart() -> None:
    """The labels gpu and uuid name one series, whether or not the card reports now."""
    devices = Devices()
    revision = devices.revision
    cards = [GpuState("GPU-1", "1"), GpuState("GPU-1", "1", "3"), GpuState("GPU-2", "0")]
    devices.measure([], Use(1.0, 4.0, gpus=cards))
    assert devices.revision > revision, "a journal line has no indexes"
    devices.measure([], Use(1.0, 4.0))
    assert devices.gpu_indexes == {"GPU-1": "1", "GPU-2": "0"}
    again = Devices(None, Restart(devices.state()))
    again.measure([], Use(1.0, 4.0, gpus=[GpuState("GPU-2", "2")]))
    assert again.gpu_indexes == {"GPU-1": "1", "GPU-2": "2"}
