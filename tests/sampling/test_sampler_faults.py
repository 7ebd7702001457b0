"""What the sampler makes of sources that misbehave, of clocks that jump and of a machine that is short of something."""

from __future__ import annotations

import logging
import os
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest

from exporter.host import Host
from exporter.records import (
    CpuUse,
    Device,
    EnergyReading,
    GroupKey,
    GroupUse,
    Model,
    PowerReading,
    Problem,
    Process,
    ProcessKey,
    ProcessUse,
    Reading,
    Unavailable,
    Workload,
)
from exporter.sampling.sampler import Sampler, SamplerOptions
from exporter.snapshot import DeviceRow, Snapshot
from exporter.sources.cpu.rapl import RaplSource
from exporter.sources.protocol import Source
from exporter.workloads.protocol import Namer
from tests.support.patience import patience, wait_for

PACKAGE = Device("package-0", "cpu", "meter", "measured", "package-0", 4.0, max_watts=500.0)
DRAM = Device("dram-0", "dram", "meter", "measured", "dram", 4.0, max_watts=200.0)
PSYS = Device("psys", "platform", "meter", "measured", "psys", 4.0, max_watts=1000.0)
RANGE = 262_143.0


class Clock:
    """Boot-time seconds and a wall clock that the test advances."""

    def __init__(self) -> None:
        self.now = 1_000.0
        self.ahead = 1.7e9

    def boot(self) -> float:
        return self.now

    def wall(self) -> float:
        return self.now + self.ahead


class Meter:
    """Energy counters that go on at given watts; a test may turn any of them back, or out."""

    name = "meter"

    def __init__(self, clock: Clock, wraps_at: float | None = RANGE, **watts: float) -> None:
        devices = {"package": PACKAGE, "dram": DRAM, "psys": PSYS}
        self.watts = {devices[name]: value for name, value in watts.items()}
        self.joules = dict.fromkeys(self.watts, 5_000.0)
        self.problems: tuple[Problem, ...] = ()
        self.failure: Unavailable | None = None
        self._clock = clock
        self._wraps_at = wraps_at
        self._at = clock.now

    def read(self, now: float) -> Reading:
        elapsed, self._at = now - self._at, now
        for device, watts in self.watts.items():
            self.joules[device] += watts * elapsed
        if self.failure is not None:
            raise self.failure
        wraps_at = self._wraps_at
        return Reading(
            tuple(
                EnergyReading(device, now, joules if wraps_at is None else joules % wraps_at, wraps_at)
                for device, joules in self.joules.items()
            ),
            problems=self.problems,
        )

    def close(self) -> None:
        """Nothing is open."""


class Uses:
    """Groups with one process each, which are busy for the seconds they are given, all alike."""

    name = "uses"

    def __init__(self, count: int = 2, busy_ratio: float = 0.5) -> None:
        self.busy_ratio = busy_ratio
        self.groups = [GroupKey(f"/app-{number}", number) for number in range(count)]
        self._last: float | None = None

    def read(self, now: float) -> Reading:
        if self._last is None:
            self._last = now
            return Reading(cpu=CpuUse(now, 0.0, 0.0, started=tuple(self.groups)))
        window, self._last = now - self._last, now
        seconds = window * self.busy_ratio * PACKAGE.capacity / len(self.groups)
        uses = tuple(
            GroupUse(group, seconds, (ProcessUse(Process(ProcessKey(100 + group.inode, 7), "worker"), seconds),))
            for group in self.groups
            if seconds
        )
        return Reading(cpu=CpuUse(now, window, sum(use.seconds for use in uses), uses))

    def close(self) -> None:
        """Nothing is open."""


class Names(Namer):
    """A container per group."""

    def __init__(self) -> None:
        self.retries = 0

    def workload(self, group: GroupKey) -> Workload:
        return Workload("default", "pod", group.path.strip("/"), "docker")

    def model(self, group: GroupKey | None, process: Process) -> Model | None:
        return None

    def retry(self) -> None:
        self.retries += 1


