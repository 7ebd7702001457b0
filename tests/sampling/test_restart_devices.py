"""Devices across restarts: a missing device is exposed as down, a removed one leaves its joules in the totals."""

from __future__ import annotations

import json
import math
import zlib
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from exporter.accounting.device_inventory import RETIRE_AFTER_SECONDS
from exporter.exposition.metrics.render import Renderer
from exporter.host import Host
from exporter.records import (
    CpuUse,
    Device,
    EnergyReading,
    GpuState,
    GpuUse,
    GroupKey,
    Process,
    ProcessKey,
    Reading,
    Unavailable,
)
from exporter.sampling.sampler import Sampler, SamplerOptions
from exporter.sampling.state_file import StateStore
from exporter.snapshot import DeviceRow, Snapshot
from tests.support.group_names import GroupNames
from tests.support.inline_pool import Inline
from tests.support.live import Scrape

PACKAGE = Device("package-0", "cpu", "rapl", "measured", "package-0", 4.0, socket=0)
CORE = Device("core-0", "cpu", "rapl", "measured", "core", 4.0, within="package-0", socket=0)
OLD, NEW = (Device(f"GPU-{name}", "gpu", "nvml", "measured", "H100", 1.0) for name in ("old", "new"))
ESTIMATE = Device(
    "cpu-estimate", "cpu", "estimate", "estimated", "average", 4.0, idle_watts=3.0, method="utilization_model"
)
WATTS = 50.0
TICK_SECONDS = 1.0
DAY = 86_400.0
STARTED = 10.0
FIRST_READ = STARTED + TICK_SECONDS


class Meters:
    """A source of counters that all count `WATTS`, whether or not they are read."""

    def __init__(self, machine: Machine, name: str, *devices: Device) -> None:
        self.name = name
        self.devices = list(devices)
        self.asleep: tuple[str, ...] = ()
        self._machine = machine

    def read(self, now: float) -> Reading:
        if not (self.devices or self.asleep):
            raise Unavailable("driver", "the driver is not loaded")
        meters = [EnergyReading(device, now, self._machine.joules(device), None) for device in self.devices]
        states = [GpuState(device.id, "0") for device in self.devices if device.component == "gpu"]
        uses = [
            GpuUse(state.uuid, self._machine.group, Process(ProcessKey(7, 7), "trainer"), TICK_SECONDS)
            for state in states
        ]
        return Reading(tuple(meters), gpus=tuple(states), gpu_uses=tuple(uses), asleep=self.asleep)

    def close(self) -> None:
        pass


class Work:
    """Reports that one container uses half the CPUs."""

    name = "cgroups"

    def __init__(self, machine: Machine) -> None:
        self._group = machine.group
        self._last_at: float | None = None

    def read(self, now: float) -> Reading:
        window, self._last_at = now - (self._last_at or now), now
        return Reading(cpu=CpuUse(now, window, 2.0 * window, (), 2.0 * window, started=(self._group,)))

    def close(self) -> None:
        pass


