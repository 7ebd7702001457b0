"""Run deferrable work at hours with a lower carbon intensity."""

from __future__ import annotations

import math

from ..bootstrap import of_sum
from ..facts import Facts, Fleet
from ..window import DAY_SECONDS
from .lever import CONFIDENCE, Finding, Lever, percent, silent, too_short

JOULES_PER_KWH = 3.6e6
_LEAST_SHARE = 0.05
_MOST_DUTY = 0.5


def judge(facts: Facts, fleet: Fleet) -> Finding:
    """Grams that the same joules, always so many hours later, would have spared. No joules."""
    if facts.subject.phase != "training":
        return silent("not known to be deferrable: no training run")
    zone = next((zone for zone in fleet.zones if zone.name == facts.zone and facts.zone), None)
    if zone is None:
        return silent("the carbon intensity where it runs is not known, or it runs in several zones")
    hours = round(DAY_SECONDS / facts.grid.step)
    if facts.grid.step > 3600 or facts.grid.length < 7 * hours:
        return silent("less than a week of data")
    busy = [joules > 0 for joules in facts.active]
    duty = sum(busy) / len(busy) if busy else 0.0
    if not 0 < duty <= _MOST_DUTY:
        return silent(f"it runs {percent(duty)} of the time: there is no other time to move it to")
    if short := too_short(facts):
        return short
    grams = zone.grams_per_kwh
    if not grams or not all(map(math.isfinite, grams)):
        return silent("the carbon intensity is not known for the whole window")
    days = [range(start, start + hours) for start in range(0, facts.grid.length - hours + 1, hours)]
    shifts = [
        [
            math.fsum(facts.active[step] * grams[day[0] + (step - day[0] + shift) % hours] for step in day)
            for day in days
        ]
        for shift in range(hours)
    ]
    best = min(range(hours), key=lambda shift: math.fsum(shifts[shift]))
    saved = [(now - then) / JOULES_PER_KWH for now, then in zip(shifts[0], shifts[best], strict=True)]
    whole = math.fsum(shifts[0]) / JOULES_PER_KWH
    interval = of_sum(saved, CONFIDENCE)
    if interval.low <= 0 or interval.middle < _LEAST_SHARE * whole:
        return silent("no other hour of the day has a carbon intensity that is lower by a twentieth")
    said = f"{best * facts.grid.step / 3600:.0f} hours later each day the same joules would emit less"
    return Finding("bound", f"{said}, by average intensity, as if nothing else were changed", grams=interval)


LEVER = Lever(
    name="move_in_time",
    title="Run it at other hours",
    applies="a training run that runs at most half of the time, where the carbon intensity varies over the day",
    evidence="avg(energy_carbon_intensity_grams_per_kilowatt_hour)",
    counter_evidence="avg(energy_marginal_carbon_intensity_grams_per_kilowatt_hour)",
    would_change="a deadline; a marginal intensity that says otherwise, if avoided emissions are claimed",
    risk="results are later; capacity that waits has idle power",
    undo="the former schedule",
    published="simple policies get most of it, and it shrinks as grids get cleaner (EuroSys 2024, 123 regions)",
    pools=("grams",),
    judge=judge,
)
