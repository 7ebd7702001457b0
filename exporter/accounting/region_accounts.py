"""Accounts of regions: seconds, runs and units as programs report them, and the joules of their processes divided."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from math import inf

from ..records import Component, GroupKey, Process, ProcessKey
from ..records.regions import OUTSIDE_REGIONS, ProcessRegions
from ..snapshot import RegionRow, RegionView, RegionWattsRow
from .region_parts import KEPT_SECONDS, CardGrowth, RegionPart
from .region_times import RegionTimes
from .regions import HOLD_SECONDS, RegionWatts, divide

MAX_REGIONS = 200
"""Regions of one model; those of further names count for `OTHER`."""

OTHER = "other"

Owner = tuple[str, str]
"""Name and namespace of the model of a process; the name is empty where it has none."""

Kind = str
"""What a counter counts: a component's name for joules, ``seconds``, ``gpu_seconds``, ``runs``, or ``units/UNIT``."""

Cell = tuple[str, Owner, Kind]
"""What one counter counts: region, owner and kind."""

Locate = Callable[[Process, GroupKey | None], Owner | None]
"""The owner of a process; None while its container has no name."""

Joules = Callable[[ProcessKey], Mapping[Component, float] | None]
"""All joules of a process so far by component, None if it has no account."""

_CPU_ERROR_RATIO = 0.15
"""Half the width of an interval, relative, up to which watts per CPU second are better than the same for all."""

_CONTIGUOUS_SECONDS = 1e-4
MAX_LEARNED = 32
"""Programs whose watts are learned at the same time: each costs up to 2 MiB and some milliseconds a tick. Joules of
further ones are divided by time."""

IN_USE_SECONDS = 10.0
"""How long after its last time in a region a program counts as being in regions."""


class _Program:
    """One process that reports regions. It is kept for a while after its end, until its owner is known."""

    def __init__(self, process: Process, group: GroupKey | None, *, learned: bool) -> None:
        self.learned = learned
        self.process = process
        self.group = group
        self.times = RegionTimes()
        self.cpu_times = RegionTimes()  # the same, of which regions only the time in which they computed
        self.seconds: dict[str, float] = {}
        self.cpu_seconds: dict[str, float] = {}
        self.parts: dict[Component, RegionPart] = {}
        self.owner: Owner | None = None
        self.pending: dict[tuple[str, Kind], float] = {}  # until its owner is known
        self.in_region_at = -inf
        self.ended = False
        self.ended_at: float | None = None

    def power(self, region: str, component: Component, watts: RegionWatts) -> RegionWatts:
        """Watts while the region is open, of watts while it computes."""
        seconds = self.seconds.get(region, 0.0)
        if component == "gpu" or seconds <= 0.0:
            return watts
        ratio = self.cpu_seconds.get(region, 0.0) / seconds
        return watts._replace(watts=ratio * watts.watts, low=ratio * watts.low, high=ratio * watts.high)


@dataclass(slots=True)
class SavedRegions:
    """The counters as the checkpoint keeps them."""

    cells: dict[Cell, float] = field(default_factory=dict)


@dataclass(slots=True)
class _Count:
    """A counter, which is published at 0 until every regular scraper has seen snapshot ``born``."""

    total: float = 0.0
    born: int | None = None


