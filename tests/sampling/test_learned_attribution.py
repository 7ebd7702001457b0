"""Containers of unlike hunger on a metered node, sampled with --attribution.cpu=learned: the sum stays the meter's."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from random import Random

import pytest
from prometheus_client.parser import text_string_to_metric_families

from exporter.exposition.metrics.render import Renderer
from exporter.host import Host
from exporter.records import (
    CpuUse,
    Device,
    EnergyReading,
    GroupKey,
    GroupUse,
    Process,
    ProcessKey,
    ProcessUse,
    Reading,
)
from exporter.sampling.sampler import Sampler, SamplerOptions
from exporter.sampling.state_file import StateStore
from tests.support.group_names import GroupNames
from tests.support.inline_pool import Inline

IDLE_WATTS = 40.0
PACKAGE = Device("package-0", "cpu", "node", "measured", "package-0", 32.0, max_watts=2000.0)
DRAM = Device("dram-0", "dram", "node", "measured", "dram", 32.0, max_watts=500.0)
WATTS = {"frugal": 10.0, "middling": 20.0, "hungry": 30.0}
LEARNED = SamplerOptions(idle_watts={PACKAGE.id: IDLE_WATTS, DRAM.id: 0.0}, cpu_method="learned")


class NodeSource:
    """A package whose joules follow from which container is busy; a tenth of them again are the memory's."""

    name = "node"

    def __init__(self, *, proportional: bool) -> None:
        self.joules = 1000.0
        self.last_at: float | None = None
        self.truth = dict.fromkeys(WATTS, 0.0)
        self._dice = Random(1)
        self._proportional = proportional

    def read(self, now: float) -> Reading:
        window = 0.0 if self.last_at is None else now - self.last_at
        started = tuple([_group(name) for name in WATTS]) if self.last_at is None else ()
        self.last_at = now
        common = self._dice.uniform(0.0, 4.0)
        groups = []
        self.joules += IDLE_WATTS * window
        for number, (name, watts) in enumerate(WATTS.items()):
            seconds = window * (common if self._proportional else self._dice.uniform(0.0, 4.0))
            self.truth[name] += seconds * watts
            self.joules += seconds * watts
            worker = ProcessUse(Process(ProcessKey(number + 1, 1), name), 0.75 * seconds)
            groups.append(GroupUse(_group(name), seconds, (worker,)))
        kernel = 0.02 * window
        self.joules += 20.0 * kernel
        busy = sum([group.seconds for group in groups]) + kernel
        cpu = CpuUse(now, window, busy, tuple(groups), kernel, started=started)
        readings = (EnergyReading(PACKAGE, now, self.joules, None), EnergyReading(DRAM, now, self.joules / 10, None))
        return Reading(readings, cpu=cpu)

    def close(self) -> None:
        pass


HERE = Path()
"""No folder: no state is kept."""


def _group(name: str) -> GroupKey:
    return GroupKey(f"/{name}", 1)


class Node:
    """A sampler on that node, and its clock."""

    def __init__(self, options: SamplerOptions = LEARNED, *, proportional: bool = False, folder: Path = HERE) -> None:
        self.now = 1000.0
        self.source = NodeSource(proportional=proportional)
        self.folder = folder
        self.sampler = self._start(options)

    def _start(self, options: SamplerOptions) -> Sampler:
        host = Host(procfs=str(self.folder), clock=lambda: self.now, wall=lambda: 1.7e9 + self.now)
        store = StateStore(str(self.folder / "state")) if self.folder != HERE else None
        return Sampler([self.source], GroupNames(), host, options, store=store, pools=Inline)

    def restart(self) -> None:
        """End the exporter and start it again two seconds later."""
        self.sampler.close()
        self.now += 2.0
        self.source.last_at = None
        self.sampler = self._start(LEARNED)

    def run(self, ticks: int) -> None:
        for _ in range(ticks):
            snapshot = self.sampler.tick()
            assert snapshot.energy.conservation_error_ratio < 1e-12
            self.now += 1.0

    def series(self, name: str, **labels: str) -> dict[str, float]:
        snapshot = self.sampler.snapshot
        assert snapshot is not None
        return {
            sample.labels["container"]: sample.value
            for family in text_string_to_metric_families(Renderer().body(snapshot).decode())
            for sample in family.samples
            if sample.name == name and labels.items() <= sample.labels.items()
        }

    def charged(self, ticks: int) -> dict[str, float]:
        """Active joules of each container in the next ticks, relative to the truth."""
        before, truth = self.series("energy_container_joules_total", component="cpu"), dict(self.source.truth)
        self.run(ticks)
        after = self.series("energy_container_joules_total", component="cpu")
        return {name: (after[name] - before[name]) / (self.source.truth[name] - truth[name]) for name in WATTS}


