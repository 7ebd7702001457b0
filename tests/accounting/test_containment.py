"""One meter is the node, what is inside it counts once, and other = outer − Σ inner, right over minutes."""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Callable
from statistics import fmean

import pytest
from hypothesis import given
from hypothesis import strategies as st

from exporter.accounting.attribution import platform_choices
from exporter.accounting.devices import Devices, Restart
from exporter.accounting.measurement import Use
from exporter.records import CpuUse, Device, EnergyReading, PowerReading

PACKAGE = Device("package-0", "cpu", "rapl", "measured", "package-0", 4.0, socket=0)
GPU = Device("GPU-1", "gpu", "nvml", "measured", "H100", 1.0)
PSYS = Device("psys-0", "platform", "rapl", "measured", "psys", 4.0)
ESTIMATE = Device("cpu-estimate", "cpu", "estimate", "estimated", "cpu", 4.0, idle_watts=3.0)


def outer(id_: str = "bmc", method: str = "energy_counter", **fields: object) -> Device:
    made = {"scope": "supply", "period_seconds": 10.0, "max_watts": 20_000.0, **fields}
    return Device(id_, "platform", "bmc", "measured", "BMC", 0.0, method=method, **made)  # type: ignore[arg-type]


Truth = Callable[[float], tuple[float, float]]
"""Watts of the parts and of the rest at a time."""


class Machine:
    """A machine with a known truth, whose outer meter is read every ``period`` seconds, ``lag`` seconds late."""

    def __init__(self, truth: Truth, device: Device, lag: int = 0, step: float = 0.0) -> None:
        self.devices = Devices()
        self.now = 0
        self.true = {"cpu": 0.0, "other": 0.0}
        self.meter_stopped = False
        self.meter_factor = 1.0
        self.stuck_watts: float | None = None
        self._truth, self._device, self._lag, self._step = truth, device, lag, step
        self._total: deque[float] = deque([0.0] * (lag + 1), maxlen=lag + 1)
        self._watts: deque[float] = deque([0.0] * (lag + 1), maxlen=lag + 1)
        self.others: list[float] = []
        self.gauge: list[float | None] = []

    def run(self, seconds: int) -> Machine:
        for _ in range(seconds):
            parts, rest = self._truth(self.now)
            self.now += 1
            self.true["cpu"] += parts
            self.true["other"] += rest
            self._total.append(self._total[-1] + (parts + rest) * self.meter_factor)
            self._watts.append((parts + rest) * self.meter_factor)
            readings: list[EnergyReading | PowerReading] = [EnergyReading(PACKAGE, self.now, self.true["cpu"], None)]
            if self.now % (self._device.period_seconds or 1.0) == 0 and not self.meter_stopped:
                readings.append(self._outer())
            measured = self.devices.measure(readings, Use(1.0, 4.0, CpuUse(self.now, 1.0, 1.0)))
            self.others.append(self.devices.node_joules["other"])
            rows = {row.component: row.watts for row in self.devices.node_rows(measured)}
            self.gauge.append(rows.get("other"))
        return self

    def _outer(self) -> EnergyReading | PowerReading:
        if self._device.method == "power_integrated":
            watts = self._watts[0] if self.stuck_watts is None else self.stuck_watts
            return PowerReading(self._device, self.now, watts)
        joules = self._total[0]
        return EnergyReading(self._device, self.now, joules - joules % self._step if self._step else joules, None)

    @property
    def other(self) -> float:
        return self.devices.node_joules["other"]


def varied(now: float) -> tuple[float, float]:
    """A load that jumps between 100 and 1,000 W at uneven times, the same ones every five minutes; fans follow it."""
    second = now % 300
    busy = (second * 7919) % 97 > 55 or 200 < second < 260
    return (1000.0, 260.0) if busy else (100.0, 180.0)


