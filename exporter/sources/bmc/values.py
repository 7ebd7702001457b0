"""Numbers of a BMC's resources, as firmware writes them: null, text, 0 for "not there", kWh with few decimals."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

JOULES_PER_KWH = 3.6e6

_ENERGY_UNITS: Mapping[str, float] = {"EnergyJoules": 1.0, "EnergyWh": 3600.0, "EnergykWh": JOULES_PER_KWH}
"""Properties of EnvironmentMetrics and PowerSupplyMetrics, and values of a sensor's ReadingType, to joules."""

_NUMBER = re.compile(r"\s*(\d+(?:\.\d+)?(?:[eE][+-]?\d+)?)\s*(?:W|Watts?|J|kWh|Wh)?\s*")


class Counter(NamedTuple):
    """A cumulative counter: its joules, the step it counts in, and when it was last set to 0, "" if never."""

    joules: float
    step_joules: float
    reset_time: str = ""


def number(value: object) -> float | None:
    """A value as a number; None for what is none, or not finite, or negative."""
    if isinstance(value, Mapping):  # an excerpt of a sensor
        value = value.get("Reading")
    if isinstance(value, str):
        found = _NUMBER.fullmatch(value)
        value = float(found[1]) if found else None
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return float(value) if math.isfinite(value) and value >= 0 else None


def watts(value: object) -> float | None:
    """A power in watts; None for 0 too, which on most BMCs says that there is no meter."""
    return number(value) or None


def counter(resource: Mapping[str, Any]) -> Counter | None:
    """The energy counter of EnvironmentMetrics or PowerSupplyMetrics."""
    for name, joules in _ENERGY_UNITS.items():
        excerpt = resource.get(name)
        if isinstance(excerpt, Mapping) and (found := _counter(excerpt, joules)):
            return found
    return None


def sensor_counter(sensor: Mapping[str, Any]) -> Counter | None:
    """The energy counter that a Sensor is."""
    joules = _ENERGY_UNITS.get(str(sensor.get("ReadingType")))
    return None if joules is None else _counter(sensor, joules)


def _counter(excerpt: Mapping[str, Any], joules: float) -> Counter | None:
    """``LifetimeReading`` survives ResetMetrics, ``Reading`` does not."""
    lifetime = number(excerpt.get("LifetimeReading"))
    if lifetime:
        return Counter(lifetime * joules, _step(lifetime) * joules)
    reading = number(excerpt.get("Reading"))
    if reading is None:
        return None
    return Counter(reading * joules, _step(reading) * joules, str(excerpt.get("SensorResetTime") or ""))


def _step(value: float) -> float:
    """The resolution that a number shows: 1.0 for a whole one, 0.001 for three decimals."""
    text = repr(value)
    decimals = len(text.partition(".")[2].rstrip("0")) if "e" not in text else 0
    return float(f"1e-{min(decimals, 9)}")


def objects(value: object) -> Iterator[Mapping[str, Any]]:
    """The objects in a list; other things in it are skipped."""
    for item in value if isinstance(value, list) else ():
        if isinstance(item, Mapping):
            yield item


def at(resource: object, *names: str) -> Any:
    """What is found below these names; None if there is nothing."""
    for name in names:
        resource = resource.get(name) if isinstance(resource, Mapping) else None
    return resource


def link(resource: object, *names: str) -> str:
    """The path that a link leads to; "" without one, or if it leads elsewhere."""
    path = at(resource, *names, "@odata.id")
    return path if isinstance(path, str) and path.startswith("/redfish/") and path.isprintable() else ""


def links(resource: object, *names: str) -> list[str]:
    """The paths that a list of links leads to."""
    return [path for member in objects(at(resource, *names)) if (path := link(member))]


def text(resource: object, *names: str) -> str:
    """A printable text; "" if it is something else."""
    found = at(resource, *names)
    return found.strip()[:100] if isinstance(found, str) and found.isprintable() else ""


def present(resource: Mapping[str, Any]) -> bool:
    """Whether a part is there: HPE's iLO 4 lists empty bays of power supplies with firmware 0.00."""
    if text(resource, "FirmwareVersion") == "0.00":
        return False
    return text(resource, "Status", "State") not in {"Absent", "Disabled", "UnavailableOffline"}
