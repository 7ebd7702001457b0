"""Zones that are windows on one register: several names, one counter, which must be counted once."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from ...records import EnergyReading

_SHARED = re.compile(r"(package|dram)-(\d+)(?:-die-\d+)?(?:@.*)?")
"""What may be the same register under another name: the zones of one package, whatever follows its number."""

_UPDATE_SECONDS = 0.002
"""RAPL counters are updated about every millisecond, so two reads of one register may be one update apart."""

_TELLING_JOULES = 100.0
"""Counters that are equal near 0 say nothing: they all start there."""

_SAME_READINGS = 2
_DIFFERENT_READINGS = 3
"""Consecutive readings after which two counters are one, or are not. The second needs more: a thread that is
interrupted between a read and its clock makes one register look like two."""


@dataclass(slots=True)
class _Pair:
    """Two zones of one package; ``same`` is the verdict, None until there is one."""

    same: bool | None = None
    alike: int = 0
    apart: int = 0
    seen: tuple[float, float] = (-1.0, -1.0)


class Mirrors:
    """Finds the zones of one package that show the same register, by what they count.

    On processors with one register per package (``by_vendor``) all zones of a package are one from the start. On others
    the dies have registers of their own, unless their counters are equal, within what is used between the two reads, in
    the first two readings that moved. Until there is a verdict, equal counters are taken for one, so that a meter that
    resumes after a restart adds nothing twice.
    """

    def __init__(self, *, by_vendor: bool) -> None:
        self._by_vendor = by_vendor
        self._pairs: dict[tuple[str, str], _Pair] = {}
        self._open: list[tuple[str, str]] = []  # pairs without a verdict

    def of(self, ids: Iterable[str]) -> Mapping[str, str]:
        """Zone id → the id of the zone that is counted in its place; `observe` compares these zones from now on."""
        mirrored: dict[str, str] = {}
        self._open = []
        for first, *others in _families(ids):
            for other in others:
                pair = self._pairs.setdefault((first, other), _Pair())
                if self._by_vendor or pair.same or (pair.same is None and pair.alike > 0):
                    mirrored[other] = first
                if not self._by_vendor and pair.same is None:
                    self._open.append((first, other))
        return mirrored

    def observe(self, meters: Sequence[EnergyReading]) -> bool:
        """Compare the counters of one reading; True if `of` returns something else now."""
        if not self._open:
            return False
        changed = False
        by_id = {meter.device.id: meter for meter in meters}
        for first, other in self._open:
            pair = self._pairs[first, other]
            if pair.same is None and first in by_id and other in by_id:
                changed |= _compare(pair, by_id[first], by_id[other])
        return changed


def _compare(pair: _Pair, one: EnergyReading, other: EnergyReading) -> bool:
    values = (one.joules, other.joules)
    began, before = pair.seen == (-1.0, -1.0), (pair.same, pair.alike > 0)
    if min(values) < _TELLING_JOULES or (values == pair.seen and not began):
        return False
    pair.seen = values
    apart = abs(values[0] - values[1])
    if one.wraps_at is not None:
        apart = min(apart, abs(one.wraps_at - apart))
    if apart <= one.device.max_watts * (abs(other.at - one.at) + _UPDATE_SECONDS):
        pair.alike, pair.apart = pair.alike + 1, 0
    else:
        pair.alike, pair.apart = 0, pair.apart + 1
    if pair.alike >= _SAME_READINGS:
        pair.same = True
    elif pair.apart >= _DIFFERENT_READINGS:
        pair.same = False
    return (pair.same, pair.alike > 0) != before


def _families(ids: Iterable[str]) -> list[list[str]]:
    """Ids of each package's zones of one kind, where there are several; in the order of their dies."""
    families: defaultdict[tuple[str, str], list[str]] = defaultdict(list)
    for id_ in ids:
        if found := _SHARED.fullmatch(id_):
            families[found[1], found[2]].append(id_)
    return [sorted(family, key=_order) for family in families.values() if len(family) > 1]


def _order(id_: str) -> tuple[bool, list[int]]:
    return "@" in id_, [int(number) for number in re.findall(r"\d+", id_)]