class RegionAccounts:
    """Counters of regions by model. Joules of regions are part of those of the process, never added to them.

    The joules of an interval are divided once the program has reported all of it; in the first minute they wait until
    watts are known.
    """

    def __init__(self) -> None:
        self._programs: dict[ProcessKey, _Program] = {}
        self._counts: dict[Cell, _Count] = {}
        self._names: dict[Owner, set[str]] = {}
        self._used_at: dict[Owner, float] = {}
        self._unborn: set[Cell] = set()
        self._rejected: Mapping[str, int] = {}
        self._lost = 0
        self._saved = True

    @property
    def active(self) -> bool:
        """Whether a program reports regions: then meters are best read at irregular times."""
        return bool(self._programs)

    def in_use(self, now: float) -> list[ProcessKey]:
        """The processes that were in a region of late."""
        return [
            key
            for key, program in self._programs.items()
            if not program.ended and now - program.in_region_at < IN_USE_SECONDS
        ]

    # --- posting ------------------------------------------------------------------------------------

    def report(self, rejected: Mapping[str, int], lost: int) -> None:
        """Note the messages that were ignored by reason, and the runs that were lost, since the start."""
        self._rejected, self._lost = rejected, lost

    def post(
        self,
        processes: Sequence[ProcessRegions],
        read_at: Mapping[Component, float],
        joules: Joules,
        locate: Locate,
        now: float,
        born: int | None,
        cards: Mapping[ProcessKey, CardGrowth] | None = None,
    ) -> None:
        """Add what programs reported, and divide the joules of the intervals that they have reported completely.

        ``read_at`` is when the meters of a component were read in this tick. New counters are published at 0 until
        snapshot ``born`` was scraped, None if no scraper needs that. ``cards`` are
        those whose counters were read more often, by the process that uses one and no other.
        """
        for reported in processes:
            self._add(reported, locate, now, born)
        for key, program in list(self._programs.items()):
            if program.owner is None:
                program.owner = locate(program.process, program.group)
            self._observe(key, program, read_at, joules, (cards or {}).get(key), born)
            if program.owner is not None:
                self._used_at[program.owner] = now
            if program.ended and not any(part.waiting for part in program.parts.values()):
                self._end(program, now, born)

    def release(self, scraped: int | None) -> None:
        """Publish what was at 0 in ``scraped``, the newest snapshot that every regular scraper has received."""
        for cell in list(self._unborn):
            count = self._counts[cell]
            if scraped is None or (count.born is not None and scraped >= count.born):
                count.born = None
                self._unborn.discard(cell)

    def settle(self) -> None:
        """Divide the joules that wait, before the end; what waits for the name of a container is of no model."""
        for program in self._programs.values():
            self._post_rest(program, None)

    def keep(self, since: float) -> None:
        """Drop the counters of models of which no program reported regions since boot time ``since``."""
        for model in [model for model, at in self._used_at.items() if at < since]:
            del self._used_at[model]
            self._names.pop(model, None)
            for cell in [cell for cell in self._counts if cell[1] == model]:
                del self._counts[cell]
                self._unborn.discard(cell)
                self._saved = False

    def _add(self, reported: ProcessRegions, locate: Locate, now: float, born: int | None) -> None:
        program = self._programs.get(reported.process.key)
        if program is None:
            learned = sum([each.learned for each in self._programs.values()]) < MAX_LEARNED
            program = _Program(reported.process, reported.group, learned=learned)
            self._programs[reported.process.key] = program
        program.owner = locate(reported.process, reported.group) or program.owner
        program.ended = reported.ended
        for start, pieces, ratios in reported.spans:
            until = program.times.until
            if until is None or abs(start - until) > _CONTIGUOUS_SECONDS:
                program.times.start(start)
                program.cpu_times.start(start)
            for seconds, times in pieces:
                program.times.add(seconds, times)
                busy = [(region, taken * ratios.get(region, 1.0)) for region, taken in times]
                program.cpu_times.add(seconds, busy)
                for (region, taken), (_, computed) in zip(times, busy, strict=True):
                    if region != OUTSIDE_REGIONS:
                        program.in_region_at = now
                    program.seconds[region] = program.seconds.get(region, 0.0) + taken
                    program.cpu_seconds[region] = program.cpu_seconds.get(region, 0.0) + computed
        for use in reported.uses:
            self._count(program, use.region, "seconds", use.seconds, born)
            self._count(program, use.region, "runs", use.count, born)
            if use.gpu_seconds is not None:
                self._count(program, use.region, "gpu_seconds", use.gpu_seconds, born)
            for unit, amount in use.units.items():
                self._count(program, use.region, f"units/{unit}", amount, born)

    def _observe(
        self,
        key: ProcessKey,
        program: _Program,
        read_at: Mapping[Component, float],
        joules: Joules,
        card: CardGrowth | None,
        born: int | None,
    ) -> None:
        totals = joules(key)
        for component, total in (totals or {}).items():
            at = read_at.get(component)
            if at is None:
                continue
            part = program.parts.get(component)
            if part is None:
                part = program.parts[component] = RegionPart(component, learns=program.learned)
            part.read(at, total, card if component == "gpu" else None)
        for component, part in program.parts.items():
            self._divide(program, component, part, born)
        ends = [part.waiting[0].start for part in program.parts.values() if part.waiting]
        oldest = min(ends, default=program.times.until or 0.0)
        for times in (program.times, program.cpu_times):
            times.forget(oldest - (KEPT_SECONDS if program.learned else 0.0))

    def _divide(self, program: _Program, component: Component, part: RegionPart, born: int | None) -> None:
        """Divide the intervals of which all is known; what was before the first region is outside of all."""
        times = program.times if component == "gpu" else program.cpu_times
        while part.waiting:
            end = part.waiting[0].end
            if not part.hold(times, ended=program.ended):
                return
            watts = part.estimator.watts
            known = watts and all(
                name in watts and watts[name].method != "not_identifiable" for _, found in part.held for name in found
            )
            if known or not part.learns or (part.held_since is not None and end - part.held_since >= HOLD_SECONDS):
                self._divide_held(program, component, part, born)

    def _divide_held(self, program: _Program, component: Component, part: RegionPart, born: int | None) -> None:
        watts = part.estimator.watts
        if component != "gpu" and not all(found.known_to(_CPU_ERROR_RATIO) for found in watts.values()):
            watts = {}  # by CPU time alone, as joules are divided among processes
        for joules, times in part.held:
            for region, share in divide(joules, times, watts).items():
                if region != OUTSIDE_REGIONS and share:
                    self._count(program, region, component, share, born)
        part.held = []

    def _end(self, program: _Program, now: float, born: int | None) -> None:
        """Post what is left of a program, once its container has a name, or `HOLD_SECONDS` after its end."""
        program.ended_at = now if program.ended_at is None else program.ended_at
        if program.owner is None and now - program.ended_at < HOLD_SECONDS:
            return
        self._used_at[self._post_rest(program, born)] = now
        del self._programs[program.process.key]

    def _post_rest(self, program: _Program, born: int | None) -> Owner:
        """Post what waits for watts or for a name; without one it is of no model."""
        program.owner = program.owner or ("", "")
        for component, part in program.parts.items():
            self._divide_held(program, component, part, born)
        self._post_pending(program, born)
        return program.owner

    def _count(self, program: _Program, region: str, kind: Kind, amount: float, born: int | None) -> None:
        if program.owner is None:
            program.pending[region, kind] = program.pending.get((region, kind), 0.0) + amount
            return
        self._post_pending(program, born)
        names = self._names.setdefault(program.owner, set())
        if region not in names and len(names) >= MAX_REGIONS:
            region = OTHER
        names.add(region)
        cell = (region, program.owner, kind)
        count = self._counts.get(cell)
        if count is None:
            count = self._counts[cell] = _Count(born=born)
            if born is not None:
                self._unborn.add(cell)
        count.total += amount
        self._saved = False

    def _post_pending(self, program: _Program, born: int | None) -> None:
        """Count what waited for the owner of the program."""
        pending, program.pending = program.pending, {}
        for (region, kind), amount in pending.items():
            self._count(program, region, kind, amount, born)

    # --- reading ------------------------------------------------------------------------------------

    def view(self) -> RegionView:
        """What is published."""
        rows = [
            RegionRow(region, model, kind, count.total if count.born is None else 0.0)
            for (region, model, kind), count in self._counts.items()
        ]
        return RegionView(tuple(rows), self._watts(), dict(self._rejected), self._lost, len(self._programs))

    def _watts(self) -> tuple[RegionWattsRow, ...]:
        """Watts of regions; of several processes of a model those of the one that has observed most."""
        best: dict[tuple[str, Owner, Component], tuple[float, RegionWatts]] = {}
        for program in self._programs.values():
            for component, part in program.parts.items():
                weight = part.estimator.weight
                for region, watts in part.estimator.watts.items():
                    if region == OUTSIDE_REGIONS or program.owner is None:
                        continue
                    known = best.get((region, program.owner, component))
                    if known is None or weight > known[0]:
                        best[region, program.owner, component] = (weight, program.power(region, component, watts))
        return tuple(
            [
                RegionWattsRow(region, model, component, watts.watts, watts.low, watts.high, watts.method)
                for (region, model, component), (_, watts) in best.items()
            ]
        )

    def saved(self, *, whole: bool) -> SavedRegions | None:
        """All counters for the checkpoint; for a line of the journal (not ``whole``) None if none changed."""
        if self._saved and not whole:
            return None
        self._saved = True
        return SavedRegions({cell: count.total for cell, count in self._counts.items()})

    def restore(self, saved: SavedRegions, now: float) -> None:
        """Continue the counters of an earlier run."""
        for cell, total in saved.cells.items():
            self._counts[cell] = _Count(total)
            self._names.setdefault(cell[1], set()).add(cell[0])
            self._used_at[cell[1]] = now
