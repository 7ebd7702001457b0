"""What a GPU did while a workload held it: one of eight activities, by one table of thresholds."""

from __future__ import annotations

from typing import NamedTuple

from ..snapshot import Activity

THROTTLED_RATIO = 0.1
"""Share of the time from which on throttled clocks decide what a card does. A card at its limit is throttled in most
of a second, and a peak of load in a few hundredths of one."""

LITTLE_USED_RATIO = 0.3
"""Activity of the multiprocessors below which a card is little used. NVIDIA's DCGM documentation calls less than 0.5
likely ineffective (field 1002, SM_ACTIVE). Utilization counts any time with a kernel, so where it is below, so is the
activity of the multiprocessors."""

BOUND_RATIO = 0.5
"""Share of the busy time of the multiprocessors from which on memory or tensor cores bound the work. DCGM's
documentation gives 0.8 as what DRAM_ACTIVE (field 1005) reaches at most; half of the time is most of that."""

BUSY_CORES = 0.9
"""Busy CPUs, by GPU, with which the model's processes keep a core busy: one thread that prepares data or launches
kernels without a pause, as the kernel's clocks see it beside others."""


class CardFacts(NamedTuple):
    """What a card or MIG instance did in one tick; None is unknown.

    ``throttled`` is the share of the time in which its clocks were throttled, by the longest-lasting reason: of the
    whole card, also for an instance. ``utilization`` is the share with a kernel, ``sm``, ``tensor`` and ``dram`` the
    activity of multiprocessors, tensor cores and memory (GPM), all from 0 to 1.
    """

    throttled: float | None = None
    utilization: float | None = None
    sm: float | None = None
    tensor: float | None = None
    dram: float | None = None


UNKNOWN_CARD = CardFacts()


def is_unused(card: CardFacts, seconds: float, active_joules: float, *, reported: bool) -> bool:
    """Whether a holder did nothing on a card.

    It used it for 0 ``seconds`` where its use is ``reported``, and it was charged for no work; or no kernel ran.
    """
    return not seconds and (card.utilization == 0.0 or (reported and not active_joules))


def classify(card: CardFacts, cores: float | None) -> Activity:
    """What a card did for a holder that used it; ``cores`` are busy CPUs of the model's processes by GPU.

    ``unknown`` where the facts do not decide. The first that applies: throttled; little used, which is host_bound with
    a busy core and else underused; memory_bound; compute_bound; mixed.
    """
    if card.throttled is not None and card.throttled > THROTTLED_RATIO:
        return "throttled"
    used = card.utilization if card.sm is None else card.sm
    if used is None:
        return "unknown"
    if used < LITTLE_USED_RATIO:
        return "host_bound" if cores is not None and cores >= BUSY_CORES else "underused"
    return "unknown" if card.sm is None else _bound(card.sm, card.tensor, card.dram)


def _bound(sm: float, tensor: float | None, dram: float | None) -> Activity:
    """What bounds a card that is used, which utilization alone does not show."""
    if dram is not None and dram >= BOUND_RATIO * sm:
        return "memory_bound"
    if tensor is not None and tensor >= BOUND_RATIO * sm:
        return "compute_bound"
    return "unknown" if dram is None or tensor is None else "mixed"