@dataclass
class Machine:
    """A node with a state file; the exporter on it is started, ended and killed. ``readable`` is by source's name."""

    folder: Path
    readable: dict[str, tuple[Device, ...]] = field(default_factory=dict)
    now: float = 0.0
    wall_ahead: float = 1.7e9
    group: GroupKey = GroupKey("/trainer", 1)  # noqa: RUF009 - immutable

    def __post_init__(self) -> None:
        self.sampler: Sampler | None = None
        self.sources: dict[str, Meters] = {}
        self.boot("boot-1")

    def joules(self, device: Device) -> float:
        """Of a model from the start of its exporter on, of a meter since the boot."""
        return (self.now - (self.started_at if device is ESTIMATE else 0.0)) * WATTS

    def boot(self, boot_id: str, away_seconds: float = 60.0) -> None:
        """Boot time and counters start from 0."""
        (self.folder / "sys/kernel/random").mkdir(parents=True, exist_ok=True)
        (self.folder / "sys/kernel/random/boot_id").write_text(f"{boot_id}\n")
        self.wall_ahead += self.now + away_seconds
        self.now = STARTED

    def start(self, *off: str, whole: bool = True) -> Snapshot:
        """Start the exporter, without the sources that are switched ``off``, and take the first sample.

        Not ``whole`` is it if devices are not shown that the node's joules include.
        """
        self.started_at = self.now
        host = Host(procfs=str(self.folder), clock=lambda: self.now, wall=lambda: self.wall_ahead + self.now)
        self.store = StateStore(str(self.folder / "state"))
        self.sources = {
            name: Meters(self, name, *devices) for name, devices in self.readable.items() if name not in off
        }
        options = SamplerOptions(source_timeout_seconds=5.0)
        self.sampler = Sampler(
            [*self.sources.values(), Work(self)], GroupNames(), host, options, store=self.store, pools=Inline
        )
        return self.tick(whole=whole)

    def tick(self, seconds: float = TICK_SECONDS, *, whole: bool = True) -> Snapshot:
        assert self.sampler is not None
        self.now += seconds
        snapshot = self.sampler.tick()
        if whole:
            check(snapshot)
        return snapshot

    def run(self, seconds: float, step: float = 300.0) -> Snapshot:
        """So long, in steps."""
        for _ in range(math.ceil(seconds / step)):
            snapshot = self.tick(step)
        return snapshot

    def end(self) -> None:
        assert self.sampler is not None
        self.sampler.close()
        self.sampler = None

    def kill(self) -> None:
        """Nothing is written any more."""
        self.store.close()
        self.sampler = None


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[Machine]:
    machine = Machine(tmp_path, {"rapl": (PACKAGE,), "nvml": (OLD,)})
    yield machine
    if machine.sampler is not None:
        machine.end()


def check(snapshot: Snapshot) -> Scrape:
    """No series is there twice, devices and what is left of those that are gone make the node, and it was divided."""
    scrape = Scrape.parse(Renderer().body(snapshot).decode())
    assert snapshot.energy.conservation_error_ratio <= 1e-9
    given: defaultdict[str, float] = defaultdict(float)
    for row in snapshot.energy.devices:
        if row.device.within is None:
            given[row.device.component] += row.joules
    for component, joules in snapshot.energy.retired_devices.items():
        given[component] += joules
    assert given == pytest.approx({node.component: node.joules for node in snapshot.energy.nodes}, rel=1e-12)
    return scrape


def row(snapshot: Snapshot, device: Device) -> DeviceRow:
    (found,) = [row for row in snapshot.energy.devices if row.device.id == device.id]
    return found


def ids(snapshot: Snapshot) -> set[str]:
    return {row.device.id for row in snapshot.energy.devices}


@pytest.mark.parametrize("stop", [Machine.end, Machine.kill])
def test_a_device_that_is_away_is_shown_with_its_joules(machine: Machine, stop: Callable[[Machine], None]) -> None:
    """Faults 8, 22 and 53: its driver is not loaded, or it fell off the bus, while the exporter was down."""
    machine.start()
    machine.sources["nvml"].devices = [OLD, NEW]
    machine.tick()
    before = machine.run(20.0, step=1.0)  # no checkpoint is due by then, and one card came after the first
    stop(machine)
    machine.readable["nvml"] = (OLD,)
    machine.now += 30.0
    away = row(machine.start(), NEW)
    assert away == (away.device, 20 * WATTS, None, None, "", *(None,) * 3, 0, 0, False, False, *(None,) * 4)
    assert row(before, NEW).joules == 20 * WATTS
    labels = {"component": "gpu", "device": "GPU-new", "source": "nvml"}
    scrape = check(machine.tick())
    assert {name for name, pairs in scrape if ("device", "GPU-new") in pairs} == {
        "energy_device_joules_total",
        "energy_device_stuck",
        "energy_device_up",
        "energy_meter_resets_total",
        "energy_meter_wraps_total",
        "energy_power_source_info",
    }
    assert scrape.find("energy_device_joules_total", device="GPU-new") == [(labels, 20 * WATTS)]
    info = {**labels, "quality": "measured", "method": "energy_counter"}
    assert scrape.find("energy_power_source_info", device="GPU-new") == [(info, 1.0)]
    machine.sources["nvml"].devices = [OLD, NEW]
    back = row(machine.tick(), NEW)
    assert back.up
    assert back.joules == pytest.approx((machine.now - FIRST_READ - 1) * WATTS)


