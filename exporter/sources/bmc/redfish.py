"""Reads the meters of a BMC by Redfish."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from ...records import Device, EnergyReading, PowerReading, Problem, Unavailable
from ..nvml.cross_check import Agreement
from .meters import COARSE_JOULES, Value, values
from .reader import Found
from .session import RedfishSession
from .survey import Survey, survey
from .values import MAX_WATTS, Counter

_SURVEY_SECONDS = 3600.0
"""How often to look for meters that came with a new supply or firmware."""

_INCOMPLETE_SECONDS = 300.0
"""How soon again, where not everything could be read."""

_PART_READS = 6
"""What is only shown, and has resources of its own, is read once in so many reads."""

_MAX_PARTS = 64
_MISSING_READS = 6
_FROZEN_READS = 30
_FINE_JOULES = 100.0
"""A counter of shorter steps needs no patience."""


class RedfishReader:
    """The node's meter of one BMC and what the BMC shows beside it; ``period_seconds`` is the time between two reads.

    Which meter is the node's is decided when everything is read, at first and once an hour, and then kept: a value that
    is null once is a missing value and no reason to count by another meter.
    """

    name = "redfish"

    def __init__(
        self, session: RedfishSession, clock: Callable[[], float], period_seconds: float, system_id: str = ""
    ) -> None:
        self._session = session
        self._clock = clock
        self._period = period_seconds
        self._system_id = system_id
        self._found: Survey | None = None
        self._node: Value | None = None
        self._survey_at = 0.0
        self._reads = 0
        self._missing = 0
        self._unread: list[Problem] = []
        self._parts: frozenset[str] = frozenset()
        self._read_at: dict[str, float] = {}
        self._counters: dict[str, tuple[Counter, float]] = {}  # as last read, and the joules before its last reset
        self._steps: dict[str, float] = {}
        self._still: dict[str, tuple[float, int]] = {}  # joules of a counter, and how many reads it has stood still
        self._frozen: set[str] = set()
        self._agreements: dict[str, Agreement] = {}

    def read(self) -> Found:
        """Read the node's meter, and from time to time the others. Raises `Unavailable`."""
        if self._found is None or self._clock() >= self._survey_at:
            self._survey_at = self._clock() + _SURVEY_SECONDS
            found = self._survey()
            read = set(found.resources)
        else:
            found = self._found
            self._reads += 1
            wanted = set(self._node.paths if self._node else ())
            read = self._reread(found, sorted(wanted))
            if self._reads % _PART_READS == 0:
                others = {found.environment, found.power, *found.supplies, *found.gpus.values()} - {"", *wanted}
                self._unread = []
                read |= self._reread(found, sorted(others), optional=True)
        every = [self._moving(value) for value in values(found)]
        node = self._node_of(every)
        if node is None and self._node is None and self._unread:
            self._found = None
            raise Unavailable(*self._unread[0])
        meters = [self._meter(node, node)] if node else []
        parts = {value.id: value for value in every if value.scope == "part" and read.issuperset(value.paths)}
        if self._reads == 0:
            self._parts = frozenset(list(parts)[:_MAX_PARTS])
        meters += [self._meter(value, node) for id_, value in parts.items() if id_ in self._parts]
        problems = [*self._unread, *([self._nothing()] if node is None else [])]
        if self._frozen:
            what = f"{self._session.url}: {', '.join(sorted(self._frozen))}: its energy stands still while it has power"
            problems.append(Problem("driver", what, "its power is integrated instead; restart the BMC, or update it"))
        broken = sorted(id_ for id_, agreement in self._agreements.items() if agreement.is_broken)
        if broken:
            what = (
                f"{self._session.url}: {', '.join(broken)}: energy and power contradict each other by more than twice"
            )
            problems.append(Problem("implausible", what, "compare energy_device_agreement_ratio; update the BMC"))
        return Found(tuple(meters), tuple(problems))

    def close(self) -> None:
        """End the session."""
        self._session.log_out()

    def interrupt(self) -> None:
        """End the current request; called from another thread."""
        self._session.interrupt()

    def _get(self, path: str) -> dict[str, object]:
        resource = self._session.get(path)
        self._read_at[path] = self._clock()
        return dict(resource)

    def _survey(self) -> Survey:
        """Read everything. If that fails, what was found before is used until the next time."""
        try:
            found = survey(self._get, self._system_id)
        except Unavailable:
            before = self._found
            if before is None:
                self._survey_at = 0.0
                raise
            self._reads += 1
            read = self._reread(before, sorted(self._node.paths if self._node else ()))
            return replace(before, resources={path: before.resources[path] for path in read})
        if found.unread:
            self._survey_at = self._clock() + _INCOMPLETE_SECONDS
        self._reads, self._unread = 0, list(found.unread)
        self._found, self._node = found, None
        return found

    def _reread(self, found: Survey, paths: list[str], *, optional: bool = False) -> set[str]:
        """Read resources again. If one is gone, everything is read the next time; an ``optional`` one may fail."""
        read = set()
        for path in paths:
            before = found.resources.get(path, {})
            try:
                found.resources[path] = {**self._get(path), **{k: v for k, v in before.items() if k == "_supply"}}
            except Unavailable as error:
                if error.reason == "not_found":
                    self._found = None
                elif optional:
                    self._unread.append(Problem(error.reason, error.message, error.fix))
                    if error.reason == "timeout":  # the others may take as long
                        break
                    continue
                raise
            read.add(path)
        return read

    def _node_of(self, every: list[Value]) -> Value | None:
        """The value of the meter that was chosen, or the choice."""
        if self._node is None:
            self._node = next((value for value in every if value.scope != "part"), None)
            node = self._node
        else:
            kept = self._node
            node = next((v for v in every if v.id == kept.id and (v.counter is None) == (kept.counter is None)), None)
        if node is not None:
            self._missing = 0
            return node
        self._missing += 1
        if self._node is not None and self._node.counter is not None and self._node.id in self._frozen:
            self._node = None  # chosen again, without the counter
            return self._node_of(every)
        if self._missing >= _MISSING_READS:
            self._missing, self._found = 0, None
        return None

    def _moving(self, value: Value) -> Value:
        """A value without its counter, if that stands still although the gauge beside it shows power."""
        counted, power = value.counter, value.watts
        if counted is None or not power:
            return value
        joules, reads = self._still.get(value.id, (-1.0, 0))
        reads = reads + 1 if counted.joules == joules else 0
        self._still[value.id] = counted.joules, reads
        if reads == 0:
            self._frozen.discard(value.id)
        elif reads >= _FROZEN_READS and reads * self._period * power > 10 * counted.step_joules:
            self._frozen.add(value.id)
        return value._replace(counter=None) if value.id in self._frozen else value

    def _nothing(self) -> Problem:
        if self._node is not None:
            return Problem("implausible", f"{self._session.url}: no value of {self._node.name} this time")
        return Problem(
            "not_found",
            f"{self._session.url}: no energy and no power of the whole machine in Chassis, PowerSubsystem or Power",
            "some BMCs need a licence for power readings (iDRAC Enterprise, iLO Advanced), or the machine switched on",
        )

    def _meter(self, value: Value, node: Value | None) -> EnergyReading | PowerReading:
        now = max((self._read_at.get(path, 0.0) for path in value.paths), default=0.0) or self._clock()
        often = node is not None and set(value.paths) <= set(node.paths)
        step = self._step(value)
        device = Device(
            id=value.id,
            component="platform",
            source="bmc",
            quality="measured",
            name=value.name,
            capacity=0.0,
            within=node.id if value.scope == "part" and node is not None else None,
            max_watts=MAX_WATTS,
            method="power_integrated" if value.counter is None else "energy_counter",
            scope=value.scope,
            period_seconds=self._period if often else self._period * _PART_READS,
            step_joules=step,
        )
        if value.counter is None:
            return PowerReading(device, now, value.watts or 0.0)
        joules, ratio = self._total(value.id, value.counter), None
        if value.watts is not None:
            agreement = self._agreements.setdefault(value.id, Agreement(3.5 * device.period_seconds))
            agreement.feed(now, joules, value.watts, MAX_WATTS)
            ratio = agreement.ratio
        return EnergyReading(device, now, joules, None, value.watts, ratio)

    def _step(self, value: Value) -> float:
        """The counter's resolution: the finest that was seen, because a value may end in zeros."""
        if value.counter is None:
            return 0.0
        finest = min(self._steps.get(value.id, COARSE_JOULES * 100), value.counter.step_joules)
        self._steps[value.id] = finest
        return finest if finest > _FINE_JOULES else 0.0

    def _total(self, id_: str, read: Counter) -> float:
        """Joules across resets of the counter that the BMC reports (``SensorResetTime``)."""
        before, passed = self._counters.get(id_, (read, 0.0))
        if read.reset_time != before.reset_time and read.joules < before.joules:
            passed += before.joules
        self._counters[id_] = read, passed
        return passed + read.joules