class Bench:
    """A sampler on a clock of its own. Idle watts are known, so that every joule's way can be computed."""

    def __init__(self, clock: Clock, sources: Sequence[Source], root: Path, **options: float) -> None:
        self.clock = clock
        (root / "proc").mkdir(exist_ok=True)
        (root / "sys/devices/system/cpu").mkdir(parents=True, exist_ok=True)
        (root / "sys/devices/system/cpu/online").write_text(f"0-{PACKAGE.capacity - 1:.0f}\n")
        host = Host(str(root / "proc"), str(root / "sys"), clock=clock.boot, wall=clock.wall)
        settings = SamplerOptions(idle_watts={"package-0": 10.0, "dram-0": 1.0}, **options)  # type: ignore[arg-type]
        self.names = Names()
        self.sampler = Sampler(sources, self.names, host, settings)

    def tick(self, count: int = 1, seconds: float = 1.0) -> Snapshot:
        for _ in range(count):
            self.clock.now += seconds
            snapshot = self.sampler.tick()
            assert snapshot.energy.conservation_error_ratio < 1e-9
        return snapshot


@pytest.fixture
def clock() -> Clock:
    return Clock()


Make = Callable[..., Bench]


@pytest.fixture
def bench(clock: Clock, tmp_path: Path) -> Make:
    def make(*sources: Source, **options: float) -> Bench:
        return Bench(clock, sources, tmp_path, **options)

    return make


def device(snapshot: Snapshot, name: str) -> DeviceRow:
    return next(row for row in snapshot.energy.devices if row.device.id == name)


def nodes(snapshot: Snapshot) -> dict[str, tuple[float, float | None]]:
    """Joules and watts by component, to the microjoule."""
    return {
        row.component: (round(row.joules, 6), None if row.watts is None else round(row.watts, 6))
        for row in snapshot.energy.nodes
    }


def attributed(snapshot: Snapshot) -> dict[str, float]:
    """Joules of all containers, unattributed and retired, by component."""
    joules: defaultdict[str, float] = defaultdict(float)
    for row in snapshot.energy.containers:
        for (component, _), value in zip(row.cells, row.joules, strict=True):
            joules[component] += value
    for component, _, value in snapshot.energy.unattributed:
        joules[component] += value
    for component, value in snapshot.energy.retired:
        joules[component] += value
    return dict(joules)


def lost(snapshot: Snapshot, component: str, reason: str) -> float:
    """Unattributed joules for one reason."""
    return sum(joules for *key, joules in snapshot.energy.unattributed if key == [component, reason])


# --- counters ----------------------------------------------------------------------------------------------


def test_a_step_back_is_no_reset_and_nothing_is_attributed_twice(clock: Clock, bench: Make) -> None:
    """Fault 5: a torn register read again."""
    meter = Meter(clock, package=50.0)
    made = bench(meter, Uses())
    before = device(made.tick(5), "package-0").joules
    meter.joules[PACKAGE] -= 50.4
    stepped = device(made.tick(), "package-0")
    assert (stepped.joules, stepped.resets, stepped.wraps) == (before, 0, 0)
    meter.joules[PACKAGE] += 50.4
    assert device(made.tick(), "package-0").joules == pytest.approx(before + 100.0)


def test_a_device_that_vanishes_keeps_its_joules_while_the_others_go_on(clock: Clock, bench: Make) -> None:
    """Fault 8: it has no watts any more, not 0 W."""
    meter = Meter(clock, package=50.0, dram=5.0)
    made = bench(meter, Uses())
    before = made.tick(5)
    gone = meter.joules.pop(DRAM)
    watts = meter.watts.pop(DRAM)
    after = made.tick(3)
    assert device(after, "dram-0").joules == device(before, "dram-0").joules
    assert device(after, "dram-0").watts is None
    assert nodes(after)["dram"][1] is None
    assert nodes(after)["cpu"] == (7 * 50.0, 50.0)
    meter.joules[DRAM], meter.watts[DRAM] = gone + 3 * watts, watts
    back = made.tick()
    assert device(back, "dram-0").joules == pytest.approx(8 * 5.0)
    assert attributed(back)["dram"] == pytest.approx(8 * 5.0)


