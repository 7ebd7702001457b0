"""Write checkpoints while the GPUs go on."""

from __future__ import annotations

from ..facts import Facts, Fleet
from .lever import Finding, Lever, at_most, percent, silent, too_short

LEAST_SHARE = 0.05


def judge(facts: Facts, fleet: Fleet) -> Finding:
    """At most the idle GPU joules of gaps shorter than ten minutes while the run went on."""
    if facts.subject.phase != "training":
        return silent("no training run")
    if not facts.idle or not facts.active:
        return silent("idle GPU joules are not known")
    quiet = facts.quiet or [0.0] * facts.grid.length
    gaps = [
        max(0.0, idle - gap) if active > 0 else 0.0
        for idle, gap, active in zip(facts.activities.get("idle", ()) or (), quiet, facts.active, strict=False)
    ]
    if not gaps:
        return silent("no activities: when its GPUs did nothing is not known")
    share = sum(gaps) / sum(facts.gpu)
    if share < LEAST_SHARE:
        return silent(f"{percent(share)} of its GPU joules are in gaps within the run")
    if short := too_short(facts):
        return short
    return at_most(
        facts.blocks(gaps),
        f"{percent(share)} of its GPU joules are idle in gaps of less than ten minutes within the run; whether these "
        "are checkpoints, evaluations or the start of an epoch is not seen here",
    )


LEVER = Lever(
    name="checkpoint",
    title="Asynchronous checkpoints, shorter evaluations",
    applies="a training run with more than a twentieth of its GPU joules idle in short gaps within the run",
    evidence='sum(increase(energy_model_activity_joules_total{$subject,activity="idle"}[$range])) / 3.6e6',
    counter_evidence="sum(increase(energy_model_activity_joules_total"
    '{$subject,activity="host_bound"}[$range])) / 3.6e6',
    would_change="gaps that do not coincide with checkpoints",
    risk="memory for a copy of the state; a crash while it is written",
    undo="synchronous checkpoints",
    published="no figure: gap seconds times the power held, at most",
    pools=("idle",),
    judge=judge,
)
