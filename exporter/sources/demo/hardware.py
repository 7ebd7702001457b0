"""The simulated node's hardware: a table of two 32-core sockets and eight H100, and their joule counters.

Every active joule is watts per busy second × busy seconds.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from random import Random
from typing import NamedTuple

from ...records import Component, Device, EnergyReading

SOCKETS = 2
SOCKET_CORES = 32.0
PACKAGE_IDLE_WATTS = 85.0
PACKAGE_WATTS_PER_CORE = 8.0
DRAM_IDLE_WATTS = 12.0
DRAM_WATTS_PER_CORE = 0.7
OTHER_WATTS = 190.0
"""Fans, drives, network cards: measured only by the platform meter, like the loss in the power supply."""
SUPPLY_LOSS_RATIO = 0.05

PACKAGE_WRAPS_AT = 262143.328850
DRAM_WRAPS_AT = 65712.999613


class Instance(NamedTuple):
    """A MIG instance; ``fraction`` of the card's compute slices."""

    id: str
    profile: str
    fraction: float
    memory_bytes: float


@dataclass(frozen=True, slots=True)
class Card:
    """A GPU; it cools down to ``inlet_celsius``, and draws exactly ``limit_watts`` when always busy."""

    index: str
    uuid: str
    pci_bus_id: str
    idle_watts: float
    inlet_celsius: float
    limit_watts: float = 700.0
    memory_bytes: float = 85.5e9
    instances: tuple[Instance, ...] = ()
    worn: bool = False
    """A row of its memory is bad: it reports errors and Xids, and a repair is pending until the next reset."""


GPU_MODEL = "NVIDIA H100 80GB HBM3"
DRIVER_VERSION = "570.133.20"
RESERVED_BYTES = 0.6e9
"""Memory of a card that the driver reserves."""

CARDS = (
    Card("0", "GPU-5c0a7e1d-3b62-4f0e-9d5c-0f4f1a6e2b10", "00000000:1B:00.0", 72.0, 33.3),
    Card("1", "GPU-8e1f4b37-06a9-4c55-b0d2-6a9c3d7712e4", "00000000:43:00.0", 69.0, 29.0),
    Card(
        "2",
        "GPU-b91d20c6-7f48-4d83-8a1e-52e0c9f4a3d7",
        "00000000:52:00.0",
        71.0,
        30.0,
        instances=(
            Instance("1", "3g.40gb", 3 / 7, 42.4e9),
            Instance("5", "2g.20gb", 2 / 7, 21.2e9),
            Instance("13", "1g.10gb", 1 / 7, 10.6e9),
        ),
    ),
    Card("3", "GPU-e47a6f58-1c90-4ab2-93f7-d8b5e6021c9a", "00000000:61:00.0", 70.0, 29.0),
    Card("4", "GPU-2d6b83f1-95e4-4c07-8b1a-7f30d4a9c5e8", "00000000:9D:00.0", 68.0, 28.5),
    Card("5", "GPU-c3f70a94-4e1d-4b68-a2c9-19e5b7d8036f", "00000000:C3:00.0", 73.0, 31.0),
    Card("6", "GPU-07a9e5d2-8c3b-4f16-9e70-b4d21c6f8a35", "00000000:D1:00.0", 70.0, 30.5),
    Card("7", "GPU-91d4c8b7-2f60-4ea3-b58d-e06a37f1c942", "00000000:DF:00.0", 71.0, 29.5, worn=True),
)

PLATFORM = "psys-0"


class Meter(NamedTuple):
    """A device, its idle power, and where its counter wraps (J)."""

    device: Device
    idle_watts: float
    wraps_at: float | None = None


def meters() -> Iterator[Meter]:
    """Every meter of the node, the platform last."""
    for socket in range(SOCKETS):
        package = _device(f"package-{socket}", "cpu", SOCKET_CORES, 1000.0, socket=socket)
        dram = _device(f"dram-{socket}", "dram", SOCKET_CORES, 300.0, socket=socket)
        yield Meter(package, PACKAGE_IDLE_WATTS, PACKAGE_WRAPS_AT)
        yield Meter(dram, DRAM_IDLE_WATTS, DRAM_WRAPS_AT)
    for card in CARDS:
        yield Meter(_device(card.uuid, "gpu", 1.0, 1.5 * card.limit_watts, name=GPU_MODEL), card.idle_watts)
    cores = SOCKETS * SOCKET_CORES
    yield Meter(_device(PLATFORM, "platform", cores, 9000.0), OTHER_WATTS, PACKAGE_WRAPS_AT)


def _device(
    id_: str, component: Component, capacity: float, max_watts: float, *, name: str = "", socket: int | None = None
) -> Device:
    return Device(
        id_,
        component,
        source="demo",
        quality="simulated",
        name=name or id_,
        capacity=capacity,
        within=None if id_ == PLATFORM else PLATFORM,
        max_watts=max_watts,
        socket=socket,
        method="simulated",
    )


_AGREEMENT_SECONDS = 300.0
"""How often a card's counter is compared with its power gauge, which only graphics cards have."""


class Counters:
    """Cumulative joules of all devices, on a node that has been up for a while."""

    def __init__(self, random: Random) -> None:
        self._meters = tuple(meters())
        self._joules = {
            meter.device.id: random.uniform(0, meter.wraps_at) if meter.wraps_at else random.uniform(1e8, 5e8)
            for meter in self._meters
        }
        self._active = dict.fromkeys(self._joules, 0.0)
        self._random = random
        self._compared_seconds = _AGREEMENT_SECONDS
        self._agreement: dict[str, float] = {}

    def add(self, device: str, joules: float) -> None:
        """Add active joules of a device in the current step."""
        self._active[device] += joules

    def advance(self, seconds: float) -> None:
        """End the step of ``seconds``: add idle energy, sum up the platform, wrap the counters."""
        total = 0.0
        for device, idle_watts, wraps_at in self._meters:
            joules = self._active[device.id] + idle_watts * seconds
            total += joules
            if device.id == PLATFORM:
                joules = total * (1 + SUPPLY_LOSS_RATIO)
            counter = self._joules[device.id] + joules
            self._joules[device.id] = counter % wraps_at if wraps_at else counter
            self._active[device.id] = 0.0
        self._compared_seconds += seconds
        if self._compared_seconds >= _AGREEMENT_SECONDS:
            self._compared_seconds = 0.0
            self._agreement = {card.uuid: self._random.uniform(0.985, 1.015) for card in CARDS}

    def readings(self, at: float) -> tuple[EnergyReading, ...]:
        """All counters."""
        return tuple(
            EnergyReading(device, at, self._joules[device.id], wraps_at, None, self._agreement.get(device.id))
            for device, _, wraps_at in self._meters
        )