def test_a_device_that_returns_at_zero_has_a_new_baseline(clock: Clock, bench: Make) -> None:
    """Fault 9: what it counted before is kept, what it shows at first is not added."""
    meter = Meter(clock, wraps_at=None, package=50.0)
    made = bench(meter, Uses())
    before = device(made.tick(5), "package-0").joules
    watts = meter.watts.pop(PACKAGE)
    del meter.joules[PACKAGE]
    made.tick(3)
    meter.joules[PACKAGE], meter.watts[PACKAGE] = 7.0, watts
    returned = device(made.tick(), "package-0")
    assert (returned.joules, returned.resets, returned.watts) == (before, 1, None)
    assert device(made.tick(2), "package-0").joules == pytest.approx(before + 100.0)


def test_a_source_that_fails_is_down_with_a_reason_and_others_are_not(
    clock: Clock, bench: Make, caplog: pytest.LogCaptureFixture
) -> None:
    """Faults 8, 11: and when it returns, the energy counted in the meantime is unattributed."""
    meter = Meter(clock, wraps_at=None, package=50.0)
    made = bench(meter, Uses())
    made.tick(3)
    meter.failure = Unavailable("permission", "energy_uj: permission denied", "chmod g+r")
    down = made.tick(20)
    health = {source.name: source for source in down.exporter.sources}
    assert (health["meter"].up, health["meter"].reason, health["meter"].fix) == (False, "permission", "chmod g+r")
    assert health["uses"].up
    assert device(down, "package-0").watts is None
    assert nodes(down)["cpu"] == (100.0, None)
    assert len([record for record in caplog.records if record.name == "source"]) == 1
    meter.failure = None
    up = made.tick(40)
    assert nodes(up)["cpu"][0] == pytest.approx(62 * 50.0)
    assert 0 < lost(up, "cpu", "gap") < 62 * 50.0
    assert attributed(up)["cpu"] == pytest.approx(62 * 50.0)


def test_a_retry_reads_what_is_down_with_the_next_tick_and_asks_for_names_again(clock: Clock, bench: Make) -> None:
    """Fault 11: after a permission was granted, a reload reads at once without waiting for the backoff."""
    meter = Meter(clock, package=50.0)
    made = bench(meter, Uses())
    meter.failure = Unavailable("permission", "energy_uj: denied")
    assert not made.tick(100).exporter.sources[0].up
    meter.failure = None
    assert not made.tick().exporter.sources[0].up
    made.sampler.retry()
    assert made.tick().exporter.sources[0].up
    assert made.names.retries == 1


def test_a_part_that_cannot_be_read_is_told_while_the_rest_counts(
    clock: Clock, bench: Make, caplog: pytest.LogCaptureFixture
) -> None:
    """Fault 11: one zone is not readable."""
    meter = Meter(clock, package=50.0)
    meter.problems = (Problem("permission", "dram: permission denied", "run as root"),)
    snapshot = bench(meter, Uses()).tick(10)
    (health, _) = snapshot.exporter.sources
    assert (health.up, health.reason, health.fix) == (True, "permission", "run as root")
    assert health.failures["permission"] == 1
    assert nodes(snapshot)["cpu"][0] == pytest.approx(9 * 50.0)
    assert len(caplog.records) == 1


