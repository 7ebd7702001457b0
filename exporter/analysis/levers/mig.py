"""Put several small models on one GPU: MIG, MPS or time-slicing."""

from __future__ import annotations

from ..facts import Card, Facts, Fleet
from .lever import Finding, Lever, at_most, percent, silent, too_short

_LOW_USE = 0.2
_FULL = 0.9


def judge(facts: Facts, fleet: Fleet) -> Finding:
    """At most the idle joules of the cards that would be spared where small models shared one."""
    card = _only_card(facts)
    if card is None:
        return silent("it does not have one whole card with known utilisation and memory")
    if card.utilization is None or card.utilization >= _LOW_USE:
        return silent(f"its card is busy {percent(card.utilization or 0.0)} of the time")
    if short := too_short(facts):
        return short
    group = _together(facts, fleet)
    if len(group) < 2:
        return silent(f"no other small model on a {card.gpu_model or 'card of this kind'} fits beside it")
    others = ", ".join(sorted(each.subject.name for each in group if each.subject != facts.subject))
    blocks = [joules * (1 - 1 / len(group)) for joules in facts.blocks(facts.idle)]
    return at_most(
        blocks, f"its card is busy {percent(card.utilization)} of the time, and has room for {others} as well"
    )


def _only_card(facts: Facts) -> Card | None:
    if len(facts.cards) != 1 or facts.subject.phase == "training":
        return None
    (card,) = facts.cards
    return card if card.memory_used is not None and card.utilization is not None else None


def _together(facts: Facts, fleet: Fleet) -> list[Facts]:
    """The models that fit on one card with this one: the small ones of the cluster, the smallest first."""
    mine = _only_card(facts)
    small: list[tuple[float, Facts]] = []
    for each in fleet.subjects:
        card = _only_card(each)
        if (
            card is None
            or mine is None
            or each.subject.kind != "model"
            or each.subject.cluster != facts.subject.cluster
        ):
            continue
        if card.gpu_model == mine.gpu_model and (card.utilization or 0.0) < _LOW_USE and not each.has_ended:
            small.append((card.memory_used or 0.0, each))
    group, full = [], 0.0
    for used, each in sorted(small, key=lambda item: (item[0], item[1].subject)):
        if full + used > _FULL:
            break
        group.append(each)
        full += used
    return group if any(each.subject == facts.subject for each in group) else []


LEVER = Lever(
    name="mig",
    title="Several small models on one GPU (MIG, MPS, time-slicing)",
    applies="models with a card each that is busy less than a fifth of the time, and whose memory fits together",
    evidence="avg_over_time(gpu:energy_gpu_utilization:avg5m[$range]) < 0.2",
    counter_evidence="max_over_time(energy_gpu_memory_used_bytes[$range]) / energy_gpu_memory_total_bytes",
    would_change="peaks at the same time, isolation between tenants, a card without MIG",
    risk="models compete for bandwidth; joules of MIG devices are shares of the card's",
    undo="a card for each model",
    published="no measured saving from end to end found: an upper bound from the idle power of the cards spared",
    pools=("idle",),
    judge=judge,
)
