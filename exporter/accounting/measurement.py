"""What surrounds one tick's measurement: the usage it is held against, and its result."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field

from ..records import Component, CpuUse, Device, EnergyReading, GpuState, GpuUse, PowerReading
from .attribution import Energy
from .meters import Delta

OTHER = Device("other", "other", "", "measured", "other", 0.0)
"""The platform's meter beyond CPU, DRAM and GPU: fans, disks, losses."""


@dataclass(frozen=True, slots=True)
class Use:
    """Usage in the ``window_seconds`` between two ticks; ``cpu_capacity`` is the number of CPUs of the node.

    A reading that came late covers more than one tick; a source reports GPU usage together with its joules, so both
    cover the same time (`GpuState.window_seconds`). ``asleep`` are devices that are not read because that would wake
    them. ``divisible``: the CPU's busy time is of the machine that its meters measure.
    """

    window_seconds: float
    cpu_capacity: float
    cpu: CpuUse | None = None
    gpu_uses: Sequence[GpuUse] = ()
    gpus: Sequence[GpuState] = ()
    socket_busy_seconds: Mapping[int, float] = field(default_factory=dict)
    asleep: Collection[str] = ()
    divisible: bool = True

    @property
    def unused_gpus(self) -> frozenset[str]:
        """Ids of the GPUs whose use by process is known and 0.

        Of the cards without a holder, those whose source reports both use and state: holders are listed rarely, so a
        card may be held by a process that was started since.
        """
        known = {use.device for use in self.gpu_uses} | self.gpu_windows.keys()
        used = {use.device for use in self.gpu_uses if use.seconds or not use.reported}
        return frozenset(known - used)

    @property
    def gpu_windows(self) -> dict[str, float]:
        """Seconds that ``gpu_uses`` of a card cover, where its source reports them."""
        return {
            gpu.uuid: gpu.window_seconds for gpu in self.gpus if gpu.window_seconds is not None and not gpu.gpu_instance
        }

    @property
    def gpu_window_seconds(self) -> float:
        """Seconds that ``gpu_uses`` cover: the longest window, because all cards are read together."""
        return max(self.gpu_windows.values(), default=0.0) or self.window_seconds


@dataclass(frozen=True, slots=True)
class Measured:
    """What the devices used in one tick.

    ``energies`` are those that may be summed; ``watts`` is the mean power of devices with a trusted delta.
    ``readings`` are the plausible ones, ``asleep`` the devices that were not read.
    """

    deltas: Mapping[str, Delta]
    utilization: Mapping[str, float]
    energies: Sequence[Energy]
    watts: Mapping[str, float]
    readings: Mapping[str, EnergyReading | PowerReading]
    asleep: Collection[str] = ()

    @property
    def metered(self) -> frozenset[Component]:
        """Components that were metered in this tick."""
        return frozenset(
            energy.device.component
            for energy in self.energies
            if energy.device is OTHER or energy.device.id in self.watts
        )
