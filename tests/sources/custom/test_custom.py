"""Meters of one's own: numbers in texts, reads that fail or hang, and what they do to the node's sum."""

from __future__ import annotations

import os
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from exporter.accounting.devices import Devices
from exporter.accounting.measurement import Use
from exporter.records import EnergyReading, PowerReading, Reading, Unavailable
from exporter.sources.custom.meter import Meter, value_of
from exporter.sources.custom.poller import Poller
from exporter.sources.custom.source import CustomSource
from tests.support.patience import wait_for
from tests.support.written_node import WrittenNode

PLAIN = Meter(
    name="lab",
    file="/run/lab",
    command=(),
    pattern=None,
    sums=False,
    unit="J",
    counter=True,
    factor=1.0,
    component="platform",
    scope="node",
    within=None,
    contains=(),
    quality="measured",
    wraps_at=None,
    step_joules=0.0,
    max_watts=None,
    interval_seconds=1.0,
    timeout_seconds=5.0,
)


def meter(**fields: Any) -> Meter:
    return replace(PLAIN, **fields)


# --- the number


@pytest.mark.parametrize(
    ("text", "fields", "value"),
    [
        ("8123\n", {}, 8123.0),
        ("  8123.5 J\n", {}, 8123.5),
        ("+2.174500E+01\r\n", {}, 21.745),
        ("412 Watts", {"unit": "W", "counter": False}, 412.0),
        ("7µJ", {"unit": "uJ", "factor": 1e-6}, 7e-6),
        ("8123 since Monday", {}, 8123.0),
        (".5", {"factor": 1e-3}, 0.0005),
        ("Power: 35.2 W\n", {"pattern": re.compile(r"Power: ([\d.]+)")}, 35.2),
        ("a 1 W\nb 2 W\nc 4 W\n", {"pattern": re.compile(r"(\d) W")}, 1.0),
        ("a 1 W\nb 2 W\nc 4 W\n", {"pattern": re.compile(r"(\d) W"), "sums": True}, 7.0),
        ("123", {"factor": 0.1 * 3.6e6}, 123 * 360_000.0),
    ],
)
def test_a_number_is_found(text: str, fields: dict[str, Any], value: float) -> None:
    assert value_of(meter(**fields), text) == pytest.approx(value)


WRONG = ("1,234 J", "1,5", "12:30:45", "0x1A", "1.2.3", "3rd", "5 kJ", "5kJ", "5 kWh", "5 W")
"""Not this number, or of another unit."""


@pytest.mark.parametrize("text", ["", "N/A", "nan", "inf", "-3", "1e999", "W 5", "\0\0", *WRONG])
def test_what_is_no_amount_is_said_with_the_meters_name(text: str) -> None:
    with pytest.raises(Unavailable) as caught:
        value_of(PLAIN, text)
    assert caught.value.reason == "implausible"
    assert "lab" in caught.value.message


def test_a_pattern_that_finds_no_number() -> None:
    with pytest.raises(Unavailable, match="its pattern finds no number in 'all fine'"):
        value_of(meter(pattern=re.compile("Power (.+)")), "all fine")


# --- the source


def read_all(source: CustomSource) -> Reading:
    for poller in source._pollers:
        poller.read()
    return source.read(5000.0)


def test_a_hanging_command_delays_no_tick_and_no_other_meter(tmp_path: Path) -> None:
    """A read returns although the command never does, and so does closing."""
    node = WrittenNode(tmp_path)
    node.text("value", "42")
    hangs = meter(name="hangs", command=("/bin/sh", "-c", "exec sleep 1000"), file="", timeout_seconds=600.0)
    source = CustomSource(node.host(), [hangs, meter(file=f"{tmp_path}/value", counter=False)])
    try:
        found = wait_for(lambda: source.read(node.now).meters)
        assert [one.device.id for one in found] == ["custom-lab"]
    finally:
        source.close()
    assert not source._pollers


def test_a_file_that_never_answers_is_a_problem(tmp_path: Path) -> None:
    """A pipe without a writer, or a file on a server that is gone: the read does not end, and that is said."""
    node = WrittenNode(tmp_path)
    os.mkfifo(tmp_path / "pipe")
    source = CustomSource(node.host(), [meter(file=f"{tmp_path}/pipe")])
    try:
        wait_for(lambda: source.read(node.now).pending and source._pollers[0].began is not None)
        with pytest.raises(Unavailable) as caught:
            source.read(node.now + 11.0)
        assert (caught.value.reason, "without an end" in caught.value.message) == ("timeout", True)
    finally:
        os.close(os.open(tmp_path / "pipe", os.O_RDWR | os.O_NONBLOCK))
        with open(tmp_path / "pipe", "w", encoding="ascii") as pipe:
            pipe.write("1")
        source.close()


