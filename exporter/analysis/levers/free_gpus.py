"""Switch off nodes, or cards, that no workload holds."""

from __future__ import annotations

from ..facts import Facts, Fleet
from .lever import Finding, Lever, at_most, percent, silent, too_short

LEAST_SHARE = 0.25
"""Of the steps in which cards were free."""


def judge(facts: Facts, fleet: Fleet) -> Finding:
    """At most the joules of the free cards of a node."""
    free = sum(1 for joules in facts.idle if joules > 0)
    share = free / facts.grid.length if facts.grid.length else 0.0
    if share < LEAST_SHARE:
        return silent(f"a card was free {percent(share)} of the time")
    if short := too_short(facts):
        return short
    watts = sum(facts.idle) / (free * facts.grid.step)
    return at_most(
        facts.blocks(facts.idle), f"{watts:.0f} W of GPUs that no workload held, {percent(share)} of the time"
    )


LEVER = Lever(
    name="free_gpus",
    title="Switch off, or fill, nodes with free GPUs",
    applies="GPUs that no workload held for a quarter of the time",
    evidence='sum(increase(energy_unattributed_joules_total{$subject,component="gpu",reason="idle"}[$range])) / 3.6e6',
    counter_evidence="sum by (instance) (energy_gpu_allocated_ratio)",
    would_change="capacity that is kept for bursts or failures; other cards of the node that are in use",
    risk="a node takes minutes to start",
    undo="start the node",
    published="idle machines are 10 % of the energy of a median prompt at Google (arXiv 2508.15734)",
    pools=("idle",),
    judge=judge,
    about=("node",),
)
