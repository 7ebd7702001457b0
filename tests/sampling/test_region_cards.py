"""Cards whose counters are read more often while programs are in regions on them: from a tick's readings to watts."""

from __future__ import annotations

from bisect import bisect_left
from pathlib import Path
from random import Random

import pytest

from exporter.exposition.metrics.render import Renderer
from exporter.host import Host
from exporter.records import (
    CardSteps,
    Device,
    EnergyReading,
    GpuState,
    GpuUse,
    GroupKey,
    Process,
    ProcessKey,
    Reading,
    RegionReport,
)
from exporter.records.regions import OUTSIDE_REGIONS, ProcessRegions, RegionPiece, RegionSpan
from exporter.sampling.regions import WatchedCards
from exporter.sampling.sampler import Sampler
from exporter.sources.nvml.counter_steps import CounterSteps
from tests.support.group_names import GroupNames
from tests.support.live import Scrape

CARD = Device("GPU-1", "gpu", "node", "measured", "H100", 1.0, max_watts=2000.0)
OTHER_CARD = Device("GPU-2", "gpu", "node", "measured", "H100", 1.0, max_watts=2000.0)
GROUP = GroupKey("/pod", 7)
PROGRAM = Process(ProcessKey(100, 1), "python")
WATTS = {"forward": 600.0, "load": 150.0}
SECONDS = {"forward": 0.2, "load": 0.1}
UPDATE_SECONDS = 0.1


class Node:
    """A program in two regions on a card whose counter steps; the card is read more often if the exporter says so."""

    name = "node"

    def __init__(self, folder: Path, *, fast: bool = True) -> None:
        self.watched = WatchedCards()
        self.cards = [CARD]
        self.region: str | None = None  # in which the program is all the time, None for the steps
        self.now = 1000.0
        self._fast = fast
        self._random = Random(3)
        self._counter = CounterSteps()
        self._moments, self._energies = [self.now], [0.0]
        self._pieces: list[RegionPiece] = []
        self._reported = self.now
        host = Host(procfs=str(folder), clock=lambda: self.now, wall=lambda: self.now + 1e9)
        self._sampler = Sampler([self], GroupNames(), host, watched=self.watched)

    def read(self, now: float) -> Reading:
        joules = self._shown(now)
        steps = tuple([CardSteps(CARD.id, taken) for taken in (self._counter.take(),) if taken])
        span = RegionSpan(self._reported, tuple(self._pieces))
        self._reported, self._pieces = self._moments[-1], []
        uses = tuple([GpuUse(card.id, GROUP, PROGRAM, 0.9) for card in self.cards])
        return Reading(
            meters=tuple([EnergyReading(card, now, joules, None) for card in self.cards]),
            gpu_uses=uses,
            gpus=tuple([GpuState(card.id, str(number)) for number, card in enumerate(self.cards)]),
            regions=RegionReport((ProcessRegions(PROGRAM, GROUP, (), (span,)),)),
            steps=steps if self._fast else (),
        )

    def close(self) -> None:
        """Nothing is open."""

    def tick(self, seconds: float = 1.0) -> Scrape:
        """Let the program run, read the counter in between if it is watched, and sample."""
        until = self.now + seconds
        while self._moments[-1] < until + 0.1:
            for region, typical in SECONDS.items() if self.region is None else ((self.region, 0.5),):
                length = typical * self._random.uniform(0.8, 1.2)
                self._moments.append(self._moments[-1] + length)
                self._energies.append(self._energies[-1] + length * WATTS.get(region, 100.0))
                self._pieces.append(RegionPiece(length, ((region, length),)))
        while self.now < until:
            if CARD.id in self.watched():
                self._counter.note(self._shown(self.now), self.now)
            self.now = min(until, self.now + 0.05 * self._random.uniform(0.5, 1.5))
        return Scrape.parse(Renderer().body(self._sampler.tick()).decode())

    def _shown(self, at: float) -> float:
        updated = max(self._moments[0], at // UPDATE_SECONDS * UPDATE_SECONDS)
        index = max(1, bisect_left(self._moments, updated))
        low, high = self._moments[index - 1], self._moments[index]
        ratio = (updated - low) / (high - low)
        return self._energies[index - 1] + ratio * (self._energies[index] - self._energies[index - 1])


@pytest.fixture
def node(tmp_path: Path) -> Node:
    return Node(tmp_path)


def test_a_card_is_watched_while_a_program_is_in_regions_on_it(node: Node) -> None:
    assert node.watched() == set()
    node.tick()
    assert node.watched() == {CARD.id}
    node.region = OUTSIDE_REGIONS
    for _ in range(12):
        node.tick()
    assert node.watched() == set()


def test_cards_of_a_program_that_uses_several_are_not(node: Node) -> None:
    node.cards = [CARD, OTHER_CARD]
    for _ in range(3):
        node.tick()
    assert node.watched() == set()


def test_watts_of_regions_shorter_than_a_tick_and_the_joules_of_the_card(tmp_path: Path, node: Node) -> None:
    slow = Node(tmp_path, fast=False)
    for _ in range(70):
        found, without = node.tick(), slow.tick()
    for region, watts in WATTS.items():
        labels = {"region": region, "component": "gpu"}
        assert found.total("energy_region_watts", **labels) == pytest.approx(watts, rel=0.05)
        assert found.total("energy_region_info", method="regression", **labels) == 1.0
    for metric in ("energy_device_joules_total", "energy_process_joules_total"):
        assert found.total(metric) == without.total(metric), "steps add nothing to what is published"
    in_regions = found.total("energy_region_joules_total")
    assert in_regions == pytest.approx(found.total("energy_process_joules_total"), rel=1e-12)
