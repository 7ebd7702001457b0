"""Feed a training run faster: its GPUs wait for data."""

from __future__ import annotations

from ..facts import Facts, Fleet
from .lever import Finding, Lever, at_most, percent, silent, too_short

LEAST_SHARE = 0.2


def judge(facts: Facts, fleet: Fleet) -> Finding:
    """At most the GPU joules while the GPU waited for the host."""
    if facts.subject.phase != "training":
        return silent("no training run")
    share = facts.share("host_bound")
    if share is None:
        return silent("no activities: whether its GPUs wait for the host is not known")
    if share < LEAST_SHARE:
        return silent(f"{percent(share)} of its GPU joules are host-bound")
    if short := too_short(facts):
        return short
    blocks = facts.blocks(facts.activities["host_bound"])
    return at_most(blocks, f"{percent(share)} of its GPU joules were used while the GPUs waited for the host")


LEVER = Lever(
    name="data_loader",
    title="More or faster workers of the data loader",
    applies="a training run with more than a fifth of its GPU joules host-bound",
    evidence='sum(increase(energy_model_activity_joules_total{$subject,activity="host_bound"}[$range])) / 3.6e6',
    counter_evidence="sum(increase(energy_model_activity_joules_total"
    '{$subject,activity="compute_bound"}[$range])) / 3.6e6',
    would_change="gaps that are checkpoints or evaluations, a CPU that has nothing left",
    risk="more memory and CPU of the host",
    undo="the former number of workers",
    published="no figure: a run that ends sooner spares the power of the gaps, at most",
    pools=("idle", "active"),
    judge=judge,
)