def test_a_unit_that_changes_is_no_other_number(tmp_path: Path) -> None:
    node = WrittenNode(tmp_path)
    node.text("value", "412.5 W")
    source = CustomSource(node.host(), [meter(file=f"{tmp_path}/value", unit="W", counter=False)], Poller.read)
    assert [one.watts for one in source.read(node.now).meters if isinstance(one, PowerReading)] == [412.5]
    node.text("value", "1.4125 kW")
    with pytest.raises(Unavailable, match="is in kW, declared is W"):
        read_all(source)


def test_a_meter_that_fails_is_a_problem_and_one_that_returns_is_none(tmp_path: Path) -> None:
    node = WrittenNode(tmp_path)
    node.text("good", "42")
    meters = [meter(file=f"{tmp_path}/good"), meter(name="late", file=f"{tmp_path}/late")]
    source = CustomSource(node.host(), meters, start=lambda poller: poller.read())
    reading = source.read(node.now)
    (problem,) = reading.problems
    assert (problem.reason, "late" in problem.message) == ("not_found", True)
    node.text("late", "7")
    assert not read_all(source).problems


def test_all_meters_that_fail_are_a_source_that_is_down(tmp_path: Path) -> None:
    node = WrittenNode(tmp_path)
    source = CustomSource(node.host(), [meter(file=f"{tmp_path}/none")], start=lambda poller: poller.read())
    with pytest.raises(Unavailable) as caught:
        source.read(node.now)
    assert caught.value.reason == "not_found"


def test_a_value_is_published_once_and_a_components_gauge_holds(tmp_path: Path) -> None:
    node = WrittenNode(tmp_path)
    node.text("v", "42")
    gauge = meter(file=f"{tmp_path}/v", counter=False, component="gpu", name="card", interval_seconds=10.0)
    source = CustomSource(node.host(), [meter(file=f"{tmp_path}/v"), gauge], start=lambda poller: poller.read())
    assert {one.device.id for one in source.read(node.now).meters} == {"custom-lab", "custom-card"}
    (held,) = source.read(node.now + 1.0).meters
    assert (held.device.id, held.at) == ("custom-card", node.now + 1.0)
    assert not source.read(node.now + 36.0).meters


# --- conservation


@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    watts=st.lists(st.integers(0, 3000), min_size=4, max_size=30),
    unit=st.sampled_from([("mJ", 1e-3), ("J", 1.0), ("Wh", 3.6e3)]),
    wrap_after=st.sampled_from([None, 5000, 40_000]),
    restart=st.integers(1, 29),
)
def test_a_declared_counter_counts_what_was_used(
    tmp_path_factory: pytest.TempPathFactory,
    watts: list[int],
    unit: tuple[str, float],
    wrap_after: int | None,
    restart: int,
) -> None:
    """Whatever its unit and range: the joules of its device are the truth; without a range a fall costs its tick."""
    factor = unit[1]
    wraps = None if wrap_after is None else float(wrap_after)
    declared = meter(factor=factor, wraps_at=wraps, max_watts=4000.0, interval_seconds=1.0)
    node = WrittenNode(tmp_path_factory.mktemp("lab"))
    source = CustomSource(node.host(), [replace(declared, file=f"{node.root}/v")], start=lambda poller: poller.read())
    devices = Devices()
    register, truth = 0.0, 0.0

    def tick() -> None:
        node.text("v", repr(register / factor))
        for poller in source._pollers:
            poller.read()
        devices.measure(source.read(node.now).meters, Use(1.0, 8.0))

    tick()
    for number, drawn in enumerate(watts):
        node.now += 1.0
        if wraps is None and number == restart:
            register = 0.0
            tick()
            node.now += 1.0  # a fall is confirmed by the next value
        register += drawn
        truth += drawn
        if wraps is not None:
            register %= wraps
        tick()
    lost = max(watts) if wraps is None and restart < len(watts) else 0.0
    assert devices.joules["custom-lab"] == pytest.approx(truth, abs=lost + 1e-3 + 2e-9 * truth)
    assert devices.joules["custom-lab"] <= truth + 1e-3


