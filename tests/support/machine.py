"""Recorded machines as hosts for tests: copy one out, read it, let its recorded seconds pass, read it again."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from exporter.host import FdBudget, Host
from tests.support.nvml.control import FakeDriver
from tests.support.nvml.recorded import Cards
from tests.support.repository import HOSTS

WALL_EPOCH = 1767225600.0
"""Unix time at which every recorded machine booted: 2026-01-01."""


class Machine:
    """One recorded machine, copied to a folder of its own. Its clocks stand still until `advance`.

    After each `advance`, ``seconds`` is how much time passed, ``joules`` what each device used in it and
    ``busy_seconds`` what all CPUs did (None where a live recording does not know).
    """

    def __init__(self, name: str, target: Path) -> None:
        self.name = name
        self.root = target
        self.seconds = 0.0
        self.joules: dict[str, float] = {}
        self.busy_seconds: float | None = None
        shutil.copytree(HOSTS / name / "t0", target, symlinks=True, dirs_exist_ok=True)
        links = HOSTS / name / "links.json"
        for path, to in json.loads(links.read_text(encoding="utf-8")).items() if links.exists() else ():
            (target / path).parent.mkdir(parents=True, exist_ok=True)
            (target / path).symlink_to(to)
        self._instants = sorted((HOSTS / name).glob("t[1-9].json"))
        self._shown = 0
        self._cards: Cards | None = None
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
        """What its NVIDIA driver says at each instant; None where there is none."""
        path = HOSTS / self.name / "gpus.json"
        return path if path.exists() else None

    def plug(self, driver: FakeDriver) -> None:
        """Let a fake driver have its cards, and go on with every `advance`."""
        assert self.gpus is not None
        self._cards = Cards(json.loads(self.gpus.read_text(encoding="utf-8")), driver)
        self._cards.show(self._shown, WALL_EPOCH + self._now)

    def advance(self) -> None:
        """Go on to the next instant. Files are rewritten in place, so those kept open show it too."""
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


def names() -> list[str]:
    """All recorded machines."""
    return sorted(path.parent.name for path in HOSTS.glob("*/t1.json"))


def load(name: str, target: Path) -> Machine:
    """Copy a machine to ``target`` (a fresh folder) as it was at its first instant."""
    return Machine(name, target)
