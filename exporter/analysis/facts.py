"""What is known of models, other workloads and nodes in a window, step by step: what levers judge. Pure values."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Literal, NamedTuple

from .window import DAY_SECONDS, Window

Kind = Literal["model", "workload", "node"]
"""A workload holds GPUs without being a known model; a node is where GPUs are that no workload holds."""

Steps = Sequence[float]
"""One value for each step; empty if it is unknown, NaN in steps without a sample."""

_LEAST_BLOCKS = 8
_ENDED_SHARE = 0.25
"""A subject without joules in the last quarter of the window has ended."""


class Subject(NamedTuple):
    """What is judged: a model by its phase, a workload by its owner, pod or container, or a node by its instance."""

    kind: Kind
    cluster: str = ""
    namespace: str = ""
    name: str = ""
    phase: str = ""


class Grid(NamedTuple):
    """Steps of ``step`` seconds each, the first one from Unix time ``start`` on."""

    start: float
    step: float
    length: int

    @property
    def seconds(self) -> float:
        """Its whole length."""
        return self.step * self.length

    @property
    def block(self) -> int:
        """Steps of one block: a day where there are seven, else an eighth of the grid."""
        day = round(DAY_SECONDS / self.step)
        return day if self.length >= 7 * day else max(1, self.length // _LEAST_BLOCKS)


@dataclass(frozen=True, slots=True)
class Card:
    """A GPU and what a subject did on it; ratios are means over the window, None where the card does not report them.

    ``active_joules`` are the subject's on this card, above its idle power.
    """

    uuid: str
    gpu_model: str
    active_joules: float = 0.0
    sm_active: float | None = None
    tensor_active: float | None = None
    dram_active: float | None = None
    utilization: float | None = None
    memory_used: float | None = None
    power_watts: float | None = None
    limit_watts: float | None = None
    throttled: float | None = None
    """Share of the time at its power limit."""


@dataclass(frozen=True, slots=True)
class Facts:
    """What one subject did. Joules, seconds and tokens are of a step, watts and hertz are means over its cards.

    ``active`` and ``idle`` are GPU joules, ``cpu`` those of CPU and DRAM; ``activities`` divides the GPU's by what the
    card did. ``quiet`` are GPU joules, and ``quiet_seconds`` the time, of gaps of more than ten minutes without active
    GPU joules, their first ten minutes left out. ``running`` and ``waiting`` are requests, ``kv_use`` the used share of
    the KV cache, ``replicas`` the containers that count tokens.
    """

    subject: Subject
    grid: Grid
    active: Steps = ()
    idle: Steps = ()
    cpu: Steps = ()
    activities: Mapping[str, Steps] = field(default_factory=dict)
    quiet: Steps = ()
    quiet_seconds: Steps = ()
    output_tokens: Steps = ()
    prompt_tokens: Steps = ()
    cached_tokens: Steps = ()
    running: Steps = ()
    waiting: Steps = ()
    kv_use: Steps = ()
    replicas: Steps = ()
    power_limit: Steps = ()
    clock: Steps = ()
    images: Sequence[str] = ()
    """Images of its containers in each step; "" where unknown."""
    cards: Sequence[Card] = ()
    containers: Sequence[tuple[str, str]] = ()
    """Pod and name of each container of a workload."""
    seen: Steps = ()
    """1 for each step in which any node had samples, else 0; empty: all of them."""
    zone: str = ""
    """Where all its nodes are; "" if that is not known, or several."""
    grams_per_joule: float | None = None
    price_per_joule: Mapping[str, float] = field(default_factory=dict)

    @property
    def gpu(self) -> Steps:
        """GPU joules."""
        if not self.active or not self.idle:
            return self.active or self.idle
        return [one + other for one, other in zip(self.active, self.idle, strict=True)]

    @property
    def joules(self) -> float:
        """Of all components."""
        return sum(self.gpu) + sum(self.cpu)

    @property
    def watched_seconds(self) -> float:
        """From the first block with joules to the last, without the steps of which no node has samples."""
        first, last = self._alive()
        return self._seen(slice(first, last)) * self.grid.step

    @property
    def has_ended(self) -> bool:
        """Whether it used nothing in the last quarter of the window."""
        return self._alive()[1] <= self.grid.length * (1 - _ENDED_SHARE)

    def share(self, activity: str) -> float | None:
        """Share of the GPU joules with this activity, None if activities are unknown."""
        total = sum(sum(steps) for steps in self.activities.values())
        return sum(self.activities.get(activity, ())) / total if total > 0 else None

    def blocks(self, steps: Steps) -> list[float]:
        """Sums of the blocks, from the first with joules to the last.

        The last one is left out where it is shorter than half a block, else taken at its length.
        """
        return [math.fsum(steps[part]) for part in self.parts()] if steps else []

    def parts(self) -> list[slice]:
        """The steps of each block that was seen for more than half of it."""
        size = self.grid.block
        first, last = self._alive()
        found = [slice(start, min(start + size, last)) for start in range(first, last, size)]
        return [part for part in found if self._seen(part) > size // 2 or len(found) == 1]

    def _seen(self, part: slice) -> int:
        """How many steps of a part have samples of any node, or joules of this subject."""
        steps = range(part.start, part.stop)
        rows = [row for row in (self.seen, self.gpu, self.cpu) if row]
        return sum(1 for step in steps if not self.seen or any(row[step] > 0 for row in rows))

    def cut(self, window: Window) -> Facts:
        """The facts of the steps that lie in ``window`` as a whole."""
        first = max(0, math.ceil((window.start - self.grid.start) / self.grid.step - 1e-9))
        last = min(self.grid.length, math.floor((window.end - self.grid.start) / self.grid.step + 1e-9))
        last = max(first, last)
        grid = Grid(self.grid.start + first * self.grid.step, self.grid.step, last - first)
        kept = {
            each.name: getattr(self, each.name)[first:last]
            for each in fields(self)
            if each.name in STEPS and getattr(self, each.name)
        }
        activities = {name: steps[first:last] for name, steps in self.activities.items()}
        return replace(self, grid=grid, activities=activities, **kept)

    def _alive(self) -> tuple[int, int]:
        used = [index for index, joules in enumerate(self.gpu) if joules > 0]
        used += [index for index, joules in enumerate(self.cpu) if joules > 0]
        if not used:
            return 0, 0
        size = self.grid.block
        return min(used) // size * size, min(-(-(max(used) + 1) // size) * size, self.grid.length)


STEPS = (
    "active",
    "idle",
    "cpu",
    "quiet",
    "quiet_seconds",
    "output_tokens",
    "prompt_tokens",
    "cached_tokens",
    "running",
    "waiting",
    "kv_use",
    "replicas",
    "power_limit",
    "clock",
    "images",
    "seen",
)
"""Fields of `Facts` with one value for each step."""


@dataclass(frozen=True, slots=True)
class Zone:
    """Where nodes are: grams of CO2e per kWh in each step, PUE included, and the GPU models that are there."""

    name: str
    grams_per_kwh: Steps
    gpu_models: frozenset[str] = frozenset()
    cluster: str = ""

    @property
    def mean(self) -> float | None:
        """Mean of the steps that are known."""
        known = list(finite(self.grams_per_kwh))
        return math.fsum(known) / len(known) if known else None


@dataclass(frozen=True, slots=True)
class Fleet:
    """All subjects of a window, and what is common to them.

    ``bare_watts`` is the power of a GPU of each model while no process holds it, where one was seen so for three hours.
    ``missing`` says which kinds of facts no server has, with the reason.
    """

    grid: Grid
    subjects: Sequence[Facts]
    bare_watts: Mapping[str, float] = field(default_factory=dict)
    zones: Sequence[Zone] = ()
    missing: Mapping[str, str] = field(default_factory=dict)


def finite(steps: Steps) -> Iterator[float]:
    """The values that are known."""
    return (value for value in steps if math.isfinite(value))


def mean(steps: Steps) -> float | None:
    """Mean of the known values, None without any."""
    known = list(finite(steps))
    return math.fsum(known) / len(known) if known else None