def play(meters: list[Meter], drawn: list[dict[str, float]], folder: Path) -> tuple[Devices, dict[str, float]]:
    """Devices after one second of each ``drawn``: watts by meter; all counters."""
    node = WrittenNode(folder)
    declared = [replace(one, file=f"{folder}/{one.name}", max_watts=1e5) for one in meters]
    source = CustomSource(node.host(), declared, start=lambda poller: poller.read())
    devices, counted = Devices(), {one.name: 1000.0 for one in meters}
    for watts in [dict.fromkeys(counted, 0.0), *drawn]:
        node.now += 1.0
        counted = {name: joules + watts[name] for name, joules in counted.items()}
        for name, joules in counted.items():
            node.text(name, repr(joules))
        for poller in source._pollers:
            poller.read()
        devices.measure(source.read(node.now).meters, Use(1.0, 8.0))
    return devices, {name: joules - 1000.0 for name, joules in counted.items()}


def test_what_a_meter_contains_is_not_added(tmp_path: Path) -> None:
    """A rail that feeds CPU and memory, beside meters of both; a card inside nothing."""
    meters = [
        meter(name="rail", component="cpu", contains=("custom-c*", "custom-mem")),
        meter(name="core", component="cpu"),
        meter(name="mem", component="dram"),
        meter(name="card", component="gpu"),
        meter(name="fan", component="gpu", within="node"),
    ]
    devices, used = play(meters, [{"rail": 90, "core": 60, "mem": 20, "card": 200, "fan": 5}] * 20, tmp_path)
    # "custom-c*" matches the card as well: it is then part of the rail by the operator's own statement
    assert devices.node_joules == pytest.approx({"cpu": used["rail"]})
    meters[0] = replace(meters[0], contains=("custom-core", "custom-mem"))
    devices, used = play(meters, [{"rail": 90, "core": 60, "mem": 20, "card": 200, "fan": 5}] * 20, tmp_path / "b")
    assert devices.node_joules == pytest.approx({"cpu": used["rail"], "gpu": used["card"]})


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    loads=st.lists(st.tuples(*(st.integers(0, most) for most in (400, 700, 150, 300))), min_size=120, max_size=160),
    period=st.sampled_from([1, 5, 10]),
)
def test_cpu_gpu_and_other_are_the_outlet(
    tmp_path_factory: pytest.TempPathFactory, loads: list[tuple[int, ...]], period: int
) -> None:
    """Never more than the outlet has measured, and all of it but the last minute that is still being posted."""
    node = WrittenNode(tmp_path_factory.mktemp("outlet"))
    meters = [
        meter(name="cpu", component="cpu", max_watts=1e4),
        meter(name="card", component="gpu", max_watts=1e4),
        meter(name="plug", scope="outlet", interval_seconds=float(period), max_watts=1e5),
    ]
    declared = [replace(one, file=f"{node.root}/{one.name}") for one in meters]
    source = CustomSource(node.host(), declared, start=lambda poller: poller.read())
    devices, counted = Devices(), {"cpu": 10.0, "card": 10.0, "plug": 10.0}
    for number, (cpu, card, fans, loss) in enumerate([(0, 0, 0, 0), *loads]):
        node.now += 1.0
        for name, watts in (("cpu", cpu), ("card", card), ("plug", cpu + card + fans + loss)):
            counted[name] += watts
            node.text(name, repr(counted[name]))
        for poller in source._pollers:
            if poller.meter.name != "plug" or number % period == 0:
                poller.read()
        devices.measure(source.read(node.now).meters, Use(1.0, 8.0))
    total = sum(devices.node_joules.values())
    assert total <= counted["plug"] - 10.0 + 1e-6 + period * 1100
    assert devices.node_joules["cpu"] == pytest.approx(counted["cpu"] - 10.0)
    assert devices.node_joules["gpu"] == pytest.approx(counted["card"] - 10.0)
    assert counted["plug"] - 10.0 - total <= 70 * 450 + period * 1550


def test_a_published_counter_has_the_time_of_its_value(tmp_path: Path) -> None:
    node = WrittenNode(tmp_path)
    node.text("v", "5")
    source = CustomSource(node.host(), [meter(file=f"{tmp_path}/v")], start=lambda poller: poller.read())
    (reading,) = source.read(node.now + 0.4).meters
    assert isinstance(reading, EnergyReading)
    assert reading.at == node.now
