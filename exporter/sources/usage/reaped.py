"""CPU time of exited children that no read has seen, by the process that waited for them (proc(5), ``cutime``).

The kernel adds the CPU time of a child, and of those that the child waited for, to the process that waits for it. What
a child used while it was followed is its own, so it is taken off: from the nearest process above it that is followed,
because that is who waits for it, or for the one that does. Over time a process is therefore never attributed more than
its descendants used unseen, apart from rounding to scheduler ticks.

An init process waits for orphans that others started: its children say nothing about itself. A process that has made
itself a subreaper (prctl(2)) cannot be recognised; orphans that were seen may count twice there.
"""

from __future__ import annotations

import os

from ...host import Host, read_file
from ...records import ProcessUse, Unavailable
from .process_clock import ProcessTable, Tracked, parse_family, parse_stat

_LONGEST_LINE = 100
"""Exited processes between one and the nearest followed one above it; more are a mistake about a reused pid."""


class ReapedChildren:
    """The followed processes that have waited for children which were not seen: ``due``, by group."""

    def __init__(self, host: Host, table: ProcessTable) -> None:
        self._host = host
        self._table = table
        self._hertz = os.sysconf("SC_CLK_TCK")
        self._inits: dict[Tracked, bool] = {}
        self.due: dict[object, dict[Tracked, None]] = {}

    def place(self, tracked: Tracked) -> None:
        """Find the process above a new one while it lives; all that are new in a tick are to be followed before."""
        self._above(tracked)

    def read(self, tracked: Tracked) -> None:
        """Read what the children used for which a process has waited by now.

        The exits of followed processes are to be reported before the next `take`.
        """
        key = tracked.process.key
        try:
            raw = read_file(self._host.proc(str(key.pid), "stat"), 1024)
            if parse_stat(raw, self._hertz)[0].key != key:
                return
        except Unavailable:
            return
        seconds = parse_family(raw, self._hertz)[1]
        tracked.unseen_seconds += seconds - tracked.children_seconds
        tracked.children_seconds = seconds
        if tracked.unseen_seconds > 0 and tracked.group is not None and not self._is_init(tracked):
            self.due.setdefault(tracked.group, {})[tracked] = None

    def exit(self, tracked: Tracked) -> None:
        """A process exited: what was known of it and of its children is not attributed again to the one above it."""
        self._inits.pop(tracked, None)
        above = self._above(tracked)
        if above is not None:
            rounding = 0.0 if tracked.clock_id else 2 / self._hertz
            known = tracked.seconds + rounding + tracked.children_seconds
            above.unseen_seconds += min(0.0, tracked.unseen_seconds) - known

    def move(self, tracked: Tracked) -> None:
        """A process is in another group from now on, whose counter does not contain what its children used so far."""
        self.read(tracked)
        tracked.unseen_seconds = min(0.0, tracked.unseen_seconds)

    def take(self, group: object, seconds: float) -> tuple[ProcessUse, ...]:
        """Attribute up to ``seconds`` to those of a group that waited for unseen children; the rest is for later."""
        due = self.due.pop(group, None)
        if due is None:
            return ()
        owed = [tracked for tracked in due if tracked.group is group and tracked.unseen_seconds > 0]
        total = sum([tracked.unseen_seconds for tracked in owed])
        if total > seconds:
            self.due[group] = dict.fromkeys(owed)
        if seconds <= 0 or not owed:
            return ()
        share = min(1.0, seconds / total)
        taken = [ProcessUse(tracked.process, tracked.unseen_seconds * share) for tracked in owed]
        for tracked, (_, used) in zip(owed, taken, strict=True):
            tracked.unseen_seconds -= used
        return tuple(taken)

    def forget(self, group: object) -> None:
        """A group no longer exists."""
        self.due.pop(group, None)

    def _above(self, tracked: Tracked) -> Tracked | None:
        """The nearest process above it that is followed and has not exited."""
        above = tracked.parent
        for _ in range(_LONGEST_LINE):
            if isinstance(above, int):
                found = self._table.find(above)
                if found is None or found.process.key.start_ticks > tracked.process.key.start_ticks:
                    return None
                above = found
            if self._table.find(above.process.key.pid) is above:
                tracked.parent = above
                return above
            above = above.parent
        return None

    def _is_init(self, tracked: Tracked) -> bool:
        """Whether it is the first process of its pid namespace, or that cannot be read."""
        known = self._inits.get(tracked)
        if known is None:
            try:
                status = self._host.text(self._host.proc(str(tracked.process.key.pid), "status"))
            except Unavailable:
                return True
            numbers = next((line.split()[1:] for line in status.splitlines() if line.startswith("NSpid:")), ["1"])
            known = self._inits[tracked] = numbers[-1:] == ["1"]
        return known
