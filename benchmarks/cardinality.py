"""How many series a node of a given shape exposes, by family: counted in what the exporter's own renderer writes.

``python -m benchmarks.cardinality [--containers 220] [--gpus 8] ... [--nodes 10000]``. Every count of the shape is an
option; docs/scale.md has the tables of `SHAPES`, which a test compares.
"""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields, replace

from exporter.exposition.metrics.collector import Instruments, exporter_registry
from exporter.exposition.metrics.render import Renderer
from exporter.impact.values import Factors
from exporter.records import (
    REASONS,
    Allocation,
    Component,
    Device,
    GpuState,
    Mode,
    Model,
    ProcessOwner,
    SourceHealth,
    UnattributedReason,
    Workload,
)
from exporter.snapshot import (
    AccountRow,
    CardRow,
    DeviceRow,
    ExporterState,
    GpuView,
    ImpactView,
    NodeEnergy,
    NodeRow,
    Snapshot,
)

from .table import show


@dataclass(frozen=True, slots=True)
class Shape:
    """What is on a node. Containers, processes and models ``on_gpus`` are some of all of them."""

    containers: int = 220
    containers_on_gpus: int = 8
    processes: int = 75
    processes_on_gpus: int = 8
    models: int = 8
    gpus: int = 8
    sockets: int = 2
    sources: int = 8
    carbon: bool = False
    price: bool = False


SHAPES: Mapping[str, Shape] = {
    "GPU node": Shape(containers=60, processes=60),
    "GPU node, g and cost": Shape(containers=60, processes=60, carbon=True, price=True),
    "full GPU node": Shape(),
    "full GPU node, no processes": Shape(processes=8),
    "CPU node": Shape(containers_on_gpus=0, processes_on_gpus=0, models=0, gpus=0),
}
"""The nodes of docs/scale.md: 30 and 110 pods of two containers each."""

GROUPS: Mapping[str, tuple[str, ...]] = {
    "containers": ("energy_container_",),
    "processes": ("energy_process_",),
    "models": ("energy_model_",),
    "GPUs": ("energy_gpu_",),
    "devices": ("energy_device_", "energy_power_source_info", "energy_meter_"),
    "node, sources, exporter": ("",),
}
"""Rows of the table → how the names of their families begin; the first that fits."""

_SOCKET: tuple[tuple[Component, str], ...] = (("cpu", "package"), ("dram", "dram"))
_BOTH: tuple[Mode, ...] = ("active", "idle")
_REASONS: tuple[UnattributedReason, ...] = ("idle", "kernel", "exited", "gap", "unknown")
_THROTTLING = ("sw_power_cap", "hw_slowdown", "sw_thermal_slowdown", "hw_thermal_slowdown", "hw_power_brake")


def snapshot(shape: Shape) -> Snapshot:
    """What a node of this shape publishes once everything on it is known and has been used."""
    cards = [f"GPU-{number:032x}" for number in range(shape.gpus)]
    components: tuple[Component, ...] = ("cpu", "dram", "gpu") if cards else ("cpu", "dram")
    energy = NodeEnergy(
        devices=tuple(_devices(shape, cards)),
        nodes=tuple(NodeRow(component, 1.0, 1.0) for component in [*components, "other"]),
        containers=tuple(_containers(shape)),
        processes=tuple(_processes(shape)),
        models=tuple(_models(shape)),
        container_models={serial: Model(f"org/model-{serial}") for serial in range(shape.containers_on_gpus)},
        unattributed=tuple((component, reason, 1.0) for component in components for reason in _REASONS),
        retired=tuple((component, 1.0) for component in components),
        unnamed=tuple((component, 0.0) for component in components),
        container_cards=tuple(
            CardRow(_workload(number), cards[number % len(cards)], mode, 1.0)
            for number in range(shape.containers_on_gpus)
            for mode in _BOTH
        ),
    )
    return Snapshot(
        sequence=1,
        taken_at=1.7e9,
        monotonic_at=1.0,
        interval_seconds=1.0,
        energy=energy,
        gpu=GpuView(
            states=tuple(_card(str(number), card) for number, card in enumerate(cards)),
            allocations=tuple(
                Allocation(cards[number % len(cards)], "team", f"pod-{number}", "main", gpu=str(number % len(cards)))
                for number in range(shape.containers_on_gpus)
            ),
            indexes={card: str(number) for number, card in enumerate(cards)},
        ),
        impact=_impact(shape),
        exporter=ExporterState(
            sources=tuple(_source(f"source-{number}") for number in range(shape.sources)),
            samples=1,
            series_dropped=(("container", 0), ("process", 0)),
        ),
    )


def _devices(shape: Shape, cards: list[str]) -> Iterator[DeviceRow]:
    for number in range(shape.sockets):
        for component, name in _SOCKET:
            yield _device(Device(f"{name}-{number}", component, "rapl", "measured", name, 64.0))
    for card in cards:
        yield _of_card(_device(Device(card, "gpu", "nvml", "measured", "H100", 1.0)))


def _device(device: Device) -> DeviceRow:
    return DeviceRow(device, 1.0, 1.0, 1.0, "learned", 0.5, None, None, 0, 0, stuck=False, up=True, last_read=1.7e9)


