"""Threads of one process in several groups: threaded groups of v2, and groups of v1 that list the same process.

libvirt puts each virtual CPU into a group of its own; databases and JVMs do the same with their pools. The clock of a
process contains all its threads, the counter of a group only those in it: such groups are read as one.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Collection

from ...records import GroupKey, GroupUse, Listing, Process, ProcessUse
from .cgroup_members import Members
from .cgroup_tree import Group, Walk


def elsewhere_seconds(cpus: int) -> float:
    """CPU time of a group's processes that its counter lacks, above which it is looked for below the group.

    A counter lags behind by up to one scheduler tick (10 ms) for each of ``cpus`` that runs.
    """
    return 0.5 + 0.01 * cpus


def find_shared(tick: Walk, members: Members, elsewhere: float) -> dict[Group, list[Group]]:
    """The groups to join, by parent, of what one walk found; ``elsewhere`` is as `elsewhere_seconds`.

    Children of the root are never joined: the root would hide their names.
    """
    found: defaultdict[Group, list[Group]] = defaultdict(list)
    for group, other in tick.shared:
        if other is group.parent:
            _add(found, other, group)
        elif group is other.parent:
            _add(found, group, other)
        elif group.parent is other.parent and group.parent is not None:
            _add(found, group.parent, group)
            _add(found, group.parent, other)
    for parent in {group.parent for group in tick.empty if group.parent is not None}:
        tick.clocks[parent.key] = uses = members.read_clocks(parent)
        parent.elsewhere += sum([use.seconds for use in uses])
        if parent.elsewhere > elsewhere:
            # Groups without a process run, and processes above them used time that is not in their own group.
            parent.elsewhere = 0.0
            for child in tick.empty:
                if child.parent is parent:
                    _add(found, parent, child)
    return found


def _add(found: defaultdict[Group, list[Group]], parent: Group, child: Group) -> None:
    name = child.key.path.rpartition("/")[2]
    if parent.parent is not None and parent.children.get(name) is child and child not in found[parent]:
        found[parent].append(child)


def merge_uses(parent: GroupKey, children: Collection[GroupKey], tick: Walk) -> None:
    """Make one use of those of a group and of the children that were joined to it."""
    seconds, by_process = 0.0, Counter[Process]()
    listings: set[Listing] = set()
    others: list[GroupUse] = []
    for group in tick.groups:
        if group.group == parent or group.group in children:
            seconds += group.seconds
            by_process.update(dict(group.processes))
            listings.add(group.listing)
        else:
            others.append(group)
    if seconds > 0:
        by_process.update(dict(tick.clocks.get(parent, ())))
        scale = min(1.0, seconds / (sum(by_process.values()) or 1.0))
        uses = tuple([ProcessUse(process, used * scale) for process, used in by_process.items()])
        tick.groups = [*others, GroupUse(parent, seconds, uses, "complete" if listings == {"complete"} else "partial")]
