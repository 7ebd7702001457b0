"""BMCs of several makers, as their documents, DMTF's mock-ups and public issues describe them."""

from __future__ import annotations

from typing import Any

from tests.support.mock_bmc import Resources, machine, members

ROOT = "/redfish/v1"


def supplies(chassis: str, metrics: dict[str, dict[str, Any]], absent: tuple[str, ...] = ()) -> Resources:
    """A PowerSubsystem with supplies and their metrics."""
    at = f"{ROOT}/Chassis/{chassis}/PowerSubsystem"
    found: Resources = {
        at: {"PowerSupplies": {"@odata.id": f"{at}/PowerSupplies"}},
        f"{at}/PowerSupplies": members(f"{at}/PowerSupplies", *metrics, *absent),
    }
    for id_ in (*metrics, *absent):
        path = f"{at}/PowerSupplies/{id_}"
        state = "Absent" if id_ in absent else "Enabled"
        found[path] = {"Id": id_, "Status": {"State": state}, "Metrics": {"@odata.id": f"{path}/Metrics"}}
        found[f"{path}/Metrics"] = metrics.get(id_, {"InputPowerWatts": {"Reading": None}})
    return found


def dell() -> Resources:
    """iDRAC 9: the older Power resource beside PowerSubsystem; energy in whole kWh (DMTF's 1U rack mock-up too)."""
    chassis = "System.Embedded.1"
    at = f"{ROOT}/Chassis/{chassis}"
    found = machine(chassis, chassis, ("EnvironmentMetrics", "PowerSubsystem", "Power"), "Dell Inc.")
    found |= supplies(
        chassis,
        {
            "PSU.Slot.1": {"InputPowerWatts": {"Reading": 216.0}, "OutputPowerWatts": {"Reading": 198.0}},
            "PSU.Slot.2": {"InputPowerWatts": {"Reading": 208.0}, "OutputPowerWatts": {"Reading": 190.0}},
        },
    )
    found[f"{at}/EnvironmentMetrics"] = {
        "PowerWatts": {"DataSourceUri": f"{at}/Sensors/SystemBoardPwrConsumption", "Reading": 424},
        "EnergykWh": {"DataSourceUri": f"{at}/Sensors/Energy", "Reading": 3638, "LifetimeReading": 6491},
    }
    found[f"{at}/Power"] = {
        "PowerControl": [
            {
                "MemberId": "PowerControl",
                "Name": "System Power Control",
                "PowerConsumedWatts": 424,
                "PowerCapacityWatts": 1400,
                "PowerMetrics": {"AverageConsumedWatts": 410, "IntervalInMin": 60, "MaxConsumedWatts": 510},
                "RelatedItem": [{"@odata.id": at}, {"@odata.id": f"{ROOT}/Systems/{chassis}"}],
            }
        ],
        "PowerSupplies": [
            {"MemberId": "PSU.Slot.1", "Name": "PS1 Status", "PowerInputWatts": 216, "PowerOutputWatts": 198},
            {"MemberId": "PSU.Slot.2", "Name": "PS2 Status", "PowerInputWatts": 208, "PowerOutputWatts": 190},
        ],
    }
    return found


def hpe() -> Resources:
    """iLO 5: no input watts of supplies, LastPowerOutputWatts only; empty bays have firmware 0.00 (iLO 4)."""
    found = machine("1", "1", ("Power",), "HPE")
    found[f"{ROOT}/Chassis/1/Power"] = {
        "PowerControl": [
            {
                "MemberId": "0",
                "PowerCapacityWatts": 1600,
                "PowerConsumedWatts": 312,
                "PowerMetrics": {"AverageConsumedWatts": 309, "IntervalInMin": 20, "MaxConsumedWatts": 402},
            }
        ],
        "PowerSupplies": [
            {"MemberId": "0", "FirmwareVersion": "2.04", "LastPowerOutputWatts": 150, "Status": {"State": "Enabled"}},
            {"MemberId": "1", "FirmwareVersion": "2.04", "LastPowerOutputWatts": 140, "Status": {"State": "Enabled"}},
            {"MemberId": "2", "FirmwareVersion": "0.00", "LastPowerOutputWatts": 0},
        ],
    }
    return found


def supermicro() -> Resources:
    """PowerControl lists the system, then the CPUs and the memory that it includes; numbers are strings here."""
    found = machine("1", "1", ("Power",), "Supermicro")
    found[f"{ROOT}/Chassis/1/Power"] = {
        "PowerControl": [
            {"MemberId": "0", "Name": "System Power Control", "PowerConsumedWatts": "548"},
            {"MemberId": "1", "Name": "CPU Sub-system Power", "PowerConsumedWatts": 240, "PhysicalContext": "CPU"},
            {"MemberId": "2", "Name": "Memory Sub-system Power", "PowerConsumedWatts": 38, "PhysicalContext": "Memory"},
        ],
        "PowerSupplies": [
            {"MemberId": "0", "PowerInputWatts": 280, "PowerOutputWatts": None},
            {"MemberId": "1", "PowerInputWatts": 271, "PowerOutputWatts": None},
        ],
    }
    return found


