"""Run a model on a smaller card."""

from __future__ import annotations

from ..facts import Facts, Fleet
from .lever import Finding, Lever, hint, percent, silent

_LOW_POWER = 0.3
_HALF = 0.5


def judge(facts: Facts, fleet: Fleet) -> Finding:
    """Low power and little memory while it works; what another card would use is only known from running there."""
    known = [card for card in facts.cards if card.power_watts and card.limit_watts and card.memory_used is not None]
    if not known:
        return silent("power, limit or memory of its cards is not known")
    idle, under = facts.share("idle"), facts.share("underused")
    if under is None:
        return silent("no activities: how much of the card it uses is not known")
    if idle is not None and idle > _HALF:
        return silent("its cards are idle most of the time: stop_idle comes first")
    power = max((card.power_watts or 0.0) / (card.limit_watts or 1.0) for card in known)
    memory = max(card.memory_used or 0.0 for card in known)
    if power > _LOW_POWER or memory > _HALF or under < _HALF:
        return silent(
            f"it uses {percent(power)} of the power and {percent(memory)} of the memory of its cards, "
            f"and {percent(under)} of its GPU joules are underused"
        )
    return hint(
        f"it uses {percent(power)} of the power and {percent(memory)} of the memory of its cards while it works"
    )


LEVER = Lever(
    name="right_size",
    title="A smaller GPU",
    applies="below 30 % of the power limit and half of the memory while it works",
    evidence='sum(increase(energy_model_activity_joules_total{$subject,activity="underused"}[$range])) / 3.6e6',
    counter_evidence="max_over_time(energy_gpu_memory_used_bytes[$range]) / energy_gpu_memory_total_bytes",
    would_change="need of bandwidth, peaks of memory, larger batches to come",
    risk="slower; run it there first, and compare",
    undo="the former node selector",
    published="B200 against H100: 0.61 J/token; no figure for a smaller card without running on it",
    pools=("active",),
    judge=judge,
)
