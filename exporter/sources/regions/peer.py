"""What one process has reported and no reading has taken yet, within the limits of a process."""

from __future__ import annotations

from collections.abc import Callable

from ...records import GroupKey, Process
from ...records.regions import OUTSIDE_REGIONS, ProcessRegions, RegionPiece, RegionSpan, RegionUse
from .messages import MAX_UNITS, PROTOCOL_VERSION, Message, Rejected, parse, version_of

MAX_NAMES = 201
"""Regions of one process: as many as the client keeps, and `OTHER`."""

OTHER = "other"

MESSAGES_PER_SECOND = 40.0
BYTES_PER_SECOND = 512 * 1024.0
_BURST_SECONDS = 5.0
"""After a pause, what waited in the client comes at once."""

_FUTURE_SECONDS = 1.0
_PAST_SECONDS = 120.0
_MAX_PIECES = 100_000
_MAX_DEVICE_SPANS = 10_000


class Peer:
    """One connection. ``offset`` is what has to be added to CLOCK_MONOTONIC for seconds since boot."""

    def __init__(
        self, process: Process, group: GroupKey | None, clock: Callable[[], float], offset: Callable[[], float]
    ) -> None:
        self.process = process
        self.group = group
        self.version = PROTOCOL_VERSION
        self.lost = 0
        self._is_new = True
        self._clock = clock
        self._offset = offset
        self._names: dict[int, str] = {0: OUTSIDE_REGIONS}
        self._known: set[str] = set()
        self._until_ns = 0
        self._cpu_ratio: dict[str, float] = {}
        self._budget_at = clock()
        self._messages = MESSAGES_PER_SECOND * _BURST_SECONDS
        self._bytes = BYTES_PER_SECOND * _BURST_SECONDS
        self._forget()

    def _forget(self) -> None:
        self._spans: list[RegionSpan] = []
        self._pieces = 0
        self._seconds: dict[str, float] = {}
        self._runs: dict[str, int] = {}
        self._units: dict[str, dict[str, float]] = {}
        self._device: list[tuple[str, float, float]] = []

    def receive(self, data: bytes) -> None:
        """Take one message. Raises `Rejected`; then nothing of it counts."""
        self._charge(len(data))
        if data[:11] == b'{"version":':
            self.version = version_of(data)
        message = parse(data, self.version)
        offset, now = self._offset(), self._clock()
        start = message.start / 1e9 + offset
        if message.pieces:
            end = start + message.nanoseconds / 1e9
            if end > now + _FUTURE_SECONDS or start < now - _PAST_SECONDS or message.start < self._until_ns:
                raise Rejected("clock")
        for number, name in message.names.items():
            if number and (name in self._known or len(self._known) < MAX_NAMES):
                self._known.add(name)
                self._names[number] = name
        self.lost += message.lost
        self._add_times(message, start)
        for number, runs in message.runs.items():
            name = self._name(number)
            self._runs[name] = self._runs.get(name, 0) + runs
        for number, units in message.units.items():
            counted = self._units.setdefault(self._name(number), {})
            for unit, amount in units.items():
                if unit in counted or len(counted) < MAX_UNITS:
                    counted[unit] = counted.get(unit, 0.0) + amount
        for number, began, length in message.device:
            if len(self._device) < _MAX_DEVICE_SPANS:
                self._device.append((self._name(number), began / 1e9 + offset, length / 1e9))

    def _add_times(self, message: Message, start: float) -> None:
        if not message.pieces or self._pieces + len(message.pieces) > _MAX_PIECES:
            return
        self._pieces += len(message.pieces)
        self._until_ns = message.start + message.nanoseconds
        pieces: list[RegionPiece] = []
        seconds = self._seconds
        if message.cpu:
            known = {self._name(number): ratio for number, ratio in message.cpu.items()}
            self._cpu_ratio = {**self._cpu_ratio, **known}  # a run that has not ended has that of earlier ones
        for length, *pairs in message.pieces:
            times: dict[str, float] = {}
            for number, nanoseconds in zip(pairs[::2], pairs[1::2], strict=True):
                name = self._name(number)
                times[name] = times.get(name, 0.0) + nanoseconds / 1e9
            for name, taken in times.items():
                seconds[name] = seconds.get(name, 0.0) + taken
            pieces.append(RegionPiece(length / 1e9, tuple(times.items())))
        self._spans.append(RegionSpan(start, tuple(pieces), self._cpu_ratio))

    def _name(self, number: int) -> str:
        return self._names.get(number, OTHER)

    def _charge(self, size: int) -> None:
        """Take a message from what this process may send."""
        now = self._clock()
        passed, self._budget_at = now - self._budget_at, now
        self._messages = min(self._messages + passed * MESSAGES_PER_SECOND, MESSAGES_PER_SECOND * _BURST_SECONDS)
        self._bytes = min(self._bytes + passed * BYTES_PER_SECOND, BYTES_PER_SECOND * _BURST_SECONDS)
        if self._messages < 1.0 or self._bytes < size:
            raise Rejected("rate")
        self._messages -= 1.0
        self._bytes -= size

    def take(self, *, ended: bool) -> ProcessRegions | None:
        """Everything since the last call; None if there is nothing to say: the first time there is a process."""
        spans = tuple(self._spans)
        device_seconds: dict[str, float] = {}
        for name, _, length in self._device:
            device_seconds[name] = device_seconds.get(name, 0.0) + length
        names = {**self._seconds, **self._runs, **self._units, **device_seconds}
        uses = tuple(
            [
                RegionUse(
                    self.process,
                    name,
                    self._seconds.get(name, 0.0),
                    device_seconds.get(name),
                    self._runs.get(name, 0),
                    self._units.get(name, {}),
                )
                for name in names
                if name != OUTSIDE_REGIONS
            ]
        )
        device = tuple(self._device)
        self._forget()
        if not (spans or uses or ended or self._is_new):
            return None
        self._is_new = False
        return ProcessRegions(self.process, self.group, uses, spans, device, ended)
