"""The node's devices: those read in this run, those of an earlier run that are pending, and those that are retired."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import replace
from fnmatch import fnmatchcase
from typing import NamedTuple

from ..records import Component, Device
from .attribution import countable, platform_choices

RETIRE_AFTER_SECONDS = 7 * 86_400.0
"""A device that was missing for so long was removed or replaced; a broken one may well be missing for a weekend."""


class SavedDevice(NamedTuple):
    """A device as the checkpoint keeps it; ``missed_since`` is Unix seconds, None if it was not missing."""

    device: Device
    missed_since: float | None = None


class RetiredDevice(NamedTuple):
    """A device that is no longer published; its joules were summed under ``component``, None if they were not."""

    id: str
    component: Component | None


class DeviceInventory:
    """The published devices, each once: in ``known`` if it was read in this run, else in ``pending``.

    ``counted`` are those whose joules are summed, ``platform_choices`` the ways to measure the whole machine.
    ``superseded`` are missing devices whose parts are counted instead: their joules of that time must not be counted
    again. ``revision`` grows when the checkpoint must be rewritten.
    """

    def __init__(self, saved: Mapping[str, SavedDevice], at: float, without_counter: Collection[str] = ()) -> None:
        """``saved`` are the devices of an earlier run; ``at`` is Unix seconds.

        ``without_counter`` are those of them that will not report what they used in the meantime.
        """
        self.known: dict[str, Device] = {}
        self.pending: dict[str, Device] = {key: entry.device for key, entry in saved.items()}
        self._missed = {key: at if entry.missed_since is None else entry.missed_since for key, entry in saved.items()}
        self._retired: list[RetiredDevice] = []
        self._without_counter = set(without_counter)
        self.revision = 0
        self._count()

    def update(self, read: Mapping[str, Device], *, metered: bool) -> None:
        """Add the devices that were ``read``. Once the CPU is ``metered``, its estimates are removed."""
        known = {key: device for key, device in self.known.items() if not (metered and is_estimate(device))}
        known = _contained({**known, **read})
        if known == self.known:
            return
        replaced = self.known.keys() - known.keys()
        if metered:
            replaced |= {key for key, device in self.pending.items() if is_estimate(device)}
        for key in replaced:
            self._retire(key)
        self.known = known
        for key in self.pending.keys() & known.keys():
            del self.pending[key]
            self._missed.pop(key, None)
        self._without_counter -= known.keys()
        self.revision += 1
        self._count()

    def review(self, missing: Collection[str], at: float) -> None:
        """Retire devices ``missing`` for `RETIRE_AFTER_SECONDS` at Unix time ``at``; to be called regularly."""
        self._missed = {key: self._missed.get(key, at) for key in missing}
        overdue = [key for key, since in self._missed.items() if at - since >= RETIRE_AFTER_SECONDS]
        for key in overdue:
            self._retire(key)
        if overdue:
            self.revision += 1
            self._count()

    def take_retired(self) -> list[RetiredDevice]:
        """Devices retired since the last call."""
        retired, self._retired = self._retired, []
        return retired

    def saved(self) -> dict[str, SavedDevice]:
        """The published devices, for the checkpoint."""
        return {key: SavedDevice(device, self._missed.get(key)) for key, device in (self.known | self.pending).items()}

    def _retire(self, key: str) -> None:
        device = self.known.pop(key, None) or self.pending.pop(key)
        self._missed.pop(key, None)
        self._without_counter.add(key)
        self._retired.append(RetiredDevice(key, device.component if key in self.counted else None))

    def _count(self) -> None:
        # A pending device still contains its children: its counter will cover their consumption when it returns.
        reporting = {key: device for key, device in self.pending.items() if key not in self._without_counter}
        read = {device.id for device in countable((reporting | self.known).values())} & self.known.keys()
        self.superseded = self._without_counter & {self.known[key].within for key in read}
        self.counted = read | {device.id for device in countable((self.pending | self.known).values())}
        self.platform_choices = platform_choices(self.known.values())


def _contained(known: dict[str, Device]) -> dict[str, Device]:
    """The devices, each within the one that contains it by its own statement and that is itself not within it."""
    outer = [device for device in known.values() if device.contains]
    if not outer:
        return known
    placed = dict(known)
    for device in outer:
        for key, other in known.items():
            if key not in (device.id, device.within) and any(fnmatchcase(key, pattern) for pattern in device.contains):
                placed[key] = replace(other, within=device.id)
    return placed


def is_estimate(device: Device) -> bool:
    """Whether it models the CPU in place of a meter."""
    return device.quality == "estimated" and device.component == "cpu"
