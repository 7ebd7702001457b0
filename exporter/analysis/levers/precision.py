"""Quantise weights or activations: a hint only, because it often costs energy."""

from __future__ import annotations

from ..facts import Facts, Fleet, mean
from .lever import Finding, Lever, hint, percent, silent

LEAST_RUNNING = 64
_LEAST_SHARE = 0.5
_CAPABLE = (
    "H100",
    "H200",
    "GH200",
    "B200",
    "B300",
    "GB200",
    "L4",
    "L40",
    "RTX 4",
    "RTX 5",
    "RTX 6000 Ada",
    "MI300",
    "MI325",
)


def judge(facts: Facts, fleet: Fleet) -> Finding:
    """FP8 at large, compute-bound batches on cards that have it."""
    if facts.subject.phase == "training":
        return silent("a training run: see mixed_precision")
    running, bound = mean(facts.running), facts.share("compute_bound")
    if running is None:
        return silent("no server metrics: the batch is not known, and at small batches FP8 costs energy")
    if running < LEAST_RUNNING:
        return silent(
            f"{running:.0f} requests run on average: below {LEAST_RUNNING} FP8 costs energy more often than not"
        )
    if bound is None or bound < _LEAST_SHARE:
        return silent("it is not compute-bound, where FP8 gains")
    if not any(name in card.gpu_model for card in facts.cards for name in _CAPABLE):
        return silent("its GPUs have no FP8, as far as is known")
    return hint(f"{running:.0f} requests run on average and {percent(bound)} of its GPU joules are compute-bound")


LEVER = Lever(
    name="precision",
    title="FP8 or INT4",
    applies="large, steady batches (64 and more), compute-bound, on cards with FP8",
    evidence="sum(avg_over_time(vllm:num_requests_running{$subject}[$range]))",
    counter_evidence="sum(increase(energy_model_activity_joules_total"
    '{$subject,activity="memory_bound"}[$range])) / 3.6e6',
    would_change="small batches, older cards, a model that is quantised already",
    risk="quality is not measured here; it may cost energy: compare both with compare",
    undo="serve the former weights",
    published="FP8 against BF16: median factor 1.13 (0.71-5.57), below 1 mostly from batch 64 up, at batch 8 always "
    "1.46 or more (computed from the ML.ENERGY leaderboard, 53 pairs of large mixture-of-experts models); INT8 of "
    "bitsandbytes +17 to +33 %, NF4 +12 to +55 % below 3-5 B parameters and -11 to -23 % above",
    pools=("active",),
    judge=judge,
)