def _of_card(row: DeviceRow) -> DeviceRow:
    """The same of a card, which has an energy counter and a power gauge."""
    return row._replace(agreement_ratio=1.0)


def _card(index: str, uuid: str) -> GpuState:
    return GpuState(
        uuid,
        index,
        gpu_model="NVIDIA H100 80GB HBM3",
        driver_version="570",
        pci_bus_id=index,
        power_limit_watts=700.0,
        memory_used_bytes=1e9,
        memory_total_bytes=8e10,
        temperature_celsius=50.0,
        utilization_ratio=0.5,
        sm_active_ratio=0.5,
        tensor_active_ratio=0.5,
        dram_active_ratio=0.5,
        clock_hertz=(("sm", 1e9), ("memory", 1e9)),
        throttle_seconds=tuple((reason, 0.0) for reason in _THROTTLING),
        ecc_errors=(("corrected", 0.0), ("uncorrected", 0.0)),
        memory_repair=(("pending", 0.0), ("failed", 0.0)),
        xid_errors=0.0,
    )


def _workload(number: int) -> Workload:
    pod = f"pod-{number}"
    return Workload("team", pod, "main", "kubernetes", f"{number:064x}", f"uid-{number}", "app:1", "Deployment", pod)


def _account(serial: int, owner: Workload | ProcessOwner | Model, *, gpu: bool) -> AccountRow:
    cells: list[tuple[Component, Mode]] = [("cpu", "active"), ("dram", "active")]
    cells += [("gpu", mode) for mode in _BOTH] if gpu else []
    components: tuple[Component, ...] = ("cpu", "dram", "gpu") if gpu else ("cpu", "dram")
    busy: tuple[Component, ...] = ("cpu", "gpu") if gpu else ("cpu",)
    ones = (1.0,) * len(cells)
    return AccountRow(serial, owner, tuple(cells), ones, components, ones[: len(components)], busy, ones[: len(busy)])


def _containers(shape: Shape) -> Iterator[AccountRow]:
    for number in range(shape.containers):
        yield _account(number, _workload(number), gpu=number < shape.containers_on_gpus)


def _processes(shape: Shape) -> Iterator[AccountRow]:
    for number in range(shape.processes):
        owner = ProcessOwner(1000 + number, "python3", "team", f"pod-{number}", "main")
        yield _account(1_000_000 + number, owner, gpu=number < shape.processes_on_gpus)


def _models(shape: Shape) -> Iterator[AccountRow]:
    for number in range(shape.models):
        yield _account(2_000_000 + number, Model(f"org/model-{number}", "team", "inference"), gpu=shape.gpus > 0)


def _impact(shape: Shape) -> ImpactView | None:
    if not (shape.carbon or shape.price):
        return None
    factors = Factors(
        intensity=400.0 if shape.carbon else None,
        price=0.2 if shape.price else None,
        currency="EUR" if shape.price else "",
        zone="DE",
    )
    unattributed = dict.fromkeys(_REASONS, ImpactView().node)
    return ImpactView(factors, factors.rates, unattributed=unattributed)


def _source(name: str) -> SourceHealth:
    return SourceHealth(name, True, None, "", "", dict.fromkeys(REASONS, 0), 1.7e9, 1.0)


def series(shape: Shape) -> Counter[str]:
    """Series of each family, and of what the exporter says of itself, as they are scraped."""
    instruments = Instruments()
    instruments.state_last_write_timestamp_seconds.set(1.7e9)
    text = Renderer(exporter_registry(instruments)).body(snapshot(shape)).decode()
    return Counter(line.partition(" ")[0].partition("{")[0] for line in text.splitlines() if line[:1] not in ("", "#"))


def by_group(families: Mapping[str, int]) -> dict[str, int]:
    """The same by the rows of `GROUPS`."""
    found = dict.fromkeys(GROUPS, 0)
    for name, count in families.items():
        found[next(row for row, starts in GROUPS.items() if name.startswith(starts))] += count
    return found


def rows(nodes: int) -> Iterator[tuple[str, ...]]:
    """The table of docs/scale.md: one row for each shape."""
    for name, shape in SHAPES.items():
        found = by_group(series(shape))
        total = sum(found.values())
        yield (name, *(f"{count:,}" for count in found.values()), f"{total:,}", f"{total * nodes / 1e6:.1f} million")


def main() -> int:
    """Print the table, or the families of one shape."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.cardinality", description=__doc__)
    for field in fields(Shape):
        kind = {"action": "store_true"} if isinstance(field.default, bool) else {"type": int}
        parser.add_argument(f"--{field.name.replace('_', '-')}", default=None, **kind)
    parser.add_argument("--nodes", type=int, default=10_000)
    options = parser.parse_args()
    chosen = {field.name: value for field in fields(Shape) if (value := getattr(options, field.name)) is not None}
    if chosen:
        shape = replace(Shape(), **chosen)
        found = series(shape)
        show(str(shape), ("family", "series"), [(name, f"{count:,}") for name, count in sorted(found.items())])
        print(f"a node: {sum(found.values()):,}; {options.nodes:,} nodes: {sum(found.values()) * options.nodes:,}")
    else:
        head = ("node", *GROUPS, "all", f"{options.nodes:,} nodes")
        show("Series of a node", head, rows(options.nodes))
    return 0


if __name__ == "__main__":
    sys.exit(main())
