"""Balance GPUs of a training run that wait for the slowest of them."""

from __future__ import annotations

from collections.abc import Sequence

from ..facts import Card, Facts, Fleet
from .lever import Finding, Lever, at_most, percent, silent, too_short

LEAST_SPREAD = 0.15


def judge(facts: Facts, fleet: Fleet) -> Finding:
    """At most the active joules of each GPU in the share of the time by which it worked less than the busiest one."""
    if facts.subject.phase != "training":
        return silent("no training run")
    if len(facts.cards) < 2:
        return silent("it has one GPU")
    ratios = _work(facts.cards)
    if ratios is None:
        return silent("no tensor or DRAM activity of its GPUs (GPM): which of them wait is not seen")
    most = max(ratios)
    waits = [1 - ratio / most if most > 0 else 0.0 for ratio in ratios]
    if max(waits) < LEAST_SPREAD:
        return silent(f"its GPUs differ by {percent(max(waits))} at most")
    if len({card.gpu_model for card in facts.cards}) > 1:
        return silent("its GPUs are of different models, and differ for that reason")
    if short := too_short(facts):
        return short
    active = sum(card.active_joules for card in facts.cards)
    if active <= 0:
        return silent("active joules of its GPUs are not known one by one")
    share = sum(card.active_joules * wait for card, wait in zip(facts.cards, waits, strict=True)) / active
    blocks = [joules * share for joules in facts.blocks(facts.active)]
    said = f"up to {percent(max(waits))} less work on some of its {len(waits)} GPUs than on the busiest"
    return at_most(blocks, said)


def _work(cards: Sequence[Card]) -> list[float] | None:
    """Tensor or DRAM activity of each card, whichever all of them report: both are low while a GPU waits for others."""
    for name in ("tensor_active", "dram_active"):
        found = [value for card in cards if (value := getattr(card, name)) is not None]
        if len(found) == len(cards):
            return found
    return None


LEVER = Lever(
    name="straggler",
    title="Balance the stages of a training run",
    applies="GPUs of one training run that work at least 15 % less than the busiest of them",
    evidence="avg_over_time(energy_gpu_tensor_active_ratio[$range])",
    counter_evidence='sum by (uuid) (increase(energy_container_gpu_joules_total{mode="active"}[$range]))',
    would_change="cards of different models, a run that is short, stages that cannot be divided otherwise",
    risk="little; the plan of the stages changes",
    undo="the former division into stages",
    published="up to 30 % of the energy without slowing down (Perseus, SOSP 2024)",
    pools=("active",),
    judge=judge,
)
