"""Samples the machine while a command runs, and adds up what the command owes."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from ..host import Host
from ..impact.values import NO_IMPACT, UNKNOWN_RATES, Factors, Impact
from ..records import Component, Mode, SourceHealth, Unavailable
from ..sampling.sampler import Sampler
from ..snapshot import AccountRow, DeviceRow, Snapshot
from .consumption import WORKLOAD, Consumption, Focused, Method, gpu_seconds
from .launcher import Ending, Link
from .local_exporter import LocalExporter, Page

Cells = Mapping[tuple[Component, Mode], float]

_BY_CPU_TIME: tuple[Component, ...] = ("cpu", "dram")

_SETTLE_SECONDS = 0.1
"""Time from the end of the command to the last reading: counters of joules step up to so much later."""

_PACE_RATIO = 0.9
"""After that part of the exporter's interval its next sample is the one that this tick has come early for."""

_PEAK_WINDOW = 0.5
"""Shortest part of an interval whose mean power counts as a peak: meters step by milliseconds."""


@dataclass(frozen=True, slots=True)
class Result:
    """What a command used. ``joules`` are its own by component and mode, ``machine_joules`` those of the machine.

    A component without a meter is in neither. ``gpu_seconds`` is None where a driver does not report them, and where
    there is no GPU. ``impact`` is at ``factors``, None if neither intensity nor price is known. ``living`` is how many
    of its processes still ran at the end. ``sources`` is the state of every source that was read.
    ``undivided`` is why the CPU's joules cannot be divided, "" if they can.
    """

    ending: Ending
    cpu_seconds: float
    gpu_seconds: float | None
    method: Method
    living: int
    joules: Cells = field(default_factory=dict)
    machine_joules: Mapping[Component, float] = field(default_factory=dict)
    peak_watts: float | None = None
    impact: Impact | None = None
    factors: Factors = field(default_factory=Factors)
    devices: Sequence[DeviceRow] = ()
    sources: Sequence[SourceHealth] = ()
    undivided: str = ""

    @property
    def duration_seconds(self) -> float:
        """How long the command ran."""
        return self.ending.ended_at - self.ending.started_at

    def of(self, component: Component) -> float | None:
        """Joules of a component, None if it was not measured."""
        found = [joules for (one, _), joules in self.joules.items() if one == component]
        return sum(found) if found else None

    @property
    def total_joules(self) -> float | None:
        """All joules of the command, None if nothing was measured."""
        return sum(self.joules.values()) if self.joules else None

    @property
    def mean_watts(self) -> float | None:
        """Joules by duration."""
        total = self.total_joules
        return None if total is None or self.duration_seconds <= 0 else total / self.duration_seconds

    @property
    def idle_ratio(self) -> float | None:
        """Idle joules by all joules of the command, such as those of a GPU that it held without using it."""
        total = self.total_joules
        return None if not total else sum(j for (_, mode), j in self.joules.items() if mode == "idle") / total

    def measured_components(self) -> set[Component]:
        """Components whose joules come from a meter."""
        return {row.device.component for row in self.devices if row.device.quality == "measured"}