def hgx(gpus: int = 8) -> Resources:
    """A host BMC in front of a baseboard whose GPUs, switches and the board itself are chassis."""
    boards = [f"HGX_GPU_SXM_{n}" for n in range(1, gpus + 1)]
    others = ["HGX_Chassis_0", "HGX_Baseboard_0", "HGX_NVSwitch_0", "HGX_PCIeRetimer_0", "BMC_Board"]
    found = machine("DGX", "DGX", ("EnvironmentMetrics", "PowerSubsystem"), "NVIDIA", more=(*others, *boards))
    found[f"{ROOT}/Systems"] = members(f"{ROOT}/Systems", "DGX", "HGX_Baseboard_0")
    found[f"{ROOT}/Systems/HGX_Baseboard_0"] = {"Id": "HGX_Baseboard_0", "SystemType": "Physical"}
    found |= supplies("DGX", {f"PSU{n}": _meter(1400.0, 52_000.125 + n) for n in range(6)})
    found[f"{ROOT}/Chassis/DGX/EnvironmentMetrics"] = {"PowerWatts": {"Reading": 8350.0}}
    for board in (*others, *boards):
        at = f"{ROOT}/Chassis/{board}"
        contained = {"Links": {"ContainedBy": {"@odata.id": f"{ROOT}/Chassis/DGX"}}}
        found[at] = {"Id": board, "EnvironmentMetrics": {"@odata.id": f"{at}/EnvironmentMetrics"}} | contained
        found[f"{at}/EnvironmentMetrics"] = {"PowerWatts": {"Reading": 690.0}, "EnergyJoules": {"Reading": 9.0e8}}
    return found


def _meter(watts: float, kwh: float) -> dict[str, Any]:
    return {"InputPowerWatts": {"Reading": watts}, "EnergykWh": {"Reading": kwh}}


def fujitsu() -> Resources:
    """iRMC: ``PowerControl`` is empty, the watts are under Oem (mrlhansen/idrac_exporter #121)."""
    found = machine("0", "0", ("Power",), "FUJITSU")
    sensors = [
        {"EntityID": "Power Supply", "Designation": f"PSU{n} Power", "CurrentPowerConsumptionW": 100 + n}
        for n in (1, 2)
    ]
    found[f"{ROOT}/Chassis/0/Power"] = {
        "PowerControl": [],
        "PowerSupplies": [{"MemberId": str(n), "Name": f"PSU{n}"} for n in (1, 2)],
        "Oem": {
            "ts_fujitsu": {
                "ChassisPowerConsumption": {"CurrentPowerConsumptionW": 195},
                "ChassisPowerSensors": sensors,
            }
        },
    }
    return found


def huawei() -> Resources:
    """The standard watts of the supplies are 0, theirs are under Oem."""
    found = machine("1", "1", ("Power",), "Huawei")
    supply = {"PowerInputWatts": 0, "PowerOutputWatts": 0}
    found[f"{ROOT}/Chassis/1/Power"] = {
        "PowerControl": [{"PowerConsumedWatts": 0}],
        "PowerSupplies": [
            supply | {"MemberId": "0", "Oem": {"Huawei": {"PowerInputWatts": 171, "PowerOutputWatts": 160}}},
            supply | {"MemberId": "1", "Oem": {"Huawei": {"PowerInputWatts": 169, "PowerOutputWatts": 158}}},
        ],
    }
    return found


def inspur() -> Resources:
    """``PowerControl`` is empty, the total is under Oem.Public."""
    found = machine("1", "1", ("Power",), "Inspur")
    found[f"{ROOT}/Chassis/1/Power"] = {"PowerControl": [], "Oem": {"Public": {"TotalPower": 420}}}
    return found


def cisco() -> Resources:
    """CIMC: the entry of the system has the PhysicalContext of a power supply."""
    found = machine("1", "WZP1", ("Power",), "Cisco")
    found[f"{ROOT}/Chassis/1/Power"] = {
        "PowerControl": [{"MemberId": "1", "PhysicalContext": "PowerSupply", "PowerConsumedWatts": 252}],
        "PowerSupplies": [],
    }
    return found


def openbmc() -> Resources:
    """Upstream OpenBMC without EnvironmentMetrics: energy is among the sensors, with others that are of parts."""
    found = machine("chassis", "system", ("Sensors", "PowerSubsystem"), "")
    at = f"{ROOT}/Chassis/chassis/Sensors"
    found[at] = members(at, "energy_gpu0_Energy_0", "energy_total_energy", "temperature_inlet", "power_total_power")
    kind = {"ReadingType": "EnergyJoules", "ReadingUnits": "J"}
    found[f"{at}/energy_gpu0_Energy_0"] = kind | {"Reading": 5.0e6, "PhysicalContext": "GPU"}
    found[f"{at}/energy_total_energy"] = kind | {"Reading": 7.0e6, "PhysicalContext": "Chassis"}
    return found | supplies("chassis", {"powersupply0": {"InputPowerWatts": {"Reading": 301.5}}})


def supplies_only() -> Resources:
    """PowerSubsystem with energy of two supplies that are there, one bay empty; no meter of the chassis."""
    found = machine("1", "1", ("PowerSubsystem",), "ACME")
    return found | supplies("1", {"A": _meter(150.0, 812.345), "B": _meter(160.0, 799.001)}, absent=("C",))


def energy(joules: float | None = None, kwh: float | None = None, **excerpt: Any) -> Resources:
    """EnvironmentMetrics with a counter and its gauge."""
    found = machine("1", "1", ("EnvironmentMetrics",), "ACME")
    name, value = ("EnergyJoules", joules) if kwh is None else ("EnergykWh", kwh)
    found[f"{ROOT}/Chassis/1/EnvironmentMetrics"] = {
        name: {"Reading": value, **excerpt},
        "PowerWatts": {"Reading": 250.0},
    }
    return found


ENVIRONMENT = f"{ROOT}/Chassis/1/EnvironmentMetrics"
POWER = f"{ROOT}/Chassis/1/Power"
