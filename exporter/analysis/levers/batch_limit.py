"""Raise the limit of requests that a server runs at once."""

from __future__ import annotations

import math

from ..facts import Facts, Fleet, finite, mean
from .lever import Finding, Lever, hint, percent, silent

LEAST_WAITING = 0.5
_FULL = 0.95
_LEAST_SHARE = 0.1


def judge(facts: Facts, fleet: Fleet) -> Finding:
    """Requests wait while as many run as ever did, and neither power nor memory is the limit."""
    if not facts.running or not facts.waiting:
        return silent("no server metrics: running or waiting requests are not scraped")
    most = max(finite(facts.running), default=0.0)
    known = [
        (running, waiting)
        for running, waiting in zip(facts.running, facts.waiting, strict=True)
        if math.isfinite(running) and math.isfinite(waiting)
    ]
    queued = sum(1 for running, waiting in known if waiting > LEAST_WAITING and running > _FULL * most > 0)
    if not known or queued < _LEAST_SHARE * len(known):
        return silent("requests do not wait while as many run as ever did")
    used = mean(facts.kv_use)
    if used is not None and used > 0.9:
        return silent(f"its KV caches are {percent(used)} full: memory is the limit, not the batch")
    at_limit = [card.power_watts / card.limit_watts for card in facts.cards if card.power_watts and card.limit_watts]
    if at_limit and max(at_limit) > 0.8:
        return silent("its cards draw more than 80 % of their power limit")
    return hint(f"requests wait {percent(queued / len(known))} of the time while {most:.0f} run, the most ever seen")


LEVER = Lever(
    name="batch_limit",
    title="Raise the batch limit of the server",
    applies="requests wait while as many run as ever did, with memory and power to spare",
    evidence="sum(avg_over_time(vllm:num_requests_waiting{$subject}[$range]))",
    counter_evidence="max(max_over_time(vllm:kv_cache_usage_perc{$subject}[$range]))",
    would_change="a full KV cache, preemptions, latency near its objective",
    risk="time between tokens grows with the batch",
    undo="set the limit (--max-num-seqs of vLLM) to what it was",
    published="the same curve as of consolidate; do not extrapolate it: predicted from the two smallest batches it "
    "misses the largest by a median factor of 1.79",
    pools=("active",),
    judge=judge,
)
