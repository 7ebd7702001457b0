"""Numbers of a BMC's resources, as firmware writes them: null, text, 0 for "not there", kWh with few decimals."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple
from urllib.parse import quote

JOULES_PER_KWH = 3.6e6

MAX_WATTS = 50_000.0
"""Above the power of any single machine; a value beyond it is none."""

_MAX_JOULES = 1e15
"""What that machine uses in 600 years."""

_ENERGY_UNITS: Mapping[str, tuple[float, tuple[str, ...]]] = {
    "EnergyJoules": (1.0, ("J",)),
    "EnergyWh": (3600.0, ("Wh", "W.h")),
    "EnergykWh": (JOULES_PER_KWH, ("kWh", "kW.h")),
}
"""Properties of EnvironmentMetrics and PowerSupplyMetrics, and values of a sensor's ReadingType: in joules, and how the
unit is written."""

_WATTS = ("W", "Watt", "Watts")
_NUMBER = re.compile(r"\s*(\d+(?:\.\d+)?(?:[eE][+-]?\d+)?)\s*([A-Za-z.]*)\s*")


class Counter(NamedTuple):
    """A cumulative counter: its joules, the step it counts in, and when it was last set to 0, "" if never."""

    joules: float
    step_joules: float
    reset_time: str = ""


def number(value: object, units: tuple[str, ...] = _WATTS, most: float = MAX_WATTS) -> float | None:
    """A value as a number; None for what is none, or negative, or above ``most``, or in another of its ``units``."""
    if isinstance(value, Mapping):  # an excerpt of a sensor
        if value.get("ReadingUnits") not in (None, *units):
            return None
        value = value.get("Reading")
    if isinstance(value, str):
        found = _NUMBER.fullmatch(value)
        value = float(found[1]) if found and found[2] in ("", *units) else None
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return float(value) if 0 <= value <= most else None


def watts(value: object) -> float | None:
    """A power in watts; None for 0 too, which on most BMCs says that there is no meter."""
    return number(value) or None


def counter(resource: Mapping[str, Any]) -> Counter | None:
    """The energy counter of EnvironmentMetrics or PowerSupplyMetrics."""
    for name in _ENERGY_UNITS:
        excerpt = resource.get(name)
        if isinstance(excerpt, Mapping) and (found := _counter(excerpt, name)):
            return found
    return None


def sensor_counter(sensor: Mapping[str, Any]) -> Counter | None:
    """The energy counter that a Sensor is."""
    kind = str(sensor.get("ReadingType"))
    return _counter(sensor, kind) if kind in _ENERGY_UNITS else None


def _counter(excerpt: Mapping[str, Any], kind: str) -> Counter | None:
    """``LifetimeReading`` survives ResetMetrics, ``Reading`` does not."""
    joules, units = _ENERGY_UNITS[kind]
    if excerpt.get("ReadingUnits") not in (None, *units):
        return None
    lifetime = number(excerpt.get("LifetimeReading"), units, _MAX_JOULES / joules)
    if lifetime:
        return Counter(lifetime * joules, _step(lifetime) * joules)
    reading = number(excerpt.get("Reading"), units, _MAX_JOULES / joules)
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
    return quoted(path) if isinstance(path, str) and path.startswith("/redfish/") and path.isprintable() else ""


def quoted(path: str) -> str:
    """A path as it may stand in a request."""
    return quote(path, safe="/!$&'()*+,;=:@%~?#[]")


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
