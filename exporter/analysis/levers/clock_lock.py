"""Lock the SM clock of GPUs below its maximum."""

from __future__ import annotations

from ..facts import Facts, Fleet
from .lever import Finding, Lever, hint, percent, silent
from .power_cap import NEAR
from .sweep import best, tried

_LEAST_SHARE = 0.5


def judge(facts: Facts, fleet: Fleet) -> Finding:
    """Measured where the clock was lower at some time; else only signals: memory-bound, and power below the limit."""
    setting = (facts.clock, "an SM clock", "MHz", 1e-6)
    if found := best(facts, *setting):
        return found
    clocks = tried(facts, *setting)
    bound = facts.share("memory_bound")
    if bound is None:
        return silent("no activities: what its cards are bound by is not known")
    if facts.subject.phase == "training":
        return silent("training is seldom bound by memory for long")
    if bound < _LEAST_SHARE:
        return silent(f"{percent(bound)} of its GPU joules are memory-bound{clocks}")
    ratios = [card.power_watts / card.limit_watts for card in facts.cards if card.power_watts and card.limit_watts]
    if ratios and max(ratios) > NEAR:
        return silent("its cards are near their power limit: power_cap comes first")
    return hint(f"{percent(bound)} of its GPU joules are memory-bound, where a lower clock costs little time{clocks}")


LEVER = Lever(
    name="clock_lock",
    title="Lock the SM clock below its maximum",
    applies="most GPU joules are memory-bound, as in decoding, and power is below the limit",
    evidence='sum(increase(energy_model_activity_joules_total{$subject,activity="memory_bound"}[$range])) / 3.6e6',
    counter_evidence="sum(increase(energy_model_activity_joules_total"
    '{$subject,activity="compute_bound"}[$range])) / 3.6e6',
    would_change="long prompts, training, cards that are shared with compute-bound work",
    risk="prefill becomes slower; nvidia-smi -lgc needs root and applies to everything on the card",
    undo="nvidia-smi -rgc",
    published="up to 32 % of decode energy at small loss of speed on H200 (arXiv 2605.11999)",
    pools=("active",),
    judge=judge,
)