def uneven(seed: int, seconds: int) -> Truth:
    """The same at times that do not repeat; fans follow in half a minute, and disks work by themselves."""
    chance = random.Random(seed)
    watts: list[tuple[float, float]] = []
    fans, disks = 40.0, 0.0
    while len(watts) < seconds:
        parts = chance.choice((100.0, 1000.0, chance.uniform(100, 1000)))
        for _ in range(chance.randint(2, 12)):
            fans += (30.0 + 0.09 * parts - fans) / 30
            disks = chance.choice((0.0, 60.0)) if chance.random() < 0.05 else disks
            watts.append((parts, 140.0 + fans + disks))
    return lambda now: watts[int(now)]


@pytest.mark.parametrize("lag", [0, 3, 10])
@pytest.mark.parametrize("method", ["energy_counter", "power_integrated"])
def test_other_is_right_over_ten_minutes_of_varied_load(method: str, lag: int) -> None:
    """Within 1 %, by a counter or a gauge that is read every 10 s and up to 10 s late."""
    machine = Machine(varied, outer(method=method), lag).run(300)
    other, true = machine.other, machine.true["other"]
    machine.run(600)
    assert machine.other - other == pytest.approx(machine.true["other"] - true, rel=0.01)
    assert machine.devices.problems == {}
    assert all(after >= before for before, after in zip(machine.others, machine.others[1:], strict=False))


@pytest.mark.parametrize(
    ("method", "lag", "mean", "worst"),
    [
        ("energy_counter", 0, 0.003, 0.01),
        ("energy_counter", 10, 0.006, 0.02),
        ("power_integrated", 0, 0.007, 0.02),
        ("power_integrated", 10, 0.007, 0.025),
    ],
)
def test_other_is_right_over_any_ten_minutes(method: str, lag: int, mean: float, worst: float) -> None:
    """Also those that begin at one power and end at another: docs/containment.md has what this prints."""
    seconds, began = 2400, 600
    machine = Machine(uneven(1, seconds), outer(method=method), lag)
    true = [0.0, *(machine.run(1).true["other"] for _ in range(seconds))]
    others = [0.0, *machine.others]
    errors = [
        abs((others[at + 600] - others[at]) / (true[at + 600] - true[at]) - 1) for at in range(began, seconds - 600, 10)
    ]
    whole = (others[-1] - others[began]) / (true[-1] - true[began]) - 1
    print(f"{method}, {lag} s: mean {fmean(errors):.1%}, worst {max(errors):.1%}, half an hour {whole:+.1%}")
    assert fmean(errors) < mean
    assert max(errors) < worst


def test_a_gauge_is_integrated_over_its_period() -> None:
    """Steady load: exact, although values are 10 s apart; a value that is missing is bridged, a long silence is not."""
    machine = Machine(lambda now: (100.0, 50.0), outer(method="power_integrated")).run(300)
    other = machine.other
    machine.run(600)
    assert machine.other - other == pytest.approx(50.0 * 600, rel=0.01)
    machine.meter_stopped = True
    machine.run(600)
    machine.meter_stopped = False
    stopped = machine.other
    machine.run(60)
    assert machine.other - stopped < 50.0 * 70, "what was used in the silence is not known"


def test_other_has_watts_at_every_tick_and_the_meter_is_up_between_two_values() -> None:
    machine = Machine(lambda now: (100.0, 50.0), outer()).run(400)
    assert machine.gauge[-30:] == pytest.approx([50.0] * 30, rel=0.1)
    measured = machine.devices.measure([], Use(1.0, 4.0))
    row = next(row for row in machine.devices.rows(measured, {}, 0.0) if row.device.id == "bmc")
    assert (row.up, row.watts) == (True, 150.0)
    for _ in range(40):
        measured = machine.devices.measure([], Use(1.0, 4.0))
    row = next(row for row in machine.devices.rows(measured, {}, 0.0) if row.device.id == "bmc")
    assert (row.up, row.watts) == (False, None)
    assert {row.component: row.watts for row in machine.devices.node_rows(measured)}["other"] is None


