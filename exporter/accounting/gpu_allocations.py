"""The cluster's GPU allocations, kept until they are replaced, and resolved to the cards of this node."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from itertools import chain

from ..records import Allocation, GpuState

KEPT_SECONDS = 300.0
"""How long allocations stay valid while the kubelet does not answer: longer than its restart or upgrade takes."""


class AllocationCache:
    """Keeps the last allocations and resolves each to a card, or to a part of one.

    A card is identified by UUID or PCI address, a MIG device by its UUID or by its card and GPU instance. A device that
    is not among the reporting cards (a network card, a card that vanished) is left out.
    """

    def __init__(self) -> None:
        self._allocations: tuple[Allocation, ...] = ()
        self._updated_at = float("-inf")
        self._cards: dict[str, tuple[GpuState, ...]] = {}
        self._resolved: tuple[Allocation, ...] = ()

    def update(
        self, allocations: tuple[Allocation, ...] | None, gpus: Iterable[GpuState], now: float
    ) -> tuple[Allocation, ...]:
        """Take this tick's ``allocations`` (None: no news) and cards; return the resolved allocations that are valid.

        A card that is not in ``gpus`` (it sleeps, or its driver does not answer) is taken to be unchanged.
        """
        if allocations is not None:
            self._updated_at = now
        elif now - self._updated_at > KEPT_SECONDS:
            allocations = ()
        cards: defaultdict[str, list[GpuState]] = defaultdict(list)
        for gpu in gpus:
            cards[gpu.uuid].append(gpu)
        changed = {uuid: tuple(parts) for uuid, parts in cards.items() if not _same(parts, self._cards.get(uuid, ()))}
        if changed or (allocations is not None and allocations != self._allocations):
            self._cards |= changed
            self._allocations = self._allocations if allocations is None else allocations
            self._resolved = tuple(self._resolve())
        return self._resolved

    def _resolve(self) -> Iterable[Allocation]:
        parts: dict[str, tuple[GpuState, float]] = {}
        for part in chain.from_iterable(self._cards.values()):
            ids = [id_ for id_ in (part.uuid, part.pci_bus_id) if id_]
            if part.gpu_instance:
                ids = [f"{id_}/{part.gpu_instance}" for id_ in ids]
                each = part.slice_ratio / max(1, len(part.mig_uuids))
                parts.update(dict.fromkeys(part.mig_uuids, (part, each)))
            parts.update(dict.fromkeys(ids, (part, part.slice_ratio)))
        for allocation in self._allocations:
            device, instance = allocation.device, allocation.gpu_instance
            found = parts.get(f"{device}/{instance}" if instance else device)
            if found is not None:
                part, ratio = found
                yield allocation._replace(
                    device=part.uuid, share=allocation.share * ratio, gpu_instance=part.gpu_instance, gpu=part.index
                )


def _same(parts: Sequence[GpuState], known: Sequence[GpuState]) -> bool:
    """Whether a card is still partitioned and numbered as it was."""
    return [_identity(part) for part in parts] == [_identity(part) for part in known]


def _identity(gpu: GpuState) -> tuple[object, ...]:
    return gpu.uuid, gpu.index, gpu.gpu_instance, gpu.mig_uuids, gpu.slice_ratio, gpu.pci_bus_id
