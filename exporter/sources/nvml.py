"""Energy, state and users of NVIDIA cards, through NVML."""

from __future__ import annotations

import math
from typing import Any

from ..host import Host, list_dir
from ..records import EnergyReading, GpuState, GpuUse, PowerReading, Problem, Reading, Unavailable
from .nvml_card import Card
from .nvml_driver import Driver, DriverError
from .nvml_holders import Holders
from .nvml_identity import Identity

LOOK_AGAIN_SECONDS = 60.0
"""How often to look for cards that came, went or changed places."""

_HIDDEN = Problem(
    "not_found",
    "processes that the driver names are not in /proc: their pids belong to another pid namespace",
    "run in the host's pid namespace (hostPID: true, docker run --pid=host), with --path.procfs at the host's /proc",
)


class _Gpu:
    """A card and who holds it."""

    def __init__(self, card: Card, holders: Holders) -> None:
        self.card = card
        self.holders = holders
        self.read_at: float | None = None

    def release(self) -> None:
        """Let go of what belongs to a session with the driver; the next read starts a new window."""
        self.card.detach()
        self.holders.attach()
        self.read_at = None


class _Tick:
    """What one read finds."""

    def __init__(self) -> None:
        self.meters: list[EnergyReading | PowerReading] = []
        self.uses: list[GpuUse] = []
        self.states: list[GpuState] = []
        self.problems: list[Problem] = []
        self.asleep = False


class NvmlSource:
    """Reads every NVIDIA card; one that fails is a problem of its own and the others go on (fault 22).

    A card is known by its UUID, so that swapped indexes change nothing (fault 31). ``bindings`` stands for
    the pynvml module. A call into the driver may hang: this source has a thread of its own for that (fault 23).
    """

    name = "nvml"

    def __init__(self, host: Host, bindings: Any = None) -> None:
        self._host = host
        self._driver = Driver(bindings)
        self._identity = Identity(host)
        self._known: dict[str, _Gpu] = {}
        self._gpus: list[_Gpu] = []
        self._count = 0
        self._driven = 0
        self._unreachable: list[Problem] = []
        self._is_open = False
        self._look_at = -math.inf

    def read(self, now: float) -> Reading:
        """Read all cards. Raises `Unavailable` when there is none that can be read."""
        try:
            if not self._is_open:
                self._open()
            if now >= self._look_at or self._driver.count() != self._count:
                self._look(now)
            tick = self._read(now)
        except Unavailable:
            self.close()
            raise
        if tick.problems and not tick.meters and not tick.asleep:
            # Every card fails, as in a container that lost its devices: only a new session can help.
            self.close()
            raise Unavailable(*tick.problems[0])
        return Reading(
            meters=tuple(tick.meters),
            gpu_uses=tuple(tick.uses),
            gpus=tuple(tick.states),
            problems=tuple(tick.problems),
        )

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
        self._look_at = -math.inf

    def _look(self, now: float) -> None:
        """Find all cards again. Raises `Unavailable` when there is none."""
        if self._host_has_more():
            # The library knows the cards it found when it was initialised (fault 32).
            self.close()
            self._open()
        driver = self._driver
        self._look_at = now + LOOK_AGAIN_SECONDS
        self._count = driver.count()
        version = driver.version()
        self._unreachable, self._gpus = [], []
        for index in range(self._count):
            try:
                handle = driver.handle(index)
                self._gpus.append(self._gpu(driver.uuid(handle), handle, index, version))
            except DriverError as error:
                if error.kind == "down":
                    raise
                self._unreachable.append(_problem(f"GPU {index}", error))
        if not self._count:
            raise Unavailable("not_found", "the NVIDIA driver sees no GPU", "check nvidia-smi -L and dmesg")
        self._identity.tidy(now)

    def _gpu(self, uuid: str, handle: Any, index: int, version: str) -> _Gpu:
        gpu = self._known.get(uuid)
        if gpu is None:
            card = Card(self._driver, self._host, uuid, handle, index, version)
            gpu = self._known[uuid] = _Gpu(card, Holders(self._driver, self._identity, self._host))
        else:
            gpu.card.attach(handle, index, version)
        return gpu

    def _host_has_more(self) -> bool:
        """Whether the kernel module drives more cards than at the last look, and than the library knows.

        A container may see fewer of them for good: then a new session would tell the same.
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
            name = f"GPU {gpu.card.index} ({gpu.card.uuid})"
            if gpu.card.lost is not None:
                tick.problems.append(_problem(name, gpu.card.lost))
                continue
            if gpu.card.asleep():
                tick.asleep = True
                if gpu.read_at is not None:
                    gpu.release()
                continue
            try:
                self._read_gpu(gpu, now, tick)
            except DriverError as error:
                if error.kind == "down":
                    raise
                if error.kind == "lost":
                    gpu.card.lost = error
                    gpu.release()
                tick.problems.append(_problem(name, error))
        if any(gpu.holders.hidden for gpu in self._gpus):
            tick.problems.append(_HIDDEN)
        return tick

    def _read_gpu(self, gpu: _Gpu, now: float, tick: _Tick) -> None:
        """Meter first, users at once after it, so that both cover the same time."""
        card, holders = gpu.card, gpu.holders
        window = 0.0 if gpu.read_at is None else now - gpu.read_at
        gpu.read_at = now
        failure = None
        try:
            tick.meters.append(card.meter(now, window))
        except DriverError as error:
            if error.kind in ("lost", "down"):
                raise
            failure = error
        holders.look(card, now)
        states = [card.state(mig=bool(holders.mig.instances)), *holders.mig.states(card)]
        tick.uses += holders.uses(card, now, window)
        tick.states += states
        if failure is not None:
            raise failure


def _problem(name: str, error: DriverError) -> Problem:
    return Problem(error.reason, f"{name}: {error.message}", error.fix)
