"""MIG: the GPU instances of one card and the activity of each."""

from __future__ import annotations

from typing import Any

from ...records import GpuState
from .card import Card
from .driver import Activity, Driver
from .gpm import UNKNOWN, GpmWatch
from .library import DriverError


class Instance:
    """A GPU instance: its ``fraction`` of the card's slices; ``handles`` are its MIG devices (compute instances).

    ``memory_bytes`` is what was used and there is at the last read.
    """

    def __init__(self, driver: Driver, card: Any, number: int, fraction: float, *, watched: bool) -> None:
        self.number = number
        self.fraction = fraction
        self.handles: list[Any] = []
        self.model = ""
        self.activity: Activity = UNKNOWN
        self.memory_bytes: tuple[float | None, float | None] | None = None
        self.watch = GpmWatch(driver, card, number) if watched else None


class MigLayout:
    """The instances that a card is partitioned into, which may change at any time. ``is_on``: MIG is enabled."""

    def __init__(self, driver: Driver) -> None:
        self._driver = driver
        self.is_on = False
        self._layout: list[tuple[int, int, str]] = []
        self.instances: list[Instance] = []

    def refresh(self, handle: Any) -> bool:
        """Query the instances; True if they changed. Raises `DriverError` if the card or the driver is gone."""
        driver = self._driver
        slices = driver.slices(handle)
        self.is_on = slices > 0
        devices = driver.mig_devices(handle, slices)
        layout = [
            (number, width, driver.call_optional("nvmlDeviceGetUUID", part) or "") for number, width, part in devices
        ]
        if layout == self._layout:
            return False
        self.close()
        self._layout = layout
        watched = bool(devices) and driver.has_gpm(handle)
        found: dict[int, Instance] = {}
        for number, width, part in devices:
            if number not in found:
                found[number] = Instance(driver, handle, number, min(1.0, width / slices), watched=watched)
                found[number].model = driver.model(part)
            found[number].handles.append(part)
        self.instances = list(found.values())
        return True

    def states(self, card: Card) -> list[GpuState]:
        """State of each instance since the last call; power, temperature and clocks exist for the card only.

        Its memory is read when the card's gauges are.
        """
        states = []
        for instance in self.instances:
            if instance.watch is not None:
                instance.activity = instance.watch.read()
            sm, tensor, dram = instance.activity
            if instance.memory_bytes is None or card.has_new_gauges:
                instance.memory_bytes = self._driver.memory_bytes(instance.handles[0])
            used, total = instance.memory_bytes
            states.append(
                GpuState(
                    card.uuid,
                    card.index,
                    str(instance.number),
                    mig_uuids=tuple([uuid for number, _, uuid in self._layout if number == instance.number and uuid]),
                    slice_ratio=instance.fraction,
                    gpu_model=instance.model or card.model,
                    driver_version=card.version,
                    pci_bus_id=card.bus_id,
                    memory_used_bytes=used,
                    memory_total_bytes=total,
                    utilization_ratio=sm,
                    sm_active_ratio=sm,
                    tensor_active_ratio=tensor,
                    dram_active_ratio=dram,
                )
            )
        return states

    @property
    def permission_error(self) -> DriverError | None:
        """The error if reading the activity of an instance needs more privilege."""
        watches = (instance.watch for instance in self.instances)
        return next(
            (watch.permission_error for watch in watches if watch is not None and watch.permission_error is not None),
            None,
        )

    def close(self) -> None:
        """Free what belongs to a session with the driver."""
        for instance in self.instances:
            if instance.watch is not None:
                instance.watch.close()
        self.instances, self._layout = [], []