def test_a_dangling_zone_is_skipped(clock: Clock, bench: Make, tmp_path: Path) -> None:
    """Fault 10: a link in /sys/class/powercap that leads nowhere, beside a zone that works."""
    zones = tmp_path / "sys/class/powercap"
    zone = tmp_path / "sys/devices/virtual/powercap/intel-rapl/intel-rapl:0"
    zone.mkdir(parents=True)
    zones.mkdir(parents=True)
    (zone / "name").write_text("package-0\n")
    (zone / "max_energy_range_uj").write_text("262143328850\n")
    (zone / "energy_uj").write_text("1000000\n")
    (zones / "intel-rapl:0").symlink_to(zone)
    (zones / "intel-rapl:1").symlink_to(tmp_path / "nowhere")
    made = bench(RaplSource(Host(str(tmp_path / "proc"), str(tmp_path / "sys"), clock=clock.boot)), Uses())
    made.tick()
    (zone / "energy_uj").write_text("31000000\n")
    assert nodes(made.tick())["cpu"] == (30.0, 30.0)


def test_a_counter_that_stands_still_under_load_is_called_stuck(clock: Clock, bench: Make) -> None:
    """Fault 14: nothing is invented for it; on an idle machine it is not suspicious."""
    meter, uses = Meter(clock, package=50.0), Uses()
    made = bench(meter, uses)
    before = made.tick(3)
    meter.watts[PACKAGE] = 0.0
    assert not device(made.tick(9), "package-0").stuck
    after = made.tick(2)
    assert device(after, "package-0").stuck
    assert (device(after, "package-0").joules, device(after, "package-0").watts) == (
        device(before, "package-0").joules,
        0.0,
    )
    uses.busy_ratio = 0.0
    assert not device(made.tick(2), "package-0").stuck
    uses.busy_ratio = 0.5
    meter.watts[PACKAGE] = 50.0
    assert not device(made.tick(2), "package-0").stuck


def test_a_platform_meter_adds_only_what_the_others_do_not_show(clock: Clock, bench: Make) -> None:
    """Fault 16: psys includes package and dram; the sum over the node is psys, not more."""
    snapshot = bench(Meter(clock, psys=100.0, package=60.0, dram=5.0), Uses()).tick(11)
    assert nodes(snapshot) == {
        "cpu": (600.0, 60.0),
        "dram": (50.0, 5.0),
        "other": (350.0, 35.0),
    }
    assert device(snapshot, "psys").joules == pytest.approx(1000.0)
    assert sum(attributed(snapshot).values()) == pytest.approx(1000.0)


# --- time --------------------------------------------------------------------------------------------------


def test_the_wall_clock_may_jump(tmp_path: Path) -> None:
    """Fault 50: ± 1 h changes no joule, no watt and no schedule; only the times that people read."""

    def run(jumps: dict[int, float]) -> list[tuple[object, ...]]:
        clock = Clock()
        made = Bench(clock, [Meter(clock, package=50.0, dram=5.0), Uses()], tmp_path)
        seen: list[tuple[object, ...]] = []
        for step in range(20):
            clock.ahead += jumps.get(step, 0.0)
            snapshot = made.tick()
            assert snapshot.taken_at == clock.wall()
            devices = tuple(row._replace(last_read=None) for row in snapshot.energy.devices)
            assert {row.last_read for row in snapshot.energy.devices} == {clock.wall()}
            seen.append((devices, snapshot.energy.nodes, attributed(snapshot), snapshot.monotonic_at))
        return seen

    assert run({5: 3600.0, 9: -7200.0, 14: 0.5}) == run({})


def test_a_suspend_is_no_spike(clock: Clock, bench: Make) -> None:
    """Fault 51: an hour passes between two ticks; the counter went on slowly, and its joules are kept."""
    meter = Meter(clock, wraps_at=None, package=50.0)
    made = bench(meter, Uses())
    made.tick(5)
    meter.watts[PACKAGE] = 2.0
    woken = made.tick(seconds=3600.0)
    assert nodes(woken)["cpu"] == (4 * 50.0 + 7200.0, 2.0)
    meter.watts[PACKAGE] = 50.0
    after = made.tick()
    assert nodes(after)["cpu"][1] == pytest.approx(50.0)
    assert after.exporter.overruns == woken.exporter.overruns


