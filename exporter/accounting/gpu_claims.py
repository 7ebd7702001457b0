"""Claims on a card's idle joules: of containers that it is allocated to, and of processes that hold it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase

from ..records import Allocation, GpuUse, GroupKey, Place, Workload


class Reservations:
    """Which containers hold a card only to reserve it for others, as those of KAI and Run:ai, which only sleep.

    ``patterns`` are ``NAMESPACE`` or ``NAMESPACE/POD``, with ``*`` and ``?``.
    """

    def __init__(self, patterns: Sequence[str]) -> None:
        self._patterns = [pattern if "/" in pattern else f"{pattern}/*" for pattern in patterns]
        self._allocations: Sequence[Allocation] = ()
        self._places: frozenset[Place] = frozenset()

    def places(self, allocations: Sequence[Allocation]) -> frozenset[Place]:
        """Those among the containers that a card is allocated to."""
        if allocations is not self._allocations:
            self._allocations = allocations
            self._places = frozenset(each.place for each in allocations if self._matches(each))
        return self._places

    def _matches(self, allocation: Allocation) -> bool:
        name = f"{allocation.namespace}/{allocation.pod}"
        return any(fnmatchcase(name, pattern) for pattern in self._patterns)


class Claims:
    """The holders of a card, and in ``weights`` their claims on its idle joules.

    ``held`` is whether anything is known to hold the card: a process, or a container that it is allocated to.

    ``sole_owner`` is the only container that the card is allocated to, if no other holder is seen on it: joules whose
    process is unknown are attributed to that container.
    """

    def __init__(
        self,
        holders: Sequence[GpuUse],
        allocated: Mapping[Place, float],
        owners: Mapping[GroupKey, Workload],
        reserved: frozenset[Place] = frozenset(),
    ) -> None:
        """``reserved`` are places that give their claim to holders the card is not allocated to, if there are any."""
        self.holders = holders
        self.held = bool(holders or allocated)
        self.weights: list[tuple[GpuUse | Place, float]] = []
        self.sole_owner: Place | None = None
        claiming = list(holders)
        if reserved and not reserved.isdisjoint(allocated):
            users = [use for use in holders if use.group is None or owners[use.group].place not in reserved]
            if users:
                claiming = users
                allocated = {place: share for place, share in allocated.items() if place not in reserved}
        if allocated:
            self._weigh(claiming, allocated, owners, reserved)
        else:
            self.weights += [(use, use.hold) for use in claiming]

    def _weigh(
        self,
        holders: Sequence[GpuUse],
        allocated: Mapping[Place, float],
        owners: Mapping[GroupKey, Workload],
        reserved: frozenset[Place],
    ) -> None:
        """A container's claim is its allocation, distributed over its processes by ``GpuUse.hold``.

        A holder without an allocation has a claim beside them, as on a card that is not allocated. A pod whose name is
        not known yet is one of those that the card is allocated to and that have no known process: it shares their
        allocations equally. Processes that this /proc does not show, or not their cgroup, have no claim, because
        the allocation identifies the owner.
        """
        inside: defaultdict[Place, list[GpuUse]] = defaultdict(list)
        unnamed: list[GpuUse] = []
        others: list[GpuUse] = []
        for use in holders:
            if use.process is None or use.group is None:
                continue
            workload = owners[use.group]
            if workload.runtime == "kubernetes" and workload.place in allocated:
                inside[workload.place].append(use)
            elif workload.runtime == "kubernetes" and not (workload.namespace and workload.container):
                unnamed.append(use)
            else:
                others.append(use)
        idle = {place: share for place, share in allocated.items() if not sum(use.hold for use in inside[place])}
        if not idle:
            others += unnamed
            unnamed = []
        for place, share in allocated.items():
            if place not in idle:
                self._distribute(inside[place], share)
        known = min(1.0, len({use.group for use in unnamed}) / len(idle)) if idle and _total_hold(unnamed) else 0.0
        if known:
            self._distribute(unnamed, sum(idle.values()) * known)
        self.weights += [(place, share * (1.0 - known)) for place, share in idle.items() if known < 1.0]
        self.weights += [(use, use.hold) for use in others]
        if len(allocated) == 1 and not others and not unnamed and reserved.isdisjoint(allocated):
            self.sole_owner = next(iter(allocated))  # a reservation only sleeps

    def _distribute(self, uses: Sequence[GpuUse], weight: float) -> None:
        hold = _total_hold(uses)
        self.weights += [(use, weight * use.hold / hold) for use in uses]


def _total_hold(uses: Sequence[GpuUse]) -> float:
    return sum(use.hold for use in uses)
