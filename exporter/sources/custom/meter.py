"""A declared meter: what it is, and the number in what it says."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import NamedTuple

from ...records import Component, Device, Quality, Scope, Unavailable

_NUMBER = re.compile(r"([-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?)(?![\d.,:])(\s*)([A-Za-z\u00b5\u03bc]*)")
"""A number and the word after it. A comma or colon behind it makes it a part of something else: 1,234 or 12:30."""

_UNITS = frozenset(["nJ", "uJ", "mJ", "J", "kJ", "MJ", "Wh", "kWh", "MWh", "uW", "mW", "W", "kW"])
_IN_FULL = {"Watt": "W", "Watts": "W", "watts": "W", "Joules": "J", "joules": "J"}

_CEILINGS: dict[Component, float] = {"cpu": 4000.0, "dram": 2000.0, "gpu": 5000.0}
_CEILING = 50_000.0
"""Watts above which a reading is implausible where the operator names no other: more than any one machine draws."""


@dataclass(frozen=True, slots=True)
class Meter:
    """One meter, in joules, watts and seconds; ``factor`` converts its numbers (`exporter.config.meters`).

    Exactly one of ``file`` and ``command`` is set. ``pattern`` finds its number in the text, ``sums`` adds all that it
    finds. A ``counter`` is of joules, else the numbers are watts. ``within`` is the id of the device that includes it,
    ``contains`` those that it includes.
    """

    name: str
    file: str
    command: tuple[str, ...]
    pattern: re.Pattern[str] | None
    sums: bool
    unit: str
    counter: bool
    factor: float
    component: Component
    scope: Scope
    within: str | None
    contains: tuple[str, ...]
    quality: Quality
    wraps_at: float | None
    step_joules: float
    max_watts: float | None
    interval_seconds: float
    timeout_seconds: float

    @property
    def what(self) -> str:
        """What it is called in messages. A command's arguments are left out: one may be a password."""
        return f"meter {self.name} ({self.file or self.command[0]})"

    @property
    def holds(self) -> bool:
        """Whether its last value counts until the next one: a gauge of a component, divided among workloads in every
        tick. The machine's own is subtracted over minutes, and has only what it measured."""
        return not self.counter and self.component != "platform"

    def device(self, cpus: float) -> Device:
        """The device on a machine with that many CPUs."""
        return Device(
            id=f"custom-{self.name}",
            component=self.component,
            source="custom",
            quality=self.quality,
            name=self.name,
            capacity=1.0 if self.component == "gpu" else cpus,
            within=self.within,
            max_watts=self.max_watts or _CEILINGS.get(self.component, _CEILING),
            method="energy_counter" if self.counter else "power_integrated",
            scope=self.scope,
            period_seconds=0.0 if self.holds else self.interval_seconds,
            step_joules=self.step_joules,
            contains=self.contains,
        )


class Sample(NamedTuple):
    """A value in joules or watts, read at a boot time."""

    value: float
    at: float


def value_of(meter: Meter, text: str) -> float:
    """Joules or watts in what a meter says. Raises `Unavailable`.

    Without a pattern the text must begin with the number: ``412.5``, ``8123 J``. A unit behind it must be the meter's:
    some tools change from W to kW where the number grows.
    """
    if meter.pattern is None:
        found = _NUMBER.match(text.lstrip())
        numbers = [found[1]] if found else []
        said = _unit(found[3]) if found else ""
        if said in _UNITS and said != meter.unit:
            fix = "correct its unit, or make the tool say one unit always"
            raise Unavailable("implausible", f"{meter.what}: its number is in {said}, declared is {meter.unit}", fix)
        if found and found[3] and not found[2] and said not in _UNITS:  # 0x1A, 3rd
            numbers = []
    else:
        numbers = meter.pattern.findall(text)
        if not meter.sums:
            numbers = numbers[:1]
    try:
        value = math.fsum(map(float, numbers)) * meter.factor
    except (ValueError, OverflowError):
        value = math.nan
    if not numbers or not math.isfinite(value):
        shown = " ".join(text.split())[:80]
        what = "no number in" if meter.pattern is None else "its pattern finds no number in"
        raise Unavailable("implausible", f"{meter.what}: {what} {shown!r}", "see pattern in docs/meters.md")
    if value < 0:
        raise Unavailable("implausible", f"{meter.what}: {value:g} is below 0", "check its sign and unit")
    return value


def _unit(word: str) -> str:
    """A unit as the configuration has it."""
    word = word.replace("\u00b5", "u").replace("\u03bc", "u")
    return _IN_FULL.get(word, word)
