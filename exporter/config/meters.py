"""Meters of one's own: a file or a command that reports joules or watts, as the operator declares it."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable
from typing import Any, NamedTuple

from .value_types import NestedValueError, ValueType, choice, did_you_mean, duration, number, quoted
from .yaml_file import Entry, entries, file_entries

_ENERGY = {"nJ": 1e-9, "uJ": 1e-6, "mJ": 1e-3, "J": 1.0, "kJ": 1e3, "MJ": 1e6, "Wh": 3.6e3, "kWh": 3.6e6, "MWh": 3.6e9}
_POWER = {"uW": 1e-6, "mW": 1e-3, "W": 1.0, "kW": 1e3}
_UNITS = {**_ENERGY, **_POWER}

_NAME = re.compile(r"[a-z0-9]([a-z0-9._-]{0,61}[a-z0-9])?")
_DEFAULT_INTERVALS = {"file": 1.0, "command": 10.0}
_HOURS = ("Wh", "kWh", "MWh")

_SCOPES = ("outlet", "supply", "node", "board", "part")


class MeterSetting(NamedTuple):
    """One meter, in joules, watts and seconds; ``factor`` converts its numbers.

    Exactly one of ``file`` and ``command`` is set. ``pattern`` finds its number in the text, ``sums`` adds all that it
    finds. A ``counter`` is of joules, else the numbers are watts. ``within`` is the id of the device that includes it,
    ``contains`` those that it includes. ``wraps_at`` and ``max_watts`` are None where unknown.
    """

    name: str
    file: str
    command: tuple[str, ...]
    pattern: re.Pattern[str] | None
    sums: bool
    unit: str
    counter: bool
    factor: float
    component: str
    scope: str
    within: str | None
    contains: tuple[str, ...]
    quality: str
    wraps_at: float | None
    step_joules: float
    max_watts: float | None
    interval_seconds: float
    timeout_seconds: float


def meter_list() -> ValueType:
    """A list of meters, as YAML mappings; a flag or variable has the same YAML on one line."""

    def parse(value: Any) -> tuple[MeterSetting, ...]:
        texts = [value] if isinstance(value, str) else value
        return _meters([entry for one in texts for entry in (entries(one) if isinstance(one, str) else [one])])

    return ValueType("METERS", parse, lambda meters: "" if not meters else f"{len(meters)} meters", "records")


def read_meters(path: str) -> tuple[MeterSetting, ...]:
    """The meters of a file: a YAML list. Raises `NestedValueError` whose problems have file and line."""
    try:
        found = file_entries(path)
    except ValueError as error:
        raise NestedValueError([(path, str(error).strip())]) from None
    return _meters(found)


def twice(meters: tuple[MeterSetting, ...]) -> str | None:
    """A name that two meters have."""
    names = [meter.name for meter in meters]
    return next((name for name in names if names.count(name) > 1), None)


def _meters(given: list[Entry]) -> tuple[MeterSetting, ...]:
    problems: list[tuple[str, str]] = []
    meters = [meter for entry in given if (meter := _Reader(entry, problems).meter()) is not None]
    if problems:
        raise NestedValueError(problems)
    if name := twice(tuple(meters)):
        raise NestedValueError([(given[-1].where, f"two meters are named {quoted(name)}")])
    return tuple(meters)


class _Reader:
    """Reads one entry; an error is added to ``problems`` with the line of its key."""

    def __init__(self, entry: Entry, problems: list[tuple[str, str]]) -> None:
        self._entry = entry
        self._problems = problems
        self._wrong = False

    def meter(self) -> MeterSetting | None:
        """The meter, None after an error."""
        for key, (where, value) in self._entry.values.items():
            if key not in _KEYS:
                self._report(where, f"unknown key: {quoted(key)}{did_you_mean(key, _KEYS)}")
            elif isinstance(value, dict):
                self._report(where, f"{key} must not be a mapping")
            elif isinstance(value, list) and key not in ("command", "contains"):
                self._report(where, f"{key} must not be a list")
        if self._wrong:
            return None
        name, file = self._value("name", _name, ""), self._value("file", _path, "")
        command: tuple[str, ...] = self._value("command", _argv, ())
        unit = self._value("unit", _unit, "J")
        component = self._value("component", choice("cpu", "dram", "gpu", "platform").parse, "platform")
        scope = self._value("scope", choice(*_SCOPES).parse, "node")
        factor = _UNITS[unit] * self._number("scale", 1.0, 1e-12, 1e12)
        counter = unit in _ENERGY
        kind = self._value("kind", choice("counter", "gauge").parse, "counter" if counter else "gauge")
        wrap, step = self._optional("wrap", 1e-9, 1e18), self._optional("step", 1e-12, 1e12)
        if step is None and unit in _HOURS:
            step = 1.0
        default = _DEFAULT_INTERVALS["command" if command else "file"]
        meter = MeterSetting(
            name=name,
            file=file,
            command=command,
            pattern=self._value("pattern", _pattern, None),
            sums=self._value("matches", choice("first", "sum").parse, "first") == "sum",
            unit=unit,
            counter=counter,
            factor=factor,
            component=component,
            scope=scope,
            within=self._value("inside", _word, None),
            contains=self._value("contains", _words, ()),
            quality=self._value("quality", choice("measured", "estimated").parse, "measured"),
            wraps_at=None if wrap is None else wrap * factor,
            step_joules=0.0 if step is None or not counter else step * factor,
            max_watts=self._optional("max-watts", 0.001, 1e7),
            interval_seconds=self._value("interval", duration(1.0, 3600.0).parse, default),
            timeout_seconds=self._value("timeout", duration(0.1, 600.0).parse, 5.0),
        )
        self._check(meter, kind)
        return None if self._wrong else meter

    def _check(self, meter: MeterSetting, kind: str) -> None:
        """Report what is wrong with the meter as a whole."""
        has = self._entry.values
        for key in ("name", "unit"):
            if key not in has:
                self._report(self._entry.where, f"a meter needs {key}")
        if ("file" in has) == ("command" in has):
            self._report(self._entry.where, "a meter needs either file or command")
        if meter.counter != (kind == "counter"):
            units = ", ".join(_ENERGY if kind == "counter" else _POWER)
            self._report(has["kind"][0], f"kind: a {kind} needs one of the units {units}, not {meter.unit}")
        if not meter.counter and ("wrap" in has or "step" in has):
            key = "wrap" if "wrap" in has else "step"
            self._report(has[key][0], f"{key}: only a counter has one, and {meter.unit} is a gauge's unit")
        if "scope" in has and meter.component != "platform":
            self._report(has["scope"][0], "scope: only of component platform; use inside for a part of another meter")
        if "matches" in has and meter.pattern is None:
            self._report(has["matches"][0], "matches: needs a pattern")
        if meter.name and meter.within in (meter.name, f"custom-{meter.name}"):
            self._report(has["inside"][0], "inside: a meter is not inside itself")

    def _report(self, where: str, message: str) -> None:
        self._wrong = True
        self._problems.append((where, message))

    def _value(self, key: str, parse: Callable[[Any], Any], default: Any) -> Any:
        if key not in self._entry.values:
            return default
        where, value = self._entry.values[key]
        try:
            return parse(value)
        except ValueError as error:
            self._report(where, f"{key}: {error}")
            return default

    def _number(self, key: str, default: float, low: float, high: float) -> float:
        found = self._optional(key, low, high)
        return default if found is None else found

    def _optional(self, key: str, low: float, high: float) -> float | None:
        found: float | None = self._value(key, number("NUMBER", low, high).parse, None)
        return found


def _name(value: str) -> str:
    if not _NAME.fullmatch(value):
        raise ValueError(f"{quoted(value)} is not a name of letters a-z, digits, dots and dashes, at most 63")
    return value


def _path(value: str) -> str:
    if not value.startswith("/") or not value.isprintable():
        raise ValueError(f"{quoted(value)} is not an absolute path")
    return value


def _argv(value: str | list[str]) -> tuple[str, ...]:
    """Program and arguments: a list, or text that is split as a shell would, without one."""
    words = shlex.split(value) if isinstance(value, str) else value
    if not words or not words[0]:
        raise ValueError("is empty")
    if any("\0" in word for word in words):
        raise ValueError("has a NUL")
    return tuple(words)


def _unit(value: str) -> str:
    unit = value.replace("µ", "u").replace("μ", "u")
    if unit not in _UNITS:
        raise ValueError(f"{quoted(value)} is not one of {', '.join(_UNITS)}")
    return unit


def _pattern(value: str) -> re.Pattern[str]:
    try:
        found = re.compile(value, re.MULTILINE)
    except (re.error, OverflowError, RecursionError) as error:
        raise ValueError(f"{quoted(value)} is not a regular expression: {error}") from None
    if found.groups != 1:
        raise ValueError(f"{quoted(value)} needs one group, the number: Power: ([0-9.]+)")
    return found


def _word(value: str) -> str:
    if not value or not value.isprintable():
        raise ValueError(f"{quoted(value)} is not the id of a device, as energy_device_joules_total has them")
    return value


def _words(value: str | list[str]) -> tuple[str, ...]:
    words = [word.strip() for word in value.split(",")] if isinstance(value, str) else value
    return tuple(map(_word, words))


_KEYS = (
    *("name", "file", "command", "pattern", "matches", "unit", "kind", "scale", "component", "scope", "inside"),
    *("contains", "quality", "wrap", "step", "max-watts", "interval", "timeout"),
)