def test_a_meter_read_rarely_is_not_retired_because_it_has_no_reading_in_the_tick_of_a_review() -> None:
    machine = Machine(lambda now: (100.0, 50.0), outer()).run(405)
    measured = machine.devices.measure([], Use(1.0, 4.0))
    for at in (0.0, 8 * 86_400.0):
        machine.devices.review(measured, at)
    assert "bmc" in {row.device.id for row in machine.devices.rows(measured, {}, 0.0)}


def test_an_outer_meter_below_its_parts_for_long_is_a_problem_with_a_reason() -> None:
    """Case 9: no negative ``other``, one problem; once it is plausible again, it counts again."""
    machine = Machine(lambda now: (500.0, 100.0), outer())
    machine.run(600)
    machine.meter_factor = 0.5
    machine.run(700)
    (problem,) = machine.devices.problems.values()
    assert problem.reason == "implausible"
    assert "bmc" in problem.message
    before = machine.other
    machine.run(300)
    assert machine.other == before
    machine.meter_factor = 1.0
    machine.run(700)
    assert machine.devices.problems == {}
    assert machine.other > before
    assert all(after >= before for before, after in zip(machine.others, machine.others[1:], strict=False))


def test_a_gauge_that_stands_still_while_its_parts_do_not_is_a_problem_until_it_moves() -> None:
    """A BMC whose sensors are not read any more repeats the last value; at a steady load that is no fault."""
    machine = Machine(varied, outer(method="power_integrated")).run(600)
    machine.stuck_watts = 1500.0
    machine.run(600)
    (problem,) = machine.devices.problems.values()
    assert (problem.reason, "bmc: its power stands still" in problem.message) == ("implausible", True)
    before = machine.other
    machine.run(300)
    assert machine.other == before
    machine.stuck_watts = None
    machine.run(60)
    assert machine.devices.problems == {}
    assert machine.other > before
    steady = Machine(lambda now: (100.0, 50.0), outer(method="power_integrated")).run(1200)
    assert steady.devices.problems == {}


def test_one_short_contradiction_is_no_problem_and_nothing_is_counted_twice() -> None:
    """A jump of the load that the meter shows 10 s later: right once that lag has been found."""
    machine = Machine(lambda now: (2000.0 if now % 300 >= 280 else 100.0, 50.0), outer(), 10).run(900)
    assert machine.devices.problems == {}
    other, true = machine.other, machine.true["other"]
    machine.run(600)
    assert machine.other - other == pytest.approx(machine.true["other"] - true, rel=0.02)


def test_an_estimate_contradicts_no_meter() -> None:
    """Modelled watts above the meter's: the model is wrong, and nothing is left for ``other``."""
    devices = Devices()
    meter = outer()
    for now in range(1, 900):
        readings: list[EnergyReading | PowerReading] = [EnergyReading(ESTIMATE, now, 200.0 * now, None)]
        if now % 10 == 0:
            readings.append(EnergyReading(meter, now, 100.0 * now, None))
        devices.measure(readings, Use(1.0, 4.0, CpuUse(now, 1.0, 1.0)))
    assert devices.problems == {}
    assert devices.node_joules["other"] == 0.0


def test_a_coarse_counter_begins_with_its_first_step_and_is_right_over_hours() -> None:
    """A PDU of 0.1 kWh: one step in twelve minutes is neither a jump nor a stuck meter."""
    meter = outer("pdu", scope="outlet", period_seconds=60.0, step_joules=360_000.0)
    machine = Machine(lambda now: (400.0, 100.0), meter, step=360_000.0)
    machine.run(4 * 3600)
    assert machine.other == pytest.approx(machine.true["other"], abs=360_000.0)
    assert machine.devices.problems == {}
    measured = machine.devices.measure([], Use(1.0, 4.0))
    row = next(row for row in machine.devices.rows(measured, {}, 0.0) if row.device.id == "pdu")
    assert (row.resets, row.stuck) == (0, False)


