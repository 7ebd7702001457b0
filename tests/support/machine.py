"""Recorded machines as hosts for tests: unpack one, read it, advance it to its next instant, read it again."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from exporter.host import FdBudget, Host
from tests.support import ttar
from tests.support.nvml.control import FakeDriver
from tests.support.nvml.recorded import Cards
from tests.support.repository import HOSTS

ARCHIVE = "t0.ttar"
"""Every file and link of a machine at its first instant."""

WALL_EPOCH = 1767225600.0
"""Unix time at which every recorded machine booted: 2026-01-01."""


class Machine:
    """One recorded machine, unpacked into a folder of its own. Its clocks stand still until `advance`.

    After each `advance`, ``seconds`` is how much time passed, ``joules`` what each device used in it and
    ``busy_seconds`` the CPU seconds of all its CPUs (None in a recording of a real machine, which does not know them).
    """

    def __init__(self, name: str, target: Path) -> None:
        self.name = name
        self.root = target
        self.seconds = 0.0
        self.joules: dict[str, float] = {}
        self.busy_seconds: float | None = None
        ttar.unpack((HOSTS / name / ARCHIVE).read_bytes(), target)
        self._instants = sorted((HOSTS / name).glob("t[1-9].json"))
        self._shown = 0
        self._cards: Cards | None = None
        self._listeners: list[Callable[[int], None]] = []
        self._now = float((target / "proc/uptime").read_text(encoding="ascii").split()[0])

    @property
    def instants(self) -> int:
        """How many more times it can `advance`."""
        return len(self._instants)

    @property
    def now(self) -> float:
        """Boot-time seconds of this machine."""
        return self._now

    def host(self, descriptors: int = 1024) -> Host:
        """A host whose roots and clocks are this machine's; ``descriptors`` is how many files it may keep open."""
        return Host(
            procfs=str(self.root / "proc"),
            sysfs=str(self.root / "sys"),
            cgroupfs=str(self.root / "cgroup"),
            clock=lambda: self._now,
            wall=lambda: WALL_EPOCH + self._now,
            fds=FdBudget(descriptors),
        )

    @property
    def gpus(self) -> Path | None:
        """What its NVIDIA driver reports at each instant; None for a machine without one."""
        path = HOSTS / self.name / "gpus.json"
        return path if path.exists() else None

    def plug(self, driver: FakeDriver) -> None:
        """Put its NVIDIA cards into a fake driver, which every later `advance` updates."""
        assert self.gpus is not None
        self._cards = Cards(json.loads(self.gpus.read_text(encoding="utf-8")), driver)
        self._cards.show(self._shown, WALL_EPOCH + self._now)

    def recorded(self, name: str) -> Any:
        """What a file beside the archive holds, such as what a library says at each instant; None without it."""
        path = HOSTS / self.name / name
        return json.loads(path.read_text(encoding="utf-8")) if path.exists() else None

    def follow(self, listener: Callable[[int], None]) -> None:
        """Call it with the number of the instant, now and after each `advance`."""
        self._listeners.append(listener)
        listener(self._shown)

    def advance(self) -> None:
        """Move to the next instant. Files are rewritten in place, so that open descriptors read the new content."""
        later = json.loads(self._instants.pop(0).read_text(encoding="utf-8"))
        for path, text in later["files"].items():
            (self.root / path).write_text(text, encoding="utf-8")
        self.seconds = later["seconds"]
        self.joules = later["joules"]
        self.busy_seconds = later.get("busy_seconds")
        self._now += self.seconds
        self._shown += 1
        if self._cards is not None:
            self._cards.show(self._shown, WALL_EPOCH + self._now)
        for listener in self._listeners:
            listener(self._shown)


def names() -> list[str]:
    """All recorded machines."""
    return sorted(path.parent.name for path in HOSTS.glob("*/t1.json"))


def load(name: str, target: Path) -> Machine:
    """Unpack a machine into ``target``, a fresh folder, as it was at its first instant."""
    return Machine(name, target)
