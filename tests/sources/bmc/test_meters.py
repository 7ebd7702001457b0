"""Which of a BMC's meters is the node, and what is only part of it, for the BMCs of many makers."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import pytest

from exporter.records import Unavailable
from exporter.sources.bmc.meters import Value, values
from exporter.sources.bmc.survey import survey
from exporter.sources.bmc.values import number, watts
from tests.sources.bmc import boards
from tests.support.mock_bmc import Resources, machine, members


def read(resources: Resources, system: str = "") -> list[Value]:
    def get(path: str) -> Mapping[str, Any]:
        if path not in resources:
            raise Unavailable("not_found", path)
        found: Mapping[str, Any] = resources[path]
        return found

    return values(survey(get, system))


def node(resources: Resources) -> Value:
    return next(value for value in read(resources) if value.scope != "part")


def parts(resources: Resources) -> dict[str, float | None]:
    return {value.id: value.watts for value in read(resources) if value.scope == "part"}


@pytest.mark.parametrize(
    ("board", "id_", "scope", "power"),
    [
        (boards.dell, "bmc-System.Embedded.1", "node", 424.0),
        (boards.hpe, "bmc-power-control", "node", 312.0),
        (boards.supermicro, "bmc-power-control", "node", 548.0),
        (boards.fujitsu, "bmc-supplies", "supply", 203.0),
        (boards.huawei, "bmc-supplies", "supply", 340.0),
        (boards.inspur, "bmc-oem", "node", 420.0),
        (boards.cisco, "bmc-power-control", "node", 252.0),
    ],
)
def test_watts_of_the_machine(board: Callable[[], Resources], id_: str, scope: str, power: float) -> None:
    """Case 2 among them: PowerControl with system, CPU and memory is the system's entry only."""
    found = node(board())
    assert (found.id, found.scope, found.watts, found.counter) == (id_, scope, power, None)


@pytest.mark.parametrize(
    ("resources", "id_", "joules", "step"),
    [
        (boards.energy(joules=123.5), "bmc-1", 123.5, 0.1),
        (boards.energy(kwh=812.345), "bmc-1", 812.345 * 3.6e6, 3600.0),
        (boards.energy(kwh=5.25, LifetimeReading=912.125), "bmc-1", 912.125 * 3.6e6, 3600.0),
        (boards.energy(joules=5.0, LifetimeReading=900.0), "bmc-1", 900.0, 1.0),
        (boards.energy(joules=5.0, LifetimeReading=None), "bmc-1", 5.0, 1.0),
        (boards.supplies_only(), "bmc-supplies", (812.345 + 799.001) * 3.6e6, 3600.0),
        (boards.hgx(), "bmc-supplies", (6 * 52_000.125 + 15) * 3.6e6, 3600.0),
        (boards.openbmc(), "bmc-chassis", 7.0e6, 1.0),
    ],
)
def test_a_counter_comes_before_watts(resources: Resources, id_: str, joules: float, step: float) -> None:
    """Case 1: LifetimeReading survives ResetMetrics; kWh with three decimals count in steps of 3.6 kJ."""
    found = node(resources)
    assert found.id == id_
    assert found.counter is not None
    assert found.counter.joules == pytest.approx(joules)
    assert found.counter.step_joules == pytest.approx(step)


def test_whole_kilowatt_hours_are_no_meter_where_there_are_watts() -> None:
    """A step of 3.6 MJ takes hours; without watts it is better than nothing."""
    resources = boards.dell()
    assert node(resources).counter is None
    at = f"{boards.ROOT}/Chassis/System.Embedded.1"
    resources[f"{at}/EnvironmentMetrics"]["PowerWatts"] = {"Reading": None}
    for path in [path for path in resources if "/Power" in path]:
        resources[path] = {}
    counted = node(resources).counter
    assert counted is not None
    assert counted.step_joules == 3.6e6


def test_the_gpus_of_a_baseboard_are_parts_and_never_added() -> None:
    """Case 3: eight GPU chassis, the baseboard and the system; NVML reads the same silicon."""
    found = read(boards.hgx())
    shown = {value.id for value in found if value.scope == "part"}
    assert {f"bmc-HGX_GPU_SXM_{n}" for n in range(1, 9)} <= shown
    assert not any("Baseboard" in id_ or "Chassis_0" in id_ or "NVSwitch" in id_ for id_ in shown)
    assert {value.id for value in found if value.scope != "part"} == {"bmc-supplies", "bmc-DGX"}


def test_parts_are_shown() -> None:
    assert parts(boards.dell()) == {"bmc-supply-PSU.Slot.1": 216.0, "bmc-supply-PSU.Slot.2": 208.0}
    assert parts(boards.hpe()) == {"bmc-supply-0": 150.0, "bmc-supply-1": 140.0}
    assert parts(boards.supermicro()) == {
        "bmc-supply-0": 280.0,
        "bmc-supply-1": 271.0,
        "bmc-CPU-Sub-system-Power": 240.0,
        "bmc-Memory-Sub-system-Power": 38.0,
    }
    assert parts(boards.fujitsu()) == {"bmc-supply-1": 101.0, "bmc-supply-2": 102.0}


