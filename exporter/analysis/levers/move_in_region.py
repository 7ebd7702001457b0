"""Run work where electricity has a lower carbon intensity."""

from __future__ import annotations

from ..bootstrap import of_sum
from ..facts import Facts, Fleet
from .lever import CONFIDENCE, Finding, Lever, percent, silent, too_short
from .move_in_time import JOULES_PER_KWH

LEAST_SHARE = 0.1


def judge(facts: Facts, fleet: Fleet) -> Finding:
    """Grams of the same joules at the mean intensity of another zone of this fleet with the same GPUs. No joules."""
    here = next((zone for zone in fleet.zones if zone.name == facts.zone and facts.zone), None)
    if here is None or here.mean is None:
        return silent("the carbon intensity where it runs is not known, or it runs in several zones")
    wanted = {card.gpu_model for card in facts.cards}
    there = [
        (zone.mean, zone.name)
        for zone in fleet.zones
        if zone.mean is not None and zone.name != here.name and wanted and wanted <= zone.gpu_models
    ]
    if not there:
        return silent("no other zone of this fleet has the same GPUs")
    mean, name = min(there)
    if mean > (1 - LEAST_SHARE) * here.mean:
        return silent("no other zone of this fleet has a carbon intensity that is lower by a tenth")
    if short := too_short(facts):
        return short
    joules = [
        one + other
        for one, other in zip(facts.blocks(facts.gpu), facts.blocks(facts.cpu) or _zeros(facts), strict=True)
    ]
    saved = of_sum(joules, CONFIDENCE).times((here.mean - mean) / JOULES_PER_KWH)
    evidence = (
        f"{name} has the same GPUs at {mean:.0f} g/kWh instead of {here.mean:.0f}, {percent(1 - mean / here.mean)} less"
    )
    boundary = "PUE included; accounting by average intensity, as if nothing else were changed"
    return Finding("bound", f"{evidence}, {boundary}", grams=saved)


def _zeros(facts: Facts) -> list[float]:
    return [0.0] * len(facts.parts())


LEVER = Lever(
    name="move_in_region",
    title="Run it in another region",
    applies="another zone of this fleet with the same GPUs and a carbon intensity that is lower by a tenth",
    evidence="avg by (zone) (energy_carbon_intensity_grams_per_kilowatt_hour "
    "* on (instance) group_left (zone) energy_impact_info)",
    counter_evidence="avg by (zone) (energy_pue_ratio * on (instance) group_left (zone) energy_impact_info)",
    would_change="data that may not move, latency, no free GPUs there, market-based accounting",
    risk="transfer of data; the grid's average says nothing of what more load there causes",
    undo="run it here again",
    published="20-85 % (arXiv 2512.08725, a simulation); market-based mixing overstates by up to 55 % "
    "(arXiv 2402.03550)",
    pools=("grams",),
    judge=judge,
)
