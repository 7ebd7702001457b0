"""Families of whole GPUs: their own power and energy, and the energy of each container by GPU."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator

from ...snapshot import DeviceRow, Snapshot
from .families import Family, Kind, Sample

CARD_LABELS = ("gpu", "uuid")
"""Labels of a whole GPU, also under MIG: no ``gpu_instance``, so that other families join it many-to-one on uuid."""


def _of_card(name: str, kind: Kind, help_text: str, value: Callable[[DeviceRow], float | None]) -> Family:
    def samples(snapshot: Snapshot) -> Iterator[Sample]:
        indexes = snapshot.gpu.indexes
        for row in snapshot.energy.devices:
            if row.device.component == "gpu" and row.device.id in indexes:
                yield (indexes[row.device.id], row.device.id), value(row)

    return Family(name, kind, help_text, CARD_LABELS, samples)


def _container_cards(snapshot: Snapshot) -> Iterator[Sample]:
    """GPU joules of each container by card; of accounts that differ in their runtime only, the sum."""
    found: defaultdict[tuple[str, ...], float] = defaultdict(float)
    indexes = snapshot.gpu.indexes
    for owner, device, mode, joules in snapshot.energy.container_cards:
        found[(*owner.place, indexes.get(device, ""), device, mode)] += joules
    yield from found.items()


CARDS = (
    _of_card(
        "energy_gpu_power_watts",
        "gauge",
        "Power of a GPU (the whole card, also under MIG), in watts: the mean over the last sample interval; absent "
        "when it was not read.",
        lambda row: row.watts,
    ),
    _of_card(
        "energy_gpu_joules_total",
        "counter",
        "Energy of a GPU (the whole card, also under MIG), in joules: its energy_device_joules_total under the labels "
        "of the GPU.",
        lambda row: row.joules,
    ),
)

CONTAINER_CARDS = Family(
    "energy_container_gpu_joules_total",
    "counter",
    "Energy charged to a container by GPU, in joules: the sum over its GPUs is its energy_container_joules_total with "
    "component=gpu. gpu and uuid are empty for energy from before an upgrade of the exporter to the first version that "
    "keeps it by GPU.",
    ("namespace", "pod", "container", *CARD_LABELS, "mode"),
    _container_cards,
)