def test_a_replaced_card_stays_for_a_week_and_leaves_its_joules(machine: Machine) -> None:
    """Faults 9 and 50: swapped while the node was off; missing, and then removed, whatever the wall clock shows."""
    machine.start()
    before = row(machine.run(600.0), OLD).joules
    machine.end()
    machine.boot("boot-2", away_seconds=30 * DAY)
    machine.readable["nvml"] = (NEW,)
    first = machine.start()
    assert (row(first, OLD).joules, row(first, OLD).up) == (before, False)
    assert (row(first, NEW).joules, row(first, NEW).up) == (0.0, True)
    machine.run(RETIRE_AFTER_SECONDS - 2 * DAY, step=DAY / 4)
    machine.wall_ahead += 30 * DAY
    machine.run(1_200.0)
    machine.wall_ahead -= 30 * DAY
    machine.end()
    machine.boot("boot-3")
    still = machine.start()
    assert row(still, OLD).up is False, "how long it is missed goes on after a restart"
    gone = machine.run(3 * DAY, step=DAY / 4)
    assert ids(gone) == {"package-0", "GPU-new"}
    assert gone.energy.retired_devices == {"gpu": before}
    machine.kill()
    again = machine.start()
    assert ids(again) == {"package-0", "GPU-new"}
    assert again.energy.retired_devices == {"gpu": before}
    assert check(again)["energy_device_retired_joules_total", (("component", "cpu"),)] == 0


def test_a_card_that_returns_after_it_was_given_up_begins_at_zero(machine: Machine) -> None:
    """Fault 22: what it counted meanwhile is its own, what it counted before stays retired; nothing is twice."""
    machine.start()
    before = row(machine.run(60.0), OLD).joules
    machine.sources["nvml"].devices = []
    lost = machine.run(RETIRE_AFTER_SECONDS + DAY, step=DAY / 4)
    assert ids(lost) == {"package-0"}
    machine.sources["nvml"].devices = [OLD]
    back = machine.run(120.0, step=60.0)
    assert back.energy.retired_devices == {"gpu": before}
    assert row(back, OLD).joules + before == pytest.approx((machine.now - FIRST_READ) * WATTS)


def test_what_sleeps_or_is_switched_off_is_not_missed(machine: Machine) -> None:
    """Its ``energy_device_up`` is absent: no alert, and it is not given up."""
    machine.start()
    machine.run(60.0)
    machine.end()
    machine.start("nvml")
    off = machine.run(RETIRE_AFTER_SECONDS + DAY, step=DAY / 4)
    assert row(off, OLD).up is None
    assert check(off).find("energy_device_up", device="GPU-old") == []
    machine.end()
    machine.readable["nvml"] = ()
    machine.start()
    for name in ("GPU-old", "0000:41:00.0"):  # one that slept from the start has no other name
        machine.sources["nvml"].asleep = (name,)
        machine.tick(70.0)
        assert row(machine.tick(), OLD).up is None
    assert row(machine.run(RETIRE_AFTER_SECONDS + DAY, step=DAY / 4), OLD).up is None
    machine.sources["nvml"].asleep = ()
    assert row(machine.tick(), OLD).up is False


def test_a_card_that_is_away_is_no_part_of_the_nodes_capacity(machine: Machine) -> None:
    """A process that fills the only card there is uses all there is."""
    machine.start()
    machine.run(60.0)
    machine.end()
    machine.boot("boot-2")
    machine.readable["nvml"] = (NEW,)
    machine.start()
    machine.tick()
    (container,) = [row for row in machine.tick().energy.containers if "gpu" in row.busy_components]
    assert dict(zip(container.busy_components, container.ratios, strict=True))["gpu"] == pytest.approx(1.0)


