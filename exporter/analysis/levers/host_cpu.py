"""Spare CPU joules that do not depend on the load, such as threads that poll."""

from __future__ import annotations

from collections.abc import Sequence

from ..bootstrap import LEAST_BLOCKS, of_statistic
from ..facts import Facts, Fleet
from .lever import CONFIDENCE, Finding, Lever, percent, silent, too_short
from .lever import at_most as bound

LEAST_RATIO = 0.3
_LEAST_BASE = 0.5

Moments = tuple[float, float, float, float, float]


def judge(facts: Facts, fleet: Fleet) -> Finding:
    """At most the CPU joules that remain at no load: where the line of CPU joules by load meets it."""
    gpu, cpu = sum(facts.gpu), sum(facts.cpu)
    if cpu <= 0 or gpu <= 0:
        return silent("its CPU or GPU joules are not known")
    if cpu < LEAST_RATIO * gpu:
        return silent(f"its CPU joules are {percent(cpu / gpu)} of those of its GPUs")
    if short := too_short(facts):
        return short
    load = facts.output_tokens or facts.active
    parts = facts.parts()
    blocks = [_moments(load[part], facts.cpu[part]) for part in parts]
    base = of_statistic(blocks, _base_share, CONFIDENCE) if len(blocks) >= LEAST_BLOCKS else None
    if base is None or base.low < _LEAST_BASE:
        return silent("its CPU joules follow the load")
    sums = [joules * min(base.middle, 1.0) for joules in facts.blocks(facts.cpu)]
    return bound(
        sums,
        f"its CPU joules are {percent(cpu / gpu)} of those of its GPUs, and {percent(min(base.middle, 1.0))} of them "
        "do not depend on the load",
    )


def _moments(load: Sequence[float], joules: Sequence[float]) -> Moments:
    pairs = list(zip(load, joules, strict=True))
    return (
        len(pairs),
        sum(load),
        sum(joules),
        sum(one * one for one in load),
        sum(one * other for one, other in pairs),
    )


def _base_share(blocks: Sequence[Moments]) -> float:
    """Intercept of the least-squares line of joules by load, as a share of the mean joules."""
    count, load, joules, squares, products = (sum(block[index] for block in blocks) for index in range(5))
    spread = count * squares - load * load
    if joules <= 0 or spread <= 1e-9 * count * squares:
        return 0.0  # one load only: a line has no slope
    slope = (count * products - load * joules) / spread
    return max(0.0, 1 - slope * load / joules)


LEVER = Lever(
    name="host_cpu",
    title="Spare CPU energy that does not depend on the load",
    applies="CPU joules above 30 % of those of the GPUs, most of which remain at no load",
    evidence='sum(increase(energy_model_joules_total{$subject,component="cpu"}[$range])) / 3.6e6',
    counter_evidence="sum(avg_over_time(model:output_tokens:rate5m{$subject}[$range]))",
    would_change="tokenisation or image decoding that is really needed",
    risk="threads that sleep instead of polling add latency of microseconds to milliseconds",
    undo="the former number of threads and polling settings",
    published="host CPU and DRAM are 25 % of the energy of a median prompt at Google (arXiv 2508.15734)",
    pools=("cpu",),
    judge=judge,
)
