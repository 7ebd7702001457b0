"""Which devices there are: those read in this run, those of an earlier one that are awaited, and who is given up."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import NamedTuple

from ..records import Component, Device
from .attribution import countable, platforms

GIVE_UP_SECONDS = 7 * 86_400.0
"""A device that was missed for so long was removed or replaced; a weekend is too short to call a broken one that."""


class SavedDevice(NamedTuple):
    """A device as the checkpoint keeps it; ``missed_since`` is Unix seconds, None if it was not missed."""

    device: Device
    missed_since: float | None = None


class GoneDevice(NamedTuple):
    """A device that is no longer shown; its joules were counted as those of ``component``, None if of none."""

    id: str
    component: Component | None


class Roster:
    """The devices that are shown, each once: in ``known`` if it was read in this run, else in ``awaited``.

    ``counted`` are those whose joules are added up, ``platforms`` the meters of the whole machine. ``replaced`` are
    those who are away while a part of theirs is counted instead: what they used meanwhile must not be counted again.
    ``revision`` grows when there is something new to keep across a restart.
    """

    def __init__(self, saved: Mapping[str, SavedDevice], at: float, untold: Collection[str] = ()) -> None:
        """``saved`` are the devices of the earlier run; ``at`` is Unix seconds.

        ``untold`` are those of them that are not expected to tell what they used meanwhile.
        """
        self.known: dict[str, Device] = {}
        self.awaited: dict[str, Device] = {key: entry.device for key, entry in saved.items()}
        self._missed = {key: at if entry.missed_since is None else entry.missed_since for key, entry in saved.items()}
        self._gone: list[GoneDevice] = []
        self._untold = set(untold)
        self.revision = 0
        self._count()

    def learn(self, read: Mapping[str, Device], *, metered: bool) -> None:
        """Take note of who was read. Once the CPU is ``metered``, its stand-ins go for good."""
        known = {key: device for key, device in self.known.items() if not (metered and is_stand_in(device))}
        known |= read
        if known == self.known:
            return
        replaced = self.known.keys() - known.keys()
        if metered:
            replaced |= {key for key, device in self.awaited.items() if is_stand_in(device)}
        for key in replaced:
            self._drop(key)
        self.known = known
        for key in self.awaited.keys() & known.keys():
            del self.awaited[key]
            self._missed.pop(key, None)
        self._untold -= known.keys()
        self.revision += 1
        self._count()

    def review(self, missing: Collection[str], at: float) -> None:
        """Give up who is ``missing`` for `GIVE_UP_SECONDS` as of Unix time ``at``. To be called now and then."""
        self._missed = {key: self._missed.get(key, at) for key in missing}
        given_up = [key for key, since in self._missed.items() if at - since >= GIVE_UP_SECONDS]
        for key in given_up:
            self._drop(key)
        if given_up:
            self.revision += 1
            self._count()

    def take_gone(self) -> list[GoneDevice]:
        """Who went since the last call."""
        gone, self._gone = self._gone, []
        return gone

    def saved(self) -> dict[str, SavedDevice]:
        """Those that are shown, for the checkpoint."""
        return {key: SavedDevice(device, self._missed.get(key)) for key, device in (self.known | self.awaited).items()}

    def _drop(self, key: str) -> None:
        device = self.known.pop(key, None) or self.awaited.pop(key)
        self._missed.pop(key, None)
        self._untold.add(key)
        self._gone.append(GoneDevice(key, device.component if key in self.counted else None))

    def _count(self) -> None:
        # Who is awaited still includes others: what they used meanwhile is in its counter when it returns.
        told = {key: device for key, device in self.awaited.items() if key not in self._untold}
        read = {device.id for device in countable((told | self.known).values())} & self.known.keys()
        self.replaced = self._untold & {self.known[key].within for key in read}
        self.counted = read | {device.id for device in countable((self.awaited | self.known).values())}
        self.platforms = [device.id for device in platforms(self.known.values())]


def is_stand_in(device: Device) -> bool:
    """Whether it models the CPU in place of a meter."""
    return device.quality == "estimated" and device.component == "cpu"
