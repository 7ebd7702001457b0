"""Claims on a card's idle joules: of containers that it is allocated to, and of processes that hold it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from fnmatch import fnmatchcase

from ..records import Allocation, GpuUse, GroupKey, Place, Workload

Labels = Mapping[str, str]


class Reservations:
    """Which containers hold a card only to reserve it for others, as those of KAI and Run:ai, which only sleep.

    ``patterns`` are ``NAMESPACE``, ``NAMESPACE/POD`` or ``LABEL=VALUE`` of a pod, with ``*`` and ``?``.
    """

    def __init__(self, patterns: Sequence[str]) -> None:
        labels = [pattern.partition("=") for pattern in patterns if "=" in pattern]
        self._labels = [(name, value) for name, _, value in labels]
        self._names = [pattern if "/" in pattern else f"{pattern}/*" for pattern in patterns if "=" not in pattern]
        self._allocations: Sequence[Allocation] = ()
        self._places: frozenset[Place] = frozenset()
        self._open: set[Place] = set()

    def places(self, allocations: Sequence[Allocation], labels: Callable[[Place], Labels | None]) -> frozenset[Place]:
        """Those among the containers that a card is allocated to.

        ``labels`` returns those of a container's pod, None as long as they are not known: then it is called again.
        """
        if allocations is not self._allocations:
            self._allocations = allocations
            places = {each.place for each in allocations}
            self._places = frozenset(place for place in places if self._has_name(place))
            self._open = places - self._places if self._labels else set()
        known = {place: found for place in self._open if (found := labels(place)) is not None}
        if known:
            self._open.difference_update(known)
            self._places |= {place for place, found in known.items() if self._has_label(found)}
        return self._places

    def _has_name(self, place: Place) -> bool:
        namespace, pod, _ = place
        return any(fnmatchcase(f"{namespace}/{pod}", pattern) for pattern in self._names)

    def _has_label(self, labels: Labels) -> bool:
        return any(name in labels and fnmatchcase(labels[name], value) for name, value in self._labels)


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
        """``reserved`` are places without a claim: they only sleep; their processes that use nothing do not count."""
        self.held = bool(holders or allocated)
        self.holders = holders
        self.weights: list[tuple[GpuUse | Place, float]] = []
        self.sole_owner: Place | None = None
        claiming, is_reserved = holders, not reserved.isdisjoint(allocated)
        if is_reserved:
            sleeping = [use for use in holders if use.group is not None and owners[use.group].place in reserved]
            self.holders = [use for use in holders if use.seconds or use not in sleeping]
            claiming = [use for use in holders if use not in sleeping]
            allocated = {place: share for place, share in allocated.items() if place not in reserved}
        if allocated:
            self._weigh(claiming, allocated, owners, may_be_others=is_reserved)
        else:
            self.weights += [(use, use.hold) for use in claiming]

    def _weigh(
        self,
        holders: Sequence[GpuUse],
        allocated: Mapping[Place, float],
        owners: Mapping[GroupKey, Workload],
        *,
        may_be_others: bool,
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
        if len(allocated) == 1 and not others and not unnamed and not may_be_others:
            self.sole_owner = next(iter(allocated))

    def _distribute(self, uses: Sequence[GpuUse], weight: float) -> None:
        hold = _total_hold(uses)
        self.weights += [(use, weight * use.hold / hold) for use in uses]


def _total_hold(uses: Sequence[GpuUse]) -> float:
    return sum(use.hold for use in uses)
