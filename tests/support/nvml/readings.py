"""Parts of a reading of the NVML source, by key."""

from __future__ import annotations

from exporter.records import (
    EnergyReading,
    GpuState,
    GpuUse,
    Reading,
)

COUNTER = 83
POWER_INSTANT = 186

MIG_LAYOUT = ("3g.40gb", "2g.20gb", "1g.10gb")


def by_pid(reading: Reading, device: str | None = None) -> dict[int | None, GpuUse]:
    return {use.pid: use for use in reading.gpu_uses if device in (None, use.device)}


def energy(reading: Reading) -> dict[str, float]:
    return {m.device.id: m.joules for m in reading.meters if isinstance(m, EnergyReading)}


def only_state(reading: Reading) -> GpuState:
    (state,) = reading.gpus
    return state
