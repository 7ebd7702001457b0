"""How long containers hold GPUs: what the embodied carbon of a GPU is shared out by.

A GPU that is held and idle wears off as one at work, so it is seconds that count, not joules.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field

from ..records import GroupKey, Place, Workload, WorkloadKey
from .accounts import Account
from .attribution import Energy, GpuCharge, PlaceCharge, Shares


@dataclass(slots=True)
class HeldSeconds:
    """GPU seconds that only grow: ``node`` of all GPUs, ``containers`` by their labels, ``ended`` of former ones.

    What no container held is the difference.
    """

    node: float = 0.0
    containers: dict[WorkloadKey, float] = field(default_factory=dict)
    ended: float = 0.0


class HeldTime:
    """Adds up, in each tick, the time for which each GPU was held, by the claims on its idle joules."""

    def __init__(self, seconds: HeldSeconds | None = None) -> None:
        self.seconds = seconds or HeldSeconds()
        self._unnamed: dict[GroupKey, float] = {}

    def add(
        self,
        window_seconds: float,
        energies: Iterable[Energy],
        shares: Shares,
        by_group: Mapping[GroupKey, Account],
        by_place: Mapping[Place, Workload],
    ) -> None:
        """The GPUs that were read in a window were held in it as they are held at its end."""
        self.seconds.node += window_seconds * len({e.device.id for e in energies if e.device.component == "gpu"})
        charges: list[GpuCharge | PlaceCharge] = [*shares.gpu, *shares.places]
        for charge in charges:
            if charge.held:
                self._hold(charge, window_seconds * charge.held, by_group, by_place)
        for group in [group for group in self._unnamed if group not in by_group]:
            self.seconds.ended += self._unnamed.pop(group)

    def end(self, published: Collection[WorkloadKey]) -> None:
        """Containers that are no longer exposed."""
        for key in [key for key in self.seconds.containers if key not in published]:
            self.seconds.ended += self.seconds.containers.pop(key)

    def _hold(
        self,
        charge: GpuCharge | PlaceCharge,
        seconds: float,
        by_group: Mapping[GroupKey, Account],
        by_place: Mapping[Place, Workload],
    ) -> None:
        held = self.seconds.containers
        if isinstance(charge, PlaceCharge):
            if (owner := by_place.get(charge.place)) is not None:
                held[owner.key] = held.get(owner.key, 0.0) + seconds
            return
        group = charge.use.group
        account = None if group is None else by_group.get(group)
        if group is None or account is None or not isinstance(account.owner, Workload):
            return
        if account.held_until is not None:  # its name is being looked up
            self._unnamed[group] = self._unnamed.get(group, 0.0) + seconds
            return
        held[account.owner.key] = held.get(account.owner.key, 0.0) + seconds + self._unnamed.pop(group, 0.0)