class Measurement:
    """Ticks of a sampler whose sources are `Focused`, from before a command is executed until after its end.

    With ``exporter``, ticks follow its samples: its joules and this machine's use then cover the same time. With
    ``pace``, a page of the exporter of this machine, ticks come when its samples do, so that both divide the joules of
    the same intervals, all but those in which the command begins and ends.
    """

    def __init__(
        self,
        sampler: Sampler,
        sources: Sequence[Focused],
        consumption: Consumption,
        host: Host,
        exporter: LocalExporter | None = None,
        pace: Page | None = None,
    ) -> None:
        self._pace = pace
        self._sampler = sampler
        self._sources = sources
        self._consumption = consumption
        self._host = host
        self._exporter = exporter
        self._last: Snapshot | None = None
        self._peak: float | None = None
        self._health: dict[str, SourceHealth] = {}

    def run(self, link: Link) -> Result:
        """Measure until the command ends. Raises `Abandoned` if it never starts."""
        self._follow()
        first = self._tick()
        base = self._consumption.read()
        link.ready()
        ending = None
        while ending is None:
            ending = link.wait(self._seconds_to_wait())
            if ending is None:
                self._follow()
                self._tick()
        self._consumption.ended(ending.seconds)
        time.sleep(max(0.0, ending.ended_at + _SETTLE_SECONDS - self._host.clock()))
        ended_at = self._host.wall() - (self._host.clock() - ending.ended_at)
        while self._exporter is not None and self._exporter.page is not None:
            if self._exporter.page.sampled_at >= ended_at or not self._follow():
                break
        last = self._tick()
        return self._result(ending, first, last, self._consumption.read() - base)

    def _seconds_to_wait(self) -> float:
        """Until the next tick; the exporter's next sample is waited for by `_follow`, and not for longer than that."""
        if self._exporter is None or self._exporter.page is None:
            interval = self._sampler.options.interval_seconds
            if self._pace is None or self._pace.interval_seconds != interval:
                return interval
            passed = (self._host.wall() - self._pace.sampled_at) % interval
            return interval - passed + (interval if passed > _PACE_RATIO * interval else 0.0)
        page = self._exporter.page
        return max(0.0, page.sampled_at + page.interval_seconds - self._host.wall())

    def _follow(self) -> bool:
        if self._exporter is None:
            return False
        try:
            self._exporter.follow()
        except Unavailable as error:
            self._health["exporter"] = SourceHealth(
                "exporter", up=False, reason=error.reason, message=error.message, fix=error.fix, failures={},
                last_success=0.0, read_seconds=0.0,
            )  # fmt: skip
            self._exporter = None
            return False
        return True

    def _tick(self) -> Snapshot:
        snapshot = self._sampler.tick()
        for health in snapshot.exporter.sources:
            self._health.setdefault(health.name, health)
            if not health.up:
                self._health[health.name] = health
        before, self._last = self._last, snapshot
        if before is not None:
            seconds = snapshot.monotonic_at - before.monotonic_at
            if seconds >= _PEAK_WINDOW * self._sampler.options.interval_seconds:
                used = sum(_joules(snapshot).values()) - sum(_joules(before).values())
                self._peak = max(self._peak or 0.0, used / seconds)
        return snapshot

    def _result(self, ending: Ending, first: Snapshot, last: Snapshot, cpu_seconds: float) -> Result:
        devices = last.energy.devices
        undivided = next((source.undivided for source in self._sources if source.undivided), "")
        if not any(row.device.component == "cpu" and row.device.quality == "measured" for row in devices):
            undivided = ""  # an estimate is of the CPUs that are visible here
        counted = _joules(last)
        if undivided:
            counted = {cell: joules for cell, joules in counted.items() if cell[0] not in _BY_CPU_TIME}
        joules = self._complete(counted, cpu_seconds)
        before = {node.component: node.joules for node in first.energy.nodes}
        has_gpu = any(row.device.component == "gpu" for row in devices)
        result = Result(
            ending,
            cpu_seconds,
            gpu_seconds(self._sources) if has_gpu else None,
            self._consumption.method,
            self._consumption.living,
            joules,
            {node.component: node.joules - before.get(node.component, 0.0) for node in last.energy.nodes},
            self._peak,
            _impact(last, sum(joules.values())),
            Factors() if last.impact is None else last.impact.factors,
            devices,
            tuple(self._health.values()),
            undivided,
        )
        if self._peak is None or (result.mean_watts or 0.0) > self._peak:
            return replace(result, peak_watts=result.mean_watts)
        return result

    def _complete(self, joules: Cells, cpu_seconds: float) -> Cells:
        """CPU time that was known only after the last reading costs as much as the rest."""
        charged = sum(source.charged_seconds for source in self._sources)
        scale = max(1.0, cpu_seconds / charged) if charged > 0 else 1.0
        return {cell: amount * scale if cell[0] in _BY_CPU_TIME else amount for cell, amount in joules.items()}


def _impact(snapshot: Snapshot, joules: float) -> Impact | None:
    """Grams and money of so many joules of the run, at the rates of the time in which they were counted."""
    row, view = _row(snapshot), snapshot.impact
    if row is None or view is None or view.rates == UNKNOWN_RATES:
        return None
    impact = NO_IMPACT
    for part in row.impacts(view.rates).values():
        impact = impact.plus(part)
    counted = sum(row.joules)
    return impact.times(joules / counted) if counted > 0 else impact


def _row(snapshot: Snapshot) -> AccountRow | None:
    return next((row for row in snapshot.energy.containers if row.owner == WORKLOAD), None)


def _joules(snapshot: Snapshot) -> Cells:
    row = _row(snapshot)
    return {} if row is None else dict(zip(row.cells, row.joules, strict=True))
