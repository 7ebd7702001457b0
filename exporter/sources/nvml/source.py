"""Energy, state and users of NVIDIA cards, through NVML.

Lost cards, swapped indexes and added cards are faults 22, 31 and 32 of docs/faults.md.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

from ...host import Host, list_dir
from ...records import EnergyReading, GpuState, GpuUse, PowerReading, Problem, Reading, Unavailable
from ..usage.pid_lookup import PidResolver
from .card import Card
from .driver import Driver
from .holders import Holders
from .library import DriverError
from .runtime_pm import RuntimePm

RESCAN_SECONDS = 60.0
"""How often to look for cards that were added, removed or got another index."""

_QUERY_BUDGET_SECONDS = 0.1
"""Once the queries of holders took that long in one read, those of the other cards wait for the next read."""

_HIDDEN = Problem(
    "not_found",
    "processes that the driver reports are not in /proc: their pids belong to another pid namespace",
    "run in the host's pid namespace (hostPID: true, docker run --pid=host), with --path.procfs at the host's /proc",
)

_NO_METER = (
    "the driver reports neither its energy nor its power",
    "the guest of a virtual GPU has no access to them: measure on the host that has the card",
)

_ALWAYS_SUPPORTED = ("memory_total_bytes", "temperature_celsius", "utilization_ratio")


class _Gpu:
    """A card and its holders."""

    def __init__(self, card: Card, holders: Holders) -> None:
        self.card = card
        self.holders = holders

    @property
    def name(self) -> str:
        """Its name in messages."""
        return f"GPU {self.card.index} ({self.card.uuid})"

    def release(self) -> None:
        """Free what belongs to a session with the driver."""
        self.card.detach()
        self.holders.attach()

    def rest(self) -> None:
        """Free it once when it is suspended."""
        if self.card.read_at is not None:
            self.release()


class _Tick:
    """What one read finds; ``responded``: some card reported a value; ``query_seconds``: time spent on holders."""

    def __init__(self) -> None:
        self.meters: list[EnergyReading | PowerReading] = []
        self.uses: list[GpuUse] = []
        self.states: list[GpuState] = []
        self.problems: list[Problem] = []
        self.asleep: list[str] = []
        self.responded = False
        self.query_seconds = 0.0


class NvmlSource:
    """Reads every NVIDIA card; a card that fails is reported as a problem and does not affect the others.

    A card is identified by its UUID, so that swapped indexes change nothing. ``bindings`` stands for the pynvml module.
    A call into the driver may hang or crash: the exporter runs this source in a child process, through `NvmlProcess`.
    A suspended card is not queried, and no session is opened while all cards are suspended, because that would wake
    them. An active card stays active as long as it is read.
    """

    name = "nvml"

    def __init__(self, host: Host, bindings: Any = None) -> None:
        self._host = host
        self._driver = Driver(bindings)
        self._resolver = PidResolver(host)
        self._runtime_pm = RuntimePm(host)
        self._addresses: set[str] = set()
        self._asleep: set[str] = set()
        self._known: dict[str, _Gpu] = {}
        self._gpus: list[_Gpu] = []
        self._count = 0
        self._driven = 0
        self._unreachable: list[Problem] = []
        self._is_open = False
        self._scan_at = -math.inf

    def read(self, now: float) -> Reading:
        """Read all cards. Raises `Unavailable` when there is none that can be read."""
        if now >= self._scan_at or not self._is_open:
            self._addresses = self._runtime_pm.pci_addresses()
        addresses = self._addresses | {gpu.card.bus_id for gpu in self._gpus}
        asleep = self._runtime_pm.suspended(addresses)
        if addresses and asleep == addresses:
            return self._all_asleep(asleep)
        try:
            if not self._is_open:
                self._open()
            woken, self._asleep = self._asleep - asleep, asleep
            if now >= self._scan_at or woken or self._driver.count() != self._count:
                self._scan(now)
            tick = self._read(now)
        except Unavailable:
            self.close()
            raise
        if tick.problems and not (tick.responded or tick.asleep):
            # No card reports a value, as in a container that lost its devices: only a new session can help.
            self.close()
            raise Unavailable(*tick.problems[0])
        return Reading(
            meters=tuple(tick.meters),
            gpu_uses=tuple(tick.uses),
            gpus=tuple(tick.states),
            problems=tuple(tick.problems),
            asleep=(*tick.asleep, *sorted(asleep - {gpu.card.bus_id for gpu in self._gpus})),
        )

    def counter_joules(self, uuid: str) -> float | None:
        """The energy counter of a card between two reads; None if it has none, or is not to be read now.

        Raises `DriverError`.
        """
        gpu = self._known.get(uuid) if self._is_open else None
        if gpu is None or gpu.card.read_at is None or gpu.card.lost is not None or gpu.card.bus_id in self._asleep:
            return None
        return gpu.card.counter_joules()

    def _all_asleep(self, asleep: set[str]) -> Reading:
        self._asleep = asleep
        known = [gpu for gpu in self._known.values() if gpu.card.bus_id in asleep]
        for gpu in known:
            gpu.rest()
        names = {gpu.card.bus_id: gpu.card.uuid for gpu in known}
        return Reading(asleep=tuple(names.get(address, address) for address in sorted(asleep)))

    def close(self) -> None:
        """End the session with the driver; the next read opens another."""
        for gpu in self._known.values():
            gpu.release()
        self._driver.close()
        self._is_open = False
        self._gpus = []

    # --- finding cards ------------------------------------------------------------------------------

    def _open(self) -> None:
        self._driver.open()
        self._is_open = True
        self._scan_at = -math.inf

    def _scan(self, now: float) -> None:
        """Find all cards again. Raises `Unavailable` when there is none."""
        if self._host_has_more_cards():
            # The library lists only the cards that it found when it was initialised.
            self.close()
            self._open()
        driver = self._driver
        self._scan_at = now + RESCAN_SECONDS
        self._count = driver.count()
        version = driver.version()
        self._unreachable = []
        self._gpus = [gpu for gpu in self._known.values() if gpu.card.bus_id in self._asleep]
        for name, find in self._handle_getters():
            try:
                handle = find()
                self._gpus.append(self._gpu(driver.uuid(handle), handle, driver.index(handle), version))
            except DriverError as error:
                if error.kind == "down":
                    raise
                if error.kind != "nothing" or not self._asleep:
                    self._unreachable.append(_problem(name, error))
        if not self._count:
            raise Unavailable("not_found", "the NVIDIA driver sees no GPU", "check nvidia-smi -L and dmesg")
        self._resolver.expire(now)

    def _handle_getters(self) -> list[tuple[str, Callable[[], Any]]]:
        """A name and a getter of the handle of each active card: by index, or by address if any card is suspended.

        Getting a handle by index would wake a suspended card.
        """
        if not self._asleep:
            return [(f"GPU {index}", partial(self._driver.handle, index)) for index in range(self._count)]
        active = sorted(self._addresses - self._asleep)  # sysfs may show cards that this container has not
        return [(f"GPU at {address}", partial(self._driver.handle_by_bus_id, address)) for address in active]

    def _gpu(self, uuid: str, handle: Any, index: int, version: str) -> _Gpu:
        gpu = self._known.get(uuid)
        if gpu is None:
            card = Card(self._driver, self._host, uuid, handle, index, version)
            gpu = self._known[uuid] = _Gpu(card, Holders(self._driver, self._resolver, self._host))
        else:
            gpu.card.attach(handle, index, version)
        return gpu

    def _host_has_more_cards(self) -> bool:
        """Whether the kernel module has more cards than at the last scan, and more than the library lists.

        A container may always see fewer of them: then a new session would list the same.
        """
        try:
            driven = len(list_dir(self._host.proc("driver/nvidia/gpus")))
        except Unavailable:
            return False
        before, self._driven = self._driven, driven
        return 0 < self._count < driven and before < driven

    # --- reading them -------------------------------------------------------------------------------

    def _read(self, now: float) -> _Tick:
        tick = _Tick()
        tick.problems += self._unreachable
        for gpu in self._gpus:
            if gpu.card.lost is not None:
                tick.problems.append(_problem(gpu.name, gpu.card.lost))
                continue
            if gpu.card.bus_id in self._asleep:
                tick.asleep.append(gpu.card.uuid)
                gpu.rest()
                continue
            try:
                self._read_gpu(gpu, now, tick)
            except DriverError as error:
                if error.kind == "down":
                    raise
                if error.kind == "lost":
                    gpu.card.lost = error
                    gpu.release()
                tick.problems.append(_problem(gpu.name, error))
        if any(gpu.holders.hidden for gpu in self._gpus):
            tick.problems.append(_HIDDEN)
        return tick

    def _read_gpu(self, gpu: _Gpu, now: float, tick: _Tick) -> None:
        """Read the meter and directly after it the users, so that both cover the same time."""
        card, holders = gpu.card, gpu.holders
        try:
            reading = card.meter(now)
            if reading is not None:
                tick.meters.append(reading)
            if card.data_problem is not None:
                tick.problems.append(_problem(gpu.name, card.data_problem))
        except DriverError as error:
            if error.kind in ("lost", "down"):
                raise
            tick.responded = tick.responded or error.kind == "unsupported"
            known = DriverError("unsupported", "not_found", *_NO_METER) if error.kind == "unsupported" else error
            tick.problems.append(_problem(gpu.name, known))
        began = self._host.clock()
        holders.refresh(card, now, may_defer=tick.query_seconds > _QUERY_BUDGET_SECONDS)
        tick.query_seconds += self._host.clock() - began
        card.read_health(now)
        state, parts = card.state(mig=holders.mig.is_on), holders.mig.states(card)
        tick.responded = tick.responded or any(getattr(state, value) is not None for value in _ALWAYS_SUPPORTED)
        permission_errors = (holders.permission_error, holders.mig.permission_error, card.permission_error)
        tick.problems += [
            _problem(gpu.name, permission_error)
            for permission_error in permission_errors
            if permission_error is not None
        ]
        uses = holders.uses(card, now, card.window_seconds, busy=bool(state.utilization_ratio))
        if holders.use_problem is not None:
            tick.problems.append(_problem(gpu.name, holders.use_problem))
        if holders.mig.is_on and holders.has_lists and not uses:
            state = replace(state, utilization_ratio=0.0)  # not reported under MIG, but no process holds it
        tick.uses += uses
        tick.states += [state, *parts]


def _problem(name: str, error: DriverError | Problem) -> Problem:
    return Problem(error.reason, f"{name}: {error.message}", error.fix)