def test_a_suspend_that_may_hide_a_wrap_is_a_gap(clock: Clock, bench: Make) -> None:
    """Faults 2, 51: within an hour this counter could have wrapped; the known lower bound is unattributed."""
    meter = Meter(clock, wraps_at=RANGE, package=50.0)
    made = bench(meter, Uses())
    made.tick(5)
    meter.watts[PACKAGE] = 2.0
    woken = made.tick(seconds=3600.0)
    assert nodes(woken)["cpu"] == (4 * 50.0 + 7200.0, None)
    assert lost(woken, "cpu", "gap") == pytest.approx(7200.0)


def test_a_power_gauge_is_not_stretched_over_a_suspend(clock: Clock, bench: Make) -> None:
    """Fault 51: its reading in the meantime is unknown."""

    class Gauge:
        name = "meter"

        def read(self, now: float) -> Reading:
            return Reading((PowerReading(PACKAGE, now, 50.0),))

        def close(self) -> None:
            """Nothing is open."""

    made = bench(Gauge(), Uses())
    before = nodes(made.tick(5))["cpu"][0]
    assert before == pytest.approx(4 * 50.0)
    woken = made.tick(seconds=3600.0)
    assert nodes(woken)["cpu"] == (before, None)
    assert nodes(made.tick())["cpu"] == (before + 50.0, 50.0)


def test_ticks_that_were_missed_are_skipped_and_counted() -> None:
    """Fault 52: a tick takes more than three intervals; the next ones keep to the schedule and do not pile up."""
    interval, stop = 0.05, threading.Event()
    taken: list[Snapshot] = []

    def observe(snapshot: Snapshot) -> None:
        taken.append(snapshot)
        if len(taken) == 2:
            time.sleep(3.4 * interval)
        if len(taken) == 6:
            stop.set()

    options = SamplerOptions(interval_seconds=interval)
    sampler = Sampler([], Names(), Host(clock=time.monotonic), options, observers=[observe])
    sampler.run(stop)
    sampler.close()
    began = [snapshot.monotonic_at - taken[0].monotonic_at for snapshot in taken]
    steps = [later - earlier for earlier, later in pairwise(began)]
    assert taken[-1].exporter.overruns >= 3
    assert steps[1] > 3.4 * interval
    assert sum(steps[2:]) > 1.5 * interval
    # Skipped ticks are skipped: all in all, ticks and skipped ones fill the time.
    assert began[-1] / interval == pytest.approx(5 + taken[-1].exporter.overruns, abs=0.9)


# --- scarcity ----------------------------------------------------------------------------------------------


