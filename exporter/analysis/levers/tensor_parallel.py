"""Divide a model among more or fewer GPUs."""

from __future__ import annotations

from ..facts import Facts, Fleet, mean
from .lever import Finding, Lever, hint, percent, silent

_SMALL_BATCH = 8


def judge(facts: Facts, fleet: Fleet) -> Finding:
    """Fewer where memory and batch are far from full, more where the KV cache is what requests wait for."""
    used, running, waiting, replicas = (
        mean(steps) for steps in (facts.kv_use, facts.running, facts.waiting, facts.replicas)
    )
    if used is None or running is None:
        return silent("no server metrics: KV caches or running requests are not scraped")
    if used > 0.9 and waiting is not None and waiting > 0.5:
        return hint(f"its KV caches are {percent(used)} full and {waiting:.1f} requests wait: try twice the GPUs")
    if not replicas or len(facts.cards) / replicas < 1.9:
        return silent("each replica has one GPU, and memory is not what requests wait for")
    if used < 0.5 and running / replicas < _SMALL_BATCH:
        return hint(
            f"its KV caches are {percent(used)} full and {running / replicas:.1f} requests run in each replica: "
            "try half the GPUs"
        )
    return silent(f"its KV caches are {percent(used)} full and {running:.0f} requests run")


LEVER = Lever(
    name="tensor_parallel",
    title="Another number of GPUs for each replica",
    applies="a small batch with a KV cache below half (fewer GPUs), or requests that wait for a full one (more)",
    evidence="max(avg_over_time(vllm:kv_cache_usage_perc{$subject}[$range]))",
    counter_evidence="sum(avg_over_time(vllm:num_requests_waiting{$subject}[$range]))",
    would_change="a model that does not fit, latency near its objective",
    risk="fewer GPUs: slower, less room for long contexts; more: idle power of more cards",
    undo="the former --tensor-parallel-size",
    published="twice the GPUs at the same batch: J/token times 1.26 (median of 138); each at its own best batch: times "
    "0.56, better in 18 of 25 pairs (computed from the ML.ENERGY leaderboard)",
    pools=("active",),
    judge=judge,
)