def test_while_the_preferred_meter_is_silent_the_next_one_is_used_and_nothing_counts_twice() -> None:
    """When it returns, its counter includes what the other has shown meanwhile."""
    devices, total = Devices(), 0.0
    for now in range(1, 2401):
        total += 100.0
        readings: list[EnergyReading | PowerReading] = [
            EnergyReading(PACKAGE, now, total, None),
            EnergyReading(PSYS, now, 1.5 * total, None),
        ]
        if now % 10 == 0 and not 600 <= now < 1200:
            readings.append(EnergyReading(outer(), now, 2.0 * total, None))
        devices.measure(readings, Use(1.0, 4.0, CpuUse(now, 1.0, 1.0)))
    node = sum(devices.node_joules.values())
    assert node == pytest.approx(2.0 * total, rel=0.05)
    assert node <= 2.0 * total + 1.0


SCOPES = (
    outer("plug", scope="outlet", period_seconds=1.0),
    outer("supplies"),
    outer("supplies-watts", method="power_integrated"),
    outer("node-energy", scope="node", period_seconds=0.0),
    outer("node-watts", method="power_integrated", scope="node"),
    PSYS,
    outer("pdu", scope="outlet", period_seconds=60.0, step_joules=360_000.0),
)
PART = outer("psu-1", scope="part")


@given(st.permutations(SCOPES))
def test_the_node_is_chosen_by_scope_and_not_by_who_was_read_first(order: list[Device]) -> None:
    """Outermost first, a counter before a gauge, coarse ones last; what is only a part never."""
    assert [choice[0].id for choice in platform_choices((PART, *order))] == [device.id for device in SCOPES]


@given(st.permutations([0, 1, 2, 3]), st.integers(0, 15))
def test_however_many_meters_show_the_machine_it_is_counted_once(order: list[int], away: int) -> None:
    """Σ node = the preferred meter's joules, whichever of the others are there."""
    meters = [outer("supplies", period_seconds=0.0), outer("node-energy", scope="node", period_seconds=0.0), PSYS, PART]
    present = [meters[n] for n in order if not away >> n & 1]
    devices = Devices()
    for now in range(1, 100):
        readings = [EnergyReading(device, now, 300.0 * now, None) for device in present]
        readings += [EnergyReading(PACKAGE, now, 100.0 * now, None), EnergyReading(GPU, now, 50.0 * now, None)]
        devices.measure(readings, Use(1.0, 4.0))
    whole = any(device.scope != "part" for device in present)
    assert sum(devices.node_joules.values()) == pytest.approx((300.0 if whole else 150.0) * 98)


def test_a_counter_read_every_ten_seconds_continues_after_a_restart() -> None:
    """Its last value was up to one period old when the run before ended; that is no absence."""
    first = Machine(lambda now: (100.0, 50.0), outer()).run(309)
    state = first.devices.state()
    again = Devices(None, Restart(state, ended_at=309.0, sources=("rapl", "bmc")))
    for now in range(320, 621):
        readings: list[EnergyReading | PowerReading] = [EnergyReading(PACKAGE, now, 100.0 * now, None)]
        if now % 10 == 0:
            readings.append(EnergyReading(outer(), now, 150.0 * now, None))
        again.measure(readings, Use(1.0, 4.0))
    assert again.node_joules["other"] == pytest.approx(50.0 * 620, rel=0.25)
    assert again.node_joules["other"] <= 50.0 * 620


@pytest.mark.parametrize("method", ["energy_counter", "power_integrated"])
@pytest.mark.parametrize("lag", [0, 10])
def test_a_restart_counts_nothing_twice(method: str, lag: int) -> None:
    """What was expected of the meter before it is in no file: some is left out instead.

    What the parts used within the lag before is not known either: with 10 s it is 2 % of these ten minutes, either way.
    """
    machine = Machine(uneven(2, 1600), outer(method=method), lag).run(907)
    other, true, state = machine.other, machine.true["other"], machine.devices.state()
    machine.devices = Devices(None, Restart(state, ended_at=907.0, sources=("rapl", "bmc")))
    machine.run(600)
    assert 0.85 * (machine.true["other"] - true) < machine.other - other < 1.03 * (machine.true["other"] - true)
