"""Who has a claim on a card's idle joules: whoever was given it by the cluster, and whoever holds it besides."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence

from ..records import HOST, GpuUse, GroupKey, Workload

Place = tuple[str, str, str]
"""Namespace, pod and container."""


class Claims:
    """Who holds a card: ``weights`` are their claims on its idle joules.

    ``sole`` is the only container that has a right to be there, if nobody else is seen on the card: what
    cannot be told whose it is, is its.
    """

    def __init__(
        self, holders: Sequence[GpuUse], given: Mapping[Place, float], owner: Callable[[GroupKey], Workload]
    ) -> None:
        self.holders = holders
        self.weights: list[tuple[GpuUse | Place, float]] = []
        self.sole: Place | None = None
        if given:
            self._weigh(given, owner)
        else:
            self.weights += [(use, use.hold) for use in holders]

    def _weigh(self, given: Mapping[Place, float], owner: Callable[[GroupKey], Workload]) -> None:
        """A container's claim is what it was given, and its processes part it by ``GpuUse.hold``.

        Whoever holds the card without having been given it has a claim beside them, as on a card that was given
        to nobody. A pod whose names are not known is one of those that were given the card and of which no
        process is known: it has as much of what those were given as if all had the same. Who is not seen in
        this /proc has no claim of his own: the cluster says whose the card is.
        """
        inside: defaultdict[Place, list[GpuUse]] = defaultdict(list)
        unnamed: list[GpuUse] = []
        others: list[GpuUse] = []
        for use in self.holders:
            if use.process.key.pid == 0:
                continue
            workload = HOST if use.group is None else owner(use.group)
            if workload[:3] in given and workload.runtime == "kubernetes":
                inside[workload[:3]].append(use)
            elif workload.runtime == "kubernetes" and not (workload.namespace and workload.container):
                unnamed.append(use)
            else:
                others.append(use)
        idle = {place: share for place, share in given.items() if not sum(use.hold for use in inside[place])}
        if not idle:
            others += unnamed
            unnamed = []
        for place, share in given.items():
            if place not in idle:
                self._part(inside[place], share)
        known = min(1.0, len({use.group for use in unnamed}) / len(idle)) if idle and _held(unnamed) else 0.0
        if known:
            self._part(unnamed, sum(idle.values()) * known)
        self.weights += [(place, share * (1.0 - known)) for place, share in idle.items() if known < 1.0]
        self.weights += [(use, use.hold) for use in others]
        if len(given) == 1 and not others and not unnamed:
            self.sole = next(iter(given))

    def _part(self, uses: Sequence[GpuUse], weight: float) -> None:
        hold = _held(uses)
        self.weights += [(use, weight * use.hold / hold) for use in uses]


def _held(uses: Sequence[GpuUse]) -> float:
    return sum(use.hold for use in uses)
