"""Energy, state and users of Intel Gaudi cards, through libhlml."""

from __future__ import annotations

import math
import re

from ...host import Host
from ...records import EnergyReading, GpuState, GpuUse, PowerReading, Problem, Reading, Unavailable
from ..drm.files import OpenFiles
from ..nvml.driver import ENERGY_MILLIJOULES, POWER_INSTANT_MILLIWATTS, Fields
from ..nvml.library import DriverError
from ..nvml.meter import CardMeter
from ..usage.pid_lookup import PidResolver, ProcessIdentity
from .hlml import Hlml

RESCAN_SECONDS = 60.0
"""How often to look for cards that were added or removed."""

_DEVICES = ("/dev/accel/accel", "/dev/hl")
_NODE = re.compile(r"/dev/(?:accel/accel|hl)(\d+)")
"""A card's own node, not its control node (``accel_controlD0``), which tools open. Kernels before 6.6 have /dev/hlN."""

_THROTTLE = {1: "sw_power_cap", 2: "sw_thermal_slowdown"}
"""Bits of hlml's reasons (HLML_CLOCKS_THROTTLE_REASON_POWER, _THERMAL), as those of other cards are called."""

_DENIED = Problem(
    "permission",
    "the cards that some processes have open are hidden from this user",
    "add CAP_SYS_PTRACE and CAP_DAC_READ_SEARCH, as for AMD's cards: docs/amd-intel.md",
)


class _Card:
    """One card, identified by its UUID."""

    def __init__(self, hlml: Hlml, uuid: str, model: str) -> None:
        self.uuid = uuid
        self.model = model
        self.handle: object = None
        self.index = ""
        self.bus_id = ""
        self.minor: int | None = None
        self.lost: DriverError | None = None
        self.read_at: float | None = None
        self.window_seconds = 0.0
        self.throttled = dict.fromkeys(_THROTTLE.values(), 0.0)
        self.meter = CardMeter(hlml, uuid, model or "Intel Gaudi", "gaudi")


