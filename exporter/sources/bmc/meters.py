"""Which of the meters of a BMC is the node's: one by a stated rule, all others are shown as parts of it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import NamedTuple

from ...records import Scope
from .survey import Resource, Survey
from .values import Counter, at, counter, link, number, objects, present, sensor_counter, text, watts

COARSE_JOULES = 36_000.0
"""A counter of longer steps (0.01 kWh) is used only where there is no power."""

_PART_CONTEXTS = ("CPU", "GPU", "Memory", "Accelerator", "Fan", "Storage", "StorageDevice", "ASIC", "NetworkingDevice")
_PART_NAME = re.compile(r"\b(CPU|Processor|GPU|Memory|DIMM|Fan|Storage|PCIe|Accelerator)s?\b", re.IGNORECASE)
_PART_LINK = re.compile(r"/(Processors|Memory|Storage|PCIeDevices)/")
_WHOLE_CONTEXTS = ("Chassis", "SystemBoard")


class Value(NamedTuple):
    """What a meter shows: a counter, or watts; with a counter ``watts`` is the gauge beside it, where there is one.

    ``paths`` are the resources that it is read from.
    """

    id: str
    name: str
    scope: Scope
    watts: float | None = None
    counter: Counter | None = None
    paths: tuple[str, ...] = ()


def values(found: Survey) -> list[Value]:
    """Every meter that has a value, in the order of the rule: the first one is the node's, unless it is a part.

    1. an energy counter of the chassis, 2. energy counters of all power supplies, 3. the power of the chassis,
    4. that of the system in ``PowerControl``, 5. the sum of the supplies' inputs, 6. what the maker has elsewhere,
    7. the sum of the supplies' outputs, which is without their loss. Counters of coarse steps come after all of them.
    """
    whole = [value for value in _whole(found) if value is not None]
    coarse = [value for value in whole if value.counter is not None and value.counter.step_joules > COARSE_JOULES]
    return [*(value for value in whole if value not in coarse), *coarse, *_parts(found)]


def _whole(found: Survey) -> Iterator[Value | None]:
    environment = found.at(found.environment)
    chassis = text(found.chassis, "Id") or "chassis"
    id_, name = f"bmc-{chassis}", f"chassis {chassis}"
    power = watts(environment.get("PowerWatts"))
    if counted := counter(environment):
        yield Value(id_, name, "node", power, counted, (found.environment,))
    yield _sensor(found, id_, name)
    yield _sum_of_counters(found)
    yield Value(id_, name, "node", power, None, (found.environment,)) if power else None
    yield _power_control(found)
    yield _sum_of_supplies(found, "input")
    yield _of_maker(found)
    yield _sum_of_supplies(found, "output")


def _sensor(found: Survey, id_: str, name: str) -> Value | None:
    """The energy of the whole chassis, where that is only among its sensors."""
    for path in found.energy_sensors:
        sensor = found.at(path)
        if text(sensor, "PhysicalContext") in _WHOLE_CONTEXTS and (counted := sensor_counter(sensor)):
            return Value(id_, name, "node", None, counted, (path,))
    return None


def _sum_of_counters(found: Survey) -> Value | None:
    """All supplies that are there must have a counter: a sum without one of them is no sum."""
    counters = [counter(found.at(path)) for path in _metrics(found)]
    known = [one for one in counters if one is not None]
    if not known or len(known) < len(counters):
        return None
    step = max(one.step_joules for one in known)
    resets = " ".join(one.reset_time for one in known).strip()
    total = Counter(sum(one.joules for one in known), step, resets)
    power = _supplies_watts(found, "input")
    return Value("bmc-supplies", "input of all power supplies", "supply", power, total, _metrics(found))


def _sum_of_supplies(found: Survey, side: str) -> Value | None:
    total, paths = _supplies_watts(found, side), _metrics(found) or (found.power,)
    if total is None:
        return None
    if side == "input":
        return Value("bmc-supplies", "input of all power supplies", "supply", total, None, paths)
    return Value("bmc-supplies-output", "output of all power supplies", "node", total, None, paths)


def _supplies_watts(found: Survey, side: str) -> float | None:
    """The sum over the supplies; one at 0 W is on standby, one without a value makes the sum unknown."""
    known = [value for _, value in _supply_watts(found, side)]
    if None in known:
        return None
    return sum(value for value in known if value is not None) or None


def _supply_watts(found: Survey, side: str) -> Iterator[tuple[str, float | None]]:
    """Name and watts of each supply that is there, None where it has no such value."""
    new, old = ("InputPowerWatts", "PowerInputWatts") if side == "input" else ("OutputPowerWatts", "PowerOutputWatts")
    metrics = _metrics(found)
    for path in metrics:
        yield text(_supply(found, path), "Id") or path, number(found.at(path).get(new))
    for index, supply in enumerate(objects(found.at(found.power).get("PowerSupplies")) if not metrics else ()):
        if present(supply):
            value = number(supply.get(old))
            if value is None and side == "output":
                value = number(supply.get("LastPowerOutputWatts"))
            value = value or number(_of_supply(found, supply, old)) or value
            yield text(supply, "MemberId") or str(index), value


def _of_supply(found: Survey, supply: Resource, name: str) -> object:
    """The watts of a supply where makers have them: Huawei, whose standard ones are 0, and Fujitsu."""
    designation = text(supply, "Name")
    if designation and name == "PowerInputWatts":
        for sensor in objects(at(found.at(found.power), "Oem", "ts_fujitsu", "ChassisPowerSensors")):
            if text(sensor, "EntityID") == "Power Supply" and text(sensor, "Designation").startswith(designation):
                return sensor.get("CurrentPowerConsumptionW")
    return at(supply, "Oem", "Huawei", name)


def _metrics(found: Survey) -> tuple[str, ...]:
    """The metrics of the supplies that are there."""
    return tuple([path for path in found.supplies if present(_supply(found, path))])


def _supply(found: Survey, path: str) -> Resource:
    supply = found.at(path).get("_supply")
    return supply if isinstance(supply, dict) else {}


def _power_control(found: Survey) -> Value | None:
    """The entry of the system: others may be of its CPUs and memory, which it includes."""
    for entry in objects(found.at(found.power).get("PowerControl")):
        power = watts(entry.get("PowerConsumedWatts"))
        if power and not _is_part(entry):
            name = text(entry, "Name") or "PowerControl"
            return Value("bmc-power-control", name, "node", power, None, (found.power,))
    return None


def _is_part(entry: Resource) -> bool:
    related = [link(item) for item in objects(entry.get("RelatedItem"))]
    return (
        text(entry, "PhysicalContext") in _PART_CONTEXTS
        or bool(_PART_NAME.search(text(entry, "Name")))
        or (bool(related) and all(_PART_LINK.search(path) for path in related))
    )


def _of_maker(found: Survey) -> Value | None:
    """Fujitsu's iRMC and Inspur, whose ``PowerControl`` may be empty."""
    oem = at(found.at(found.power), "Oem")
    consumed = watts(at(oem, "ts_fujitsu", "ChassisPowerConsumption", "CurrentPowerConsumptionW"))
    consumed = consumed or watts(at(oem, "Public", "TotalPower"))
    return (
        Value("bmc-oem", "power of the chassis, by its maker", "node", consumed, None, (found.power,))
        if consumed
        else None
    )


def _parts(found: Survey) -> Iterator[Value]:
    """What is in the machine: its supplies, what ``PowerControl`` has beside the system, the GPUs of a baseboard."""
    for side in ("input", "output"):
        known = [(name, value) for name, value in _supply_watts(found, side) if value]
        if known:
            for name, value in known:
                paths = _metrics(found) or (found.power,)
                yield Value(f"bmc-supply-{name}", f"{side} of power supply {name}", "part", value, None, paths)
            break
    for entry in objects(found.at(found.power).get("PowerControl")):
        power = watts(entry.get("PowerConsumedWatts"))
        if power and _is_part(entry):
            name = text(entry, "Name") or text(entry, "PhysicalContext") or text(entry, "MemberId")
            yield Value(f"bmc-{name.replace(' ', '-')}", name, "part", power, None, (found.power,))
    for id_, path in found.gpus.items():
        environment = found.at(path)
        power, counted = watts(environment.get("PowerWatts")), counter(environment)
        if power or counted:
            yield Value(f"bmc-{id_}", f"{id_}, by the BMC", "part", power, counted, (path,))
