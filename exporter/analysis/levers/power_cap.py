"""Lower the power limit of GPUs."""

from __future__ import annotations

from ..facts import Facts, Fleet
from .lever import Finding, Lever, hint, percent, silent
from .sweep import best, tried

NEAR = 0.85
_THROTTLED = 0.05


def judge(facts: Facts, fleet: Fleet) -> Finding:
    """Measured where the limit was lower at some time; else signals, and none where power is far from the limit."""
    setting = (facts.power_limit, "a power limit", "W", 1.0)
    if found := best(facts, *setting):
        return found
    limits = tried(facts, *setting)
    ratios = [card.power_watts / card.limit_watts for card in facts.cards if card.power_watts and card.limit_watts]
    if not ratios:
        return silent("power or limit of its cards is not known")
    throttled = max([card.throttled for card in facts.cards if card.throttled is not None], default=0.0)
    if throttled > _THROTTLED:
        return hint(f"its cards were at their power limit {percent(throttled)} of the time{limits}")
    if max(ratios) > NEAR:
        return hint(f"its cards draw {percent(max(ratios))} of their power limit on average{limits}")
    return silent(f"its cards draw {percent(max(ratios))} of their power limit: a cap would not be reached{limits}")


LEVER = Lever(
    name="power_cap",
    title="Lower the power limit of its GPUs",
    applies="cards at their power limit, or above 85 % of it on average",
    evidence='sum(rate(energy_gpu_throttle_seconds_total{reason="sw_power_cap"}[$range]))',
    counter_evidence="max(avg_over_time(gpu:energy_gpu_power_limit:ratio_rate5m[$range]))",
    would_change="power far below the limit, throttling by temperature, cards that are shared",
    risk="slower in compute-bound phases; nvidia-smi -pl needs root and applies to everything on the card",
    undo="nvidia-smi -pl with the former limit; a reboot resets it",
    published="250 to 175 W: -23 % energy, +6-7 % time (arXiv 2310.03003, V100 and A100); only 4 % of H100 and 7 % of "
    "B200 configurations draw 95 % of TDP or more (computed from the ML.ENERGY leaderboard)",
    pools=("active",),
    judge=judge,
)
