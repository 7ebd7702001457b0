"""What the cluster said of its cards, kept until it says something else, and found among the cards there are."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from itertools import chain

from ..records import Allocation, GpuState

KEPT_SECONDS = 300.0
"""How long the last word counts while the kubelet is silent: a restart or an upgrade of it is over by then."""


class Allocations:
    """Holds the last allocations told, and tells whose card, or which part of it, they mean.

    A card is known by its UUID or PCI address, a MIG device by its UUID or its card and GPU instance. What is
    not among the cards that report of themselves (a network card, one that vanished) is left out.
    """

    def __init__(self) -> None:
        self._told: tuple[Allocation, ...] = ()
        self._told_at = float("-inf")
        self._cards: dict[str, tuple[GpuState, ...]] = {}
        self._found: tuple[Allocation, ...] = ()

    def learn(
        self, told: tuple[Allocation, ...] | None, gpus: Iterable[GpuState], now: float
    ) -> tuple[Allocation, ...]:
        """Take in what came with this tick, and return what holds in it.

        ``told`` None says nothing; a card that is not in ``gpus`` (it sleeps, or its driver is silent) is
        taken to be as it was.
        """
        if told is not None:
            self._told_at = now
        elif now - self._told_at > KEPT_SECONDS:
            told = ()
        cards: defaultdict[str, list[GpuState]] = defaultdict(list)
        for gpu in gpus:
            cards[gpu.uuid].append(gpu)
        changed = {uuid: tuple(parts) for uuid, parts in cards.items() if not _same(parts, self._cards.get(uuid, ()))}
        if changed or (told is not None and told != self._told):
            self._cards |= changed
            self._told = self._told if told is None else told
            self._found = tuple(self._find())
        return self._found

    def _find(self) -> Iterable[Allocation]:
        names: dict[str, tuple[GpuState, float]] = {}
        for part in chain.from_iterable(self._cards.values()):
            cards = [name for name in (part.uuid, part.pci_bus_id) if name]
            if part.gpu_instance:
                cards = [f"{name}/{part.gpu_instance}" for name in cards]
                each = part.slice_ratio / max(1, len(part.mig_uuids))
                names.update(dict.fromkeys(part.mig_uuids, (part, each)))
            names.update(dict.fromkeys(cards, (part, part.slice_ratio)))
        for told in self._told:
            name = f"{told.device}/{told.gpu_instance}" if told.gpu_instance else told.device
            if name in names:
                part, ratio = names[name]
                yield told._replace(
                    device=part.uuid, share=told.share * ratio, gpu_instance=part.gpu_instance, gpu=part.index
                )


def _same(parts: Sequence[GpuState], known: Sequence[GpuState]) -> bool:
    """Whether a card is still cut and numbered as it was."""
    return [_identity(part) for part in parts] == [_identity(part) for part in known]


def _identity(gpu: GpuState) -> tuple[object, ...]:
    return gpu.uuid, gpu.index, gpu.gpu_instance, gpu.mig_uuids, gpu.slice_ratio, gpu.pci_bus_id