def test_joules_follow_the_hunger_once_it_is_learned() -> None:
    node = Node()
    node.run(60)
    assert node.charged(60) == pytest.approx(dict.fromkeys(WATTS, 1.0), abs=0.01)
    assert node.series("energy_container_joules_per_cpu_second") == pytest.approx(WATTS, rel=0.02)


def test_processes_and_memory_follow_their_container_and_utilization_does_not() -> None:
    node = Node()
    node.run(120)
    snapshot = node.sampler.snapshot
    assert snapshot is not None
    for container, process in zip(snapshot.energy.containers, snapshot.energy.processes, strict=True):
        assert process.watts == pytest.approx([0.75 * watts for watts in container.watts])
    watts = node.series("energy_container_power_watts", component="cpu")
    memory = node.series("energy_container_power_watts", component="dram")
    ratios = node.series("energy_container_utilization_ratio")
    hunger = {name: watts[name] / ratios[name] for name in WATTS}
    assert hunger["middling"] / hunger["frugal"] == pytest.approx(2.0, rel=0.02)
    assert hunger["hungry"] / hunger["frugal"] == pytest.approx(3.0, rel=0.02)
    assert memory["hungry"] / memory["frugal"] == pytest.approx(watts["hungry"] / watts["frugal"])


def test_proportional_loads_are_charged_as_by_time() -> None:
    learned, by_time = Node(proportional=True), Node(replace(LEARNED, cpu_method="time"), proportional=True)
    learned.run(300)
    by_time.run(300)
    name = "energy_container_joules_total"
    assert learned.series(name, component="cpu") == by_time.series(name, component="cpu")
    assert not learned.series("energy_container_joules_per_cpu_second")


def test_by_time_nothing_is_learned_and_a_reload_changes_that() -> None:
    """What was learned is dropped with the setting, and kept when another one changes."""
    by_time = replace(LEARNED, cpu_method="time")
    node = Node(by_time)
    node.run(120)
    assert node.charged(60)["hungry"] == pytest.approx(0.67, abs=0.05)
    assert not node.series("energy_container_joules_per_cpu_second")
    node.sampler.reconfigure(LEARNED)
    node.run(60)
    assert node.charged(60)["hungry"] == pytest.approx(1.0, abs=0.01)
    node.sampler.reconfigure(replace(LEARNED, linger_seconds=600.0))
    assert node.charged(5)["hungry"] == pytest.approx(1.0, abs=0.01)
    node.sampler.reconfigure(by_time)
    assert node.charged(60)["hungry"] == pytest.approx(0.67, abs=0.05)
    assert not node.series("energy_container_joules_per_cpu_second")


def test_a_restart_keeps_the_joules_and_learns_anew(tmp_path: Path) -> None:
    (tmp_path / "sys/kernel/random").mkdir(parents=True)
    (tmp_path / "sys/kernel/random/boot_id").write_text("boot-1\n")
    node = Node(folder=tmp_path)
    node.run(120)
    before = node.series("energy_container_joules_total", component="cpu")
    node.restart()
    node.run(1)
    assert node.series("energy_container_joules_total", component="cpu") == pytest.approx(before)
    assert not node.series("energy_container_joules_per_cpu_second")
    assert node.charged(20)["hungry"] == pytest.approx(0.67, abs=0.05)
    node.run(40)
    assert node.charged(60) == pytest.approx(dict.fromkeys(WATTS, 1.0), abs=0.01)