def test_when_memory_is_short_process_series_go_first_and_come_back(
    clock: Clock, bench: Make, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Fault 59: the limit is that of our own cgroup."""

    def resident(ratio: float) -> None:
        pages = round(ratio * 1000)
        (tmp_path / "proc/self/statm").write_text(f"9999 {pages} 1 1 0 1 0\n")

    made = bench(Meter(clock, package=50.0), Uses(3))
    (tmp_path / "proc/self").mkdir()
    (tmp_path / "proc/self/cgroup").write_text("0::/exporter\n")
    (tmp_path / "sys/fs/cgroup/exporter").mkdir(parents=True)
    (tmp_path / "sys/fs/cgroup/exporter/memory.max").write_text(f"{1000 * os.sysconf('SC_PAGE_SIZE')}\n")
    resident(0.3)
    caplog.set_level(logging.INFO)
    plenty = made.tick(12)
    assert len(plenty.energy.processes) == 3
    resident(0.9)
    short = made.tick(20)
    assert short.energy.processes == ()
    assert len(short.energy.containers) == 3
    assert nodes(short)["cpu"][0] == pytest.approx(31 * 50.0)
    resident(0.3)
    again = made.tick(20)
    assert len(again.energy.processes) == 3
    assert [record.name for record in caplog.records] == ["sampler", "sampler"]


def test_containers_beyond_the_budget_are_one_row_and_nothing_is_lost(clock: Clock, bench: Make) -> None:
    """Fault 66: five rows for forty containers."""
    snapshot = bench(Meter(clock, package=50.0), Uses(40), container_max=5).tick(11)
    names = [row.owner.container for row in snapshot.energy.containers if isinstance(row.owner, Workload)]
    assert len(names) == 6
    assert names.count("other") == 1
    assert dict(snapshot.exporter.series_dropped)["container"] > 0
    other = next(
        row for row in snapshot.energy.containers if isinstance(row.owner, Workload) and row.owner.container == "other"
    )
    active = dict(zip(other.cells, other.joules, strict=True))["cpu", "active"]
    assert active == pytest.approx(10 * 40.0 * 35 / 40)
    assert attributed(snapshot)["cpu"] == pytest.approx(500.0)


def test_without_any_source_there_is_an_honest_nothing(bench: Make) -> None:
    """Fault 69."""
    snapshot = bench().tick(3)
    assert (snapshot.energy.devices, snapshot.energy.nodes, snapshot.energy.containers, snapshot.exporter.sources) == (
        (),
        (),
        (),
        (),
    )
    assert (snapshot.energy.unattributed, snapshot.energy.retired, snapshot.exporter.samples) == ((), (), 3)


def test_a_meter_without_uses_is_nobodys_energy(clock: Clock, bench: Make) -> None:
    snapshot = bench(Meter(clock, package=50.0)).tick(11)
    assert nodes(snapshot)["cpu"][0] == pytest.approx(500.0)
    assert attributed(snapshot)["cpu"] == pytest.approx(500.0)
    assert snapshot.energy.containers == ()


def test_uses_without_a_meter_are_busy_but_have_no_joules(bench: Make) -> None:
    """Fault 17: no zeros where nothing was measured."""
    snapshot = bench(Uses()).tick(3)
    assert snapshot.energy.nodes == ()
    for row in snapshot.energy.containers:
        assert row.joules == ()
        assert row.ratios == (0.25,)


# --- hanging -----------------------------------------------------------------------------------------------


def test_one_source_that_hangs_leaves_the_others_fresh(clock: Clock, bench: Make, tmp_path: Path) -> None:
    """Fault 15: a read in D state, here of a FIFO without a writer; then it returns, and no energy is lost."""
    fifo = tmp_path / "energy_uj"
    os.mkfifo(fifo)

    class Hanging:
        name = "hanging"

        def __init__(self) -> None:
            self.reads = 0

        def read(self, now: float) -> Reading:
            self.reads += 1
            if self.reads == 3:
                fifo.read_text()
            return Reading((EnergyReading(DRAM, now, 5.0 * now, None),))

        def close(self) -> None:
            """Nothing is open."""

    hanging = Hanging()
    made = bench(Meter(clock, package=50.0), hanging, Uses(), interval_seconds=3600.0, source_timeout_seconds=3600.0)
    patient = made.sampler.options
    made.tick(2)
    threads = threading.active_count()
    made.sampler.reconfigure(replace(patient, source_timeout_seconds=patience(0.3)))
    began = time.monotonic()
    first = made.tick()
    assert time.monotonic() - began > 0.25
    made.sampler.reconfigure(patient)
    last = made.tick(50)  # none of them waits for it
    wait_for(lambda: threading.active_count() == threads + 1, "one for the others beside the one that hangs")
    assert nodes(last)["cpu"] == (52 * 50.0, 50.0)
    assert nodes(first)["dram"] == nodes(last)["dram"] == (5.0, None)
    health = {source.name: source for source in last.exporter.sources}
    assert (health["hanging"].up, health["hanging"].reason, health["meter"].up) == (False, "timeout", True)
    assert health["hanging"].failures["timeout"] == 1
    fifo.write_text("")
    wait_for(lambda: threading.active_count() == threads, "the end of the call")
    after = made.tick(2)
    assert hanging.reads == 4
    assert nodes(after)["dram"][0] == pytest.approx(5.0 * 54 - 5.0, abs=5.1)
    assert {source.name: source.up for source in after.exporter.sources}["hanging"]
    made.sampler.close()