def test_a_sum_without_one_of_its_supplies_is_no_sum() -> None:
    resources = boards.supplies_only()
    at = f"{boards.ROOT}/Chassis/1/PowerSubsystem/PowerSupplies"
    del resources[f"{at}/B/Metrics"]["EnergykWh"]
    assert node(resources).counter is None
    assert node(resources).watts == 310.0
    resources[f"{at}/B/Metrics"] = {"InputPowerWatts": {"Reading": None}, "OutputPowerWatts": {"Reading": 150.0}}
    assert [value.id for value in read(resources) if value.scope != "part"] == []
    resources[f"{at}/A/Metrics"]["OutputPowerWatts"] = {"Reading": 141.0}
    assert (node(resources).id, node(resources).watts) == ("bmc-supplies-output", 291.0)


def test_a_supply_on_standby_uses_nothing() -> None:
    resources = boards.supplies_only()
    at = f"{boards.ROOT}/Chassis/1/PowerSubsystem/PowerSupplies"
    resources[f"{at}/A/Metrics"] = {"InputPowerWatts": {"Reading": 305.0}}
    resources[f"{at}/B/Metrics"] = {"InputPowerWatts": {"Reading": 0.0}}
    assert node(resources).watts == 305.0
    assert parts(resources) == {"bmc-supply-A": 305.0}


def test_a_blade_is_not_its_enclosure() -> None:
    """The enclosure of several blades is listed too, and the blade is contained by it."""
    resources = machine("Blade1", "Blade1", ("Power",), more=("Enclosure",), chassis_type="Blade")
    at = f"{boards.ROOT}/Chassis"
    resources[f"{at}/Blade1"]["Links"] = {"ContainedBy": {"@odata.id": f"{at}/Enclosure"}}
    resources[f"{at}/Enclosure"] = {"Id": "Enclosure", "Power": {"@odata.id": f"{at}/Enclosure/Power"}}
    resources[f"{at}/Enclosure/Power"] = {"PowerControl": [{"PowerConsumedWatts": 4000}]}
    resources[f"{at}/Blade1/Power"] = {"PowerControl": [{"PowerConsumedWatts": 300}]}
    assert node(resources).watts == 300.0
    # Its system may name both: what contains the machine are its own chassis and all that this is in.
    resources[f"{boards.ROOT}/Systems/Blade1"]["Links"]["Chassis"].append({"@odata.id": f"{at}/Enclosure"})
    for said in (
        {"ChassisType": "Enclosure"},
        {"Links": {"ComputerSystems": [{"@odata.id": f"{boards.ROOT}/Systems/Blade{n}"} for n in (1, 2)]}},
    ):
        enclosure = {name: resources[f"{at}/Enclosure"][name] for name in ("Id", "Power")}
        resources[f"{at}/Enclosure"] = enclosure | said
        assert node(resources).watts == 300.0


def test_a_bmc_of_several_machines_wants_to_know_which_one_this_is() -> None:
    resources = boards.hpe()
    at = f"{boards.ROOT}/Systems"
    resources[at] = members(at, "1", "2")
    resources[f"{at}/2"] = {"Id": "2"}
    with pytest.raises(Unavailable, match="several systems: 1, 2") as caught:
        read(resources)
    assert "--bmc.redfish.system" in caught.value.fix
    assert read(resources, "1")[0].watts == 312.0
    with pytest.raises(Unavailable, match="no system 3"):
        read(resources, "3")


def test_nothing_that_measures_is_no_value() -> None:
    assert read(machine(links=())) == []
    assert read(machine(links=("Power", "PowerSubsystem", "EnvironmentMetrics"))) == []


NO_NUMBERS: list[object] = [None, True, "", "N/A", "abc", -3, float("nan"), float("inf"), [], {}, "1e999"]


@pytest.mark.parametrize(
    ("value", "wanted"),
    [
        (5, 5.0),
        (5.5, 5.5),
        ("5", 5.0),
        (" 5.5 W", 5.5),
        ({"Reading": 7}, 7.0),
        ({"Reading": "7"}, 7.0),
        (0, 0.0),
        *((junk, None) for junk in NO_NUMBERS),
    ],
)
def test_numbers_as_firmware_writes_them(value: object, wanted: float | None) -> None:
    assert number(value) == wanted
    assert watts(value) == (wanted or None)


JUNK: list[object] = [
    None,
    3,
    "x",
    [],
    {},
    [None],
    {"Members": 3},
    {"Reading": {}},
    {"@odata.id": 5},
    {"@odata.id": "http://other/"},
]


@pytest.mark.parametrize("junk", JUNK, ids=repr)
@pytest.mark.parametrize("board", [boards.dell, boards.supermicro, boards.hgx, boards.fujitsu])
def test_a_broken_property_is_as_if_it_were_not_there(board: Callable[[], Resources], junk: object) -> None:
    """Any property of any resource may be anything: that is no exception but `Unavailable`."""
    for path, resource in board().items():
        for name in resource:
            broken = board()
            broken[path][name] = junk
            try:
                read(broken)
            except Unavailable:
                continue
