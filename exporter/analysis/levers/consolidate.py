"""Serve the same load with fewer, fuller replicas."""

from __future__ import annotations

from ..facts import Facts, Fleet, mean
from .curves import fuller
from .lever import Finding, Lever, percent, saves, silent, too_short

LEAST_SHARE = 0.1
"""Of the time in which fewer replicas sufficed."""


def judge(facts: Facts, fleet: Fleet) -> Finding:
    """From the joules per token that it had at the load that one of fewer replicas would have."""
    replicas = mean(facts.replicas)
    if not facts.output_tokens:
        return silent("its tokens are not counted")
    if replicas is None:
        return silent("how many replicas serve it is not known")
    if replicas < 1.5:
        return silent("it has one replica")
    if short := too_short(facts):
        return short
    waiting, used = mean(facts.waiting), mean(facts.kv_use)
    if waiting is not None and waiting > 0.5:
        return silent(f"{waiting:.1f} requests wait on average: its replicas are full")
    if used is not None and used > 0.9:
        return silent(f"its KV caches are {percent(used)} full")
    found = fuller(facts)
    if found is None or found.share < LEAST_SHARE:
        return silent("no replica ever had the load that one of fewer replicas would have, for half an hour")
    return saves(
        "observed",
        found.joules,
        f"{percent(found.share)} of the time fewer replicas would have had loads that one was seen to bear, "
        f"{found.replicas:.1f} instead of {replicas:.1f} on average",
    )


LEVER = Lever(
    name="consolidate",
    title="Serve with fewer, fuller replicas",
    applies="several replicas of a model, each with less load than one was seen to bear without requests that wait",
    evidence="sum(model:output_tokens:rate5m{$subject}) / "
    'count(group by (pod, container) (energy_container_tokens_total{$subject,kind="output"}))',
    counter_evidence="sum(avg_over_time(vllm:num_requests_waiting{$subject}[$range]))",
    would_change="requests that wait, a KV cache above 90 %, latency near its objective",
    risk="latency rises with load, and less is left for bursts and failures",
    undo="set the replicas, or the minimum of the autoscaler, to what they were",
    published="J/token falls by a factor of 0.63 (batch 8 to 16), 0.66, 0.67 (32 to 64), 0.72, 0.74, 0.78 (256 to "
    "512), 0.80, 0.85 (1024 to 2048) for each doubling of the batch (computed from the ML.ENERGY leaderboard, 838 "
    "configurations on H100 and B200)",
    pools=("idle", "active"),
    judge=judge,
)
