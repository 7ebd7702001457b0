"""Train with mixed precision."""

from __future__ import annotations

from ..facts import Facts, Fleet
from .lever import Finding, Lever, hint, percent, silent

_UNUSED = 0.02
_BUSY = 0.5


def judge(facts: Facts, fleet: Fleet) -> Finding:
    """Tensor cores that do nothing while the SMs are busy."""
    if facts.subject.phase != "training":
        return silent("no training run")
    tensor = [card.tensor_active for card in facts.cards if card.tensor_active is not None]
    busy = [card.sm_active for card in facts.cards if card.sm_active is not None]
    if not tensor or not busy:
        return silent("no SM and tensor activity of its GPUs (GPM)")
    if max(tensor) >= _UNUSED:
        return silent(f"its tensor cores are active {percent(max(tensor))} of the time")
    if max(busy) < _BUSY:
        return silent(f"its SMs are active {percent(max(busy))} of the time only")
    return hint(f"its SMs are active {percent(max(busy))} of the time, its tensor cores {percent(max(tensor))}")


LEVER = Lever(
    name="mixed_precision",
    title="Mixed precision (BF16, TF32)",
    applies="a training run whose SMs are busy and whose tensor cores are not used",
    evidence="avg_over_time(energy_gpu_sm_active_ratio[$range])",
    counter_evidence="avg_over_time(energy_gpu_tensor_active_ratio[$range])",
    would_change="a model that needs FP32, cards without tensor cores",
    risk="loss scaling; count energy to accuracy, not per step",
    undo="the former dtype",
    published="-79 % (MI250X) and -81 % (MI300A) of the node's energy, nearly all from run time (arXiv 2604.06056)",
    pools=("active",),
    judge=judge,
)