class GaudiSource:
    """Reads every Gaudi card: its counter (mJ since the driver was loaded), or where it has none its power.

    The driver lets one process at a time open a card for work. So the process that has its node open is charged; of
    several, which are its children that inherited it, the one that started first. libhlml lists no processes.
    """

    name = "gaudi"

    def __init__(self, host: Host, hlml: Hlml | None = None) -> None:
        self._host = host
        self._hlml = hlml or Hlml()
        self._files = OpenFiles(host, _node_of)
        self._resolver = PidResolver(host, _DEVICES)
        self._known: dict[str, _Card] = {}
        self._cards: list[_Card] = []
        self._unreachable: list[Problem] = []
        self._version = ""
        self._is_open = False
        self._scan_at = -math.inf

    def read(self, now: float) -> Reading:
        """Read all cards. Raises `Unavailable` when there is none that can be read."""
        try:
            if not self._is_open:
                self._hlml.open()
                self._is_open, self._scan_at = True, -math.inf
            if now >= self._scan_at:
                self._scan(now)
            return self._read(now)
        except Unavailable:
            self.close()
            raise

    def close(self) -> None:
        """End the session with the driver; the next read opens another."""
        self._hlml.close()
        self._is_open = False
        for card in self._known.values():
            card.read_at = None
            card.meter.detach()

    def _scan(self, now: float) -> None:
        count = self._hlml.count()
        if not count:
            raise Unavailable("not_found", "the driver sees no Gaudi card", "check hl-smi and dmesg")
        self._version = self._hlml.version()
        self._cards, self._unreachable = [], []
        for index in range(count):
            try:
                handle = self._hlml.handle(index)
                uuid = self._hlml.uuid(handle)
                card = self._known.get(uuid)
                if card is None:
                    card = self._known[uuid] = _Card(self._hlml, uuid, self._hlml.model(handle))
                card.handle, card.index, card.lost = handle, str(index), None
                card.bus_id = self._hlml.bus_id(handle)
                card.minor = self._hlml.optional(lambda handle=handle: self._hlml.minor(handle))
                self._cards.append(card)
            except DriverError as error:
                if error.kind == "down":
                    raise
                self._unreachable.append(_problem(f"card {index}", error))
        self._resolver.expire(now)
        self._scan_at = now + RESCAN_SECONDS

    def _read(self, now: float) -> Reading:
        self._files.refresh(now)
        meters: list[EnergyReading | PowerReading] = []
        states: list[GpuState] = []
        uses: list[GpuUse] = []
        problems = list(self._unreachable)
        for card in self._cards:
            name = f"card {card.index} ({card.uuid})"
            try:
                if card.lost is not None:
                    raise card.lost
                meter = self._meter(card)
                state = self._state(card)
                if meter is not None:
                    meters.append(meter)
                if card.meter.data_problem is not None:
                    problems.append(_problem(name, card.meter.data_problem))
            except DriverError as error:
                if error.kind == "down":
                    raise
                if error.kind == "lost":
                    card.lost = error
                problems.append(_problem(name, error))
                continue
            states.append(state)
            uses += self._uses(card, state, now)
        if problems and not states:
            raise Unavailable(*problems[0])
        if self._files.denied:
            problems.append(_DENIED)
        return Reading(meters=tuple(meters), gpus=tuple(states), gpu_uses=tuple(uses), problems=tuple(problems))

    def _meter(self, card: _Card) -> EnergyReading | PowerReading | None:
        """Its meter, and its window. Raises `DriverError`."""
        hlml, handle = self._hlml, card.handle
        limit = hlml.optional(lambda: hlml.limit_watts(handle))
        if limit:
            card.meter.limit(limit)
        joules = hlml.optional(lambda: hlml.energy_joules(handle))
        watts = hlml.optional(lambda: hlml.power_watts(handle))
        at = self._host.clock()
        card.window_seconds = 0.0 if card.read_at is None else at - card.read_at
        card.read_at = at
        values = {ENERGY_MILLIJOULES: joules, POWER_INSTANT_MILLIWATTS: watts}
        fields = Fields({field: value * 1000 for field, value in values.items() if value is not None}, {})
        return card.meter.read(handle, fields, at)

    def _state(self, card: _Card) -> GpuState:
        hlml, handle = self._hlml, card.handle
        bits = hlml.optional(lambda: hlml.throttle_bits(handle))
        for bit, reason in _THROTTLE.items() if bits is not None else ():
            card.throttled[reason] += card.window_seconds if bits & bit else 0.0
        used, total = hlml.optional(lambda: hlml.memory_bytes(handle)) or (None, None)
        return GpuState(
            card.uuid,
            card.index,
            gpu_model=card.model,
            driver_version=self._version,
            pci_bus_id=card.bus_id,
            power_limit_watts=hlml.optional(lambda: hlml.limit_watts(handle)),
            memory_used_bytes=used,
            memory_total_bytes=total,
            temperature_celsius=hlml.optional(lambda: hlml.temperature_celsius(handle)),
            utilization_ratio=hlml.optional(lambda: hlml.utilization_ratio(handle)),
            throttle_seconds=() if bits is None else tuple(card.throttled.items()),
            window_seconds=card.window_seconds,
        )

    def _uses(self, card: _Card, state: GpuState, now: float) -> list[GpuUse]:
        """Use by the process that opened the card."""
        if card.minor is None:
            return []
        node = str(card.minor)
        pids = [pid for pid, nodes in self._files.opened.items() if node in nodes.values()]
        found = [identity for pid in pids if (identity := self._resolver.find(pid, now)) is not None]
        if not found:
            return []
        first: ProcessIdentity = min(found, key=lambda each: each.process.key.start_ticks)
        ratio = state.utilization_ratio
        seconds = 0.0 if ratio is None else ratio * card.window_seconds
        return [GpuUse(card.uuid, first.group, first.process, seconds, reported=ratio is not None)]


def _node_of(target: str) -> str | None:
    found = _NODE.fullmatch(target)
    return None if found is None else found[1]


def _problem(name: str, error: DriverError | Problem) -> Problem:
    return Problem(error.reason, f"{name}: {error.message}", error.fix)