def test_a_part_is_not_counted_while_its_whole_is_away(machine: Machine) -> None:
    """Fault 16: the package's counter includes the energy of the cores, and counts it when it returns."""
    machine.readable = {"rapl": (PACKAGE, CORE)}
    machine.start()
    machine.run(60.0)
    machine.end()
    machine.readable = {"rapl": (CORE,)}
    start = machine.start().energy.nodes
    assert machine.run(60.0).energy.nodes[0].joules == start[0].joules
    machine.sources["rapl"].devices = [PACKAGE, CORE]
    back = machine.tick()
    assert back.energy.nodes[0].joules == pytest.approx((machine.now - FIRST_READ) * WATTS)


@pytest.mark.parametrize("restarted", [True, False])
def test_an_estimate_that_a_meter_replaced_leaves_its_joules(machine: Machine, restarted: bool) -> None:
    """In the run that finds the meter, which may be its own, and after another; a reload meanwhile does no harm."""
    machine.readable = {"rapl": (), "estimate": (ESTIMATE,)}
    machine.start()
    modelled = row(machine.run(60.0), ESTIMATE).joules
    assert modelled > 0
    if restarted:
        machine.end()
        machine.readable["rapl"] = (PACKAGE,)
        measured = machine.start()
    else:
        machine.sources["rapl"].devices = [PACKAGE]
        measured = machine.tick(70.0)
    assert ids(measured) == {"package-0"}
    assert measured.energy.retired_devices == {"cpu": modelled}
    assert machine.sampler is not None
    machine.sampler.reconfigure(replace(machine.sampler.options, idle_watts={"package-0": 1.0}))
    machine.run(60.0)
    machine.kill()
    machine.readable["rapl"] = ()
    again = machine.start()
    assert (ids(again), again.energy.retired_devices) == ({"package-0", "cpu-estimate"}, {"cpu": modelled})
    assert row(again, PACKAGE).up is False


@pytest.mark.parametrize("restarted", [True, False])
def test_what_was_modelled_while_the_meter_was_away_is_not_counted_again(machine: Machine, restarted: bool) -> None:
    """Its counter continued: of the gap only the energy that the estimate did not attribute is added."""
    machine.readable = {"rapl": (PACKAGE,), "estimate": (ESTIMATE,)}
    machine.start()
    machine.run(60.0, step=1.0)
    machine.end()
    machine.now += 30.0
    machine.readable["rapl"] = ()
    machine.start()
    machine.run(60.0, step=1.0)
    if restarted:
        machine.kill()
        machine.start()
    machine.sources["rapl"].devices = [PACKAGE]
    back = machine.run(70.0)
    assert back.energy.retired_devices["cpu"] > 0
    assert back.energy.nodes[0].joules == pytest.approx((machine.now - FIRST_READ) * WATTS)


def test_a_counter_does_not_fall_where_its_file_could_not_be_written(machine: Machine) -> None:
    """Fault 55: the disk was full; until the device is read its total is unknown, so it has no counter."""
    machine.start()
    machine.run(20.0, step=1.0)
    full = machine.folder / "state.new"
    full.symlink_to("/dev/full")
    shown = row(machine.run(120.0, step=1.0), OLD).joules
    machine.end()
    full.unlink()
    machine.readable["nvml"] = ()
    started = machine.start(whole=False)
    assert ids(started) == {"package-0"}
    machine.sources["nvml"].devices = [OLD]
    back = row(machine.tick(), OLD).joules
    assert back == pytest.approx((machine.now - FIRST_READ) * WATTS)
    assert back > shown
    machine.end()
    assert ids(machine.start()) == {"package-0", "GPU-old"}


def test_a_file_of_before_devices_were_kept_is_read(machine: Machine) -> None:
    """Fault 56: its version is the same; its counters go on once the devices are read, which are kept from then on."""
    machine.start()
    before = row(machine.run(60.0), OLD).joules
    machine.end()
    state = machine.folder / "state"
    content = json.loads(state.read_bytes().partition(b" ")[2])
    assert content["version"] == 1
    del content["known"], content["retired_devices"]
    text = json.dumps(content).encode()
    state.write_bytes(b"%08x %b\n" % (zlib.crc32(text), text))
    assert row(machine.start(), OLD).joules == before + WATTS
    machine.end()
    machine.readable["nvml"] = ()
    assert row(machine.start(), OLD).joules == before + WATTS
