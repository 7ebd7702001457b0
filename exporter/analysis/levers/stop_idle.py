"""Stop replicas that hold a GPU without using it, or scale them to zero."""

from __future__ import annotations

import math

from ..bootstrap import of_sum
from ..facts import Facts, Fleet
from .lever import CONFIDENCE, Finding, Lever, at_most, percent, saves, silent, too_short

LEAST_SHARE = 0.02
"""Of the GPU joules, and of the time: less is not worth a restart."""


def judge(facts: Facts, fleet: Fleet) -> Finding:
    """The joules of gaps of more than ten minutes, less what the card draws without a process where that was seen."""
    total, quiet, seconds = sum(facts.gpu), sum(facts.quiet), sum(facts.quiet_seconds)
    if total <= 0:
        return silent("it holds no GPU")
    if quiet < LEAST_SHARE * total or seconds < LEAST_SHARE * facts.watched_seconds:
        return silent("its GPUs were used, without gaps of more than ten minutes that matter")
    if short := too_short(facts):
        return short
    if _running_while_quiet(facts) > 0.5:
        return silent("requests were running while its GPUs did nothing: the server is stuck, or waits for another")
    share = seconds / facts.watched_seconds
    said = f"held its GPUs without using them {percent(share)} of the time, in gaps of more than ten minutes"
    bare = [fleet.bare_watts.get(card.gpu_model) for card in facts.cards]
    blocks = facts.blocks(facts.quiet)
    if not bare or None in bare:
        return at_most(blocks, f"{said}; an empty card of this kind was never seen, so its power is not known")
    watts = math.fsum(value for value in bare if value is not None)
    above = [
        max(0.0, joules - watts * time) for joules, time in zip(blocks, facts.blocks(facts.quiet_seconds), strict=True)
    ]
    return saves(
        "observed", of_sum(above, CONFIDENCE), f"{said}; empty cards of this kind draw {watts / len(bare):.0f} W each"
    )


def _running_while_quiet(facts: Facts) -> float:
    """Mean of running requests in steps that were quiet for nine tenths; 0 where servers are not scraped."""
    if not facts.running or not facts.quiet_seconds:
        return 0.0
    found = [
        running
        for running, quiet in zip(facts.running, facts.quiet_seconds, strict=True)
        if quiet > 0.9 * facts.grid.step and math.isfinite(running)
    ]
    return math.fsum(found) / len(found) if found else 0.0


LEVER = Lever(
    name="stop_idle",
    title="Stop idle replicas, or scale them to zero",
    applies="GPUs were held for more than ten minutes at a time without being used",
    evidence='sum(increase(energy_model_joules_total{$subject,component="gpu",mode="idle"}[$range])) / 3.6e6',
    counter_evidence="max_over_time(sum(vllm:num_requests_running{$subject})[$range:5m])",
    would_change="spare capacity for failover, gaps shorter than loading the model takes, a long load",
    risk="the first request after a stop waits until the model is loaded; loading uses energy of its own",
    undo="set the replicas to what they were",
    published="a CUDA context draws 26-50 W on H100 and A100, 66 W on L40S, whatever the model's size; a stop pays "
    "back after 1-5 minutes without requests (arXiv 2605.23918)",
    pools=("idle",),
    judge=judge,
    about=("model", "workload"),
)
