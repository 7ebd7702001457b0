"""A machine on which every activity occurs, read through the real bindings, sampler and ledger."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from exporter.exposition.metrics.render import Renderer
from exporter.records import CpuUse, GroupKey, GroupUse, Model, Process, ProcessKey, ProcessUse, Reading
from exporter.sampling.sampler import Sampler, SamplerOptions
from exporter.snapshot import ACTIVITIES
from exporter.sources.nvml.source import NvmlSource
from exporter.sources.protocol import Source
from tests.support.cards import check_activities
from tests.support.group_names import GroupNames
from tests.support.nvml import control
from tests.support.nvml.control import FakeDriver, Gpu
from tests.support.nvml.node import Node

TICKS = 5
WATTS = 160.0


class Names(GroupNames):
    """Every group works for the model of its name."""

    def model(self, group: GroupKey | None, process: Process) -> Model | None:
        return None if group is None else Model(group.path.strip("/"))


class Cores:
    """CPU seconds by group, in each tick."""

    name = "cgroups"

    def __init__(self) -> None:
        self.busy: dict[tuple[GroupKey, int], float] = {}
        self._first = True

    def read(self, now: float) -> Reading:
        groups = tuple(
            GroupUse(key, cores, (ProcessUse(Process(ProcessKey(pid, 4711), "python"), cores),))
            for (key, pid), cores in self.busy.items()
        )
        started, self._first = tuple(key for key, _ in self.busy) if self._first else (), False
        return Reading(cpu=CpuUse(now, 1.0, sum(self.busy.values()), groups, started=started))

    def close(self) -> None:
        pass


class Machine:
    """Cards that each hold one process, which does the same in every tick."""

    def __init__(self, node: Node) -> None:
        self.node = node
        self.cores = Cores()
        self.loads: dict[Gpu, dict[int, int]] = {}
        self.throttled: dict[Gpu, float] = {}
        self._sampler: Sampler | None = None

    def model(
        self,
        name: str,
        percent: int,
        *,
        sm: float | None = None,
        tensor: float | None = None,
        dram: float | None = None,
        cores: float = 0.1,
        throttled: float = 0.0,
        architecture: int = control.HOPPER,
    ) -> Gpu:
        """One on a card of its own, which uses ``percent`` of its time; ``sm`` and so on in percent."""
        gpu = self.node.driver.add_gpu(architecture=architecture)
        for metric, value in ((2, sm), (5, tensor), (10, dram)):
            gpu.gpm(metric, value)
        gpu.util_percent = percent
        pid = 100 + len(self.loads)
        self.loads[gpu] = {pid: percent}
        gpu.process(pid)
        self.cores.busy[self.node.process(pid, f"/{name}"), pid] = cores
        self.throttled[gpu] = throttled
        return gpu

    def run(self) -> dict[str, dict[str, float]]:
        """Model → joules by activity, zeros left out."""
        options = SamplerOptions(interval_seconds=5.0, source_timeout_seconds=5.0)
        sources: list[Source] = [NvmlSource(self.node.host, self.node.bindings), self.cores]
        self._sampler = Sampler(sources, Names(), self.node.host, options)
        self._sampler.tick()
        for _ in range(TICKS):
            for gpu, seconds in self.throttled.items():
                gpu.throttle(sw_power_cap=seconds)
            self.node.step(self.loads, watts=WATTS - 60.0)
            snapshot = self._sampler.tick()
            check_activities(snapshot)
        text = Renderer().body(snapshot).decode()
        assert text.count("energy_model_activity_joules_total{") == len(ACTIVITIES) * len(snapshot.energy.models)
        return {
            str(row.owner[0]): {name: joules for name, joules in row.activities.items() if joules}
            for row in snapshot.energy.models
        }

    def close(self) -> None:
        if self._sampler is not None:
            self._sampler.close()


@pytest.fixture
def machine(library: Path, bindings: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Machine]:
    with FakeDriver(library, tmp_path) as driver:
        monkeypatch.setenv(control.STATE_VARIABLE, str(driver.path))
        made = Machine(Node(tmp_path, driver, bindings))
        yield made
        made.close()


def test_each_activity_has_its_cause(machine: Machine) -> None:
    machine.model("loaded", 0, sm=0.0, tensor=0.0, dram=0.0)
    machine.model("capped", 98, sm=90.0, tensor=70.0, dram=30.0, throttled=0.8)
    machine.model("prefill", 98, sm=90.0, tensor=70.0, dram=30.0)
    machine.model("decode", 98, sm=80.0, tensor=15.0, dram=60.0)
    machine.model("small", 98, sm=9.0, tensor=5.0, dram=6.0)  # utilization alone would call it busy
    machine.model("loader", 30, sm=9.0, tensor=5.0, dram=6.0, cores=1.0)
    machine.model("stencil", 98, sm=80.0, tensor=0.0, dram=20.0)
    machine.model("older", 98, architecture=control.AMPERE)  # no GPM: what bounds it cannot be told
    whole = pytest.approx(TICKS * WATTS)
    assert machine.run() == {
        "loaded": {"idle": whole},
        "capped": {"throttled": whole},
        "prefill": {"compute_bound": whole},
        "decode": {"memory_bound": whole},
        "small": {"underused": whole},
        "loader": {"host_bound": whole},
        "stencil": {"mixed": whole},
        "older": {"unknown": whole},
    }


def test_without_gpm_what_utilization_tells(machine: Machine) -> None:
    old = control.AMPERE
    machine.model("loaded", 0, architecture=old)
    machine.model("capped", 98, throttled=0.8, architecture=old)
    machine.model("small", 20, architecture=old)
    machine.model("loader", 20, cores=1.0, architecture=old)
    found = machine.run()
    assert [list(activities) for activities in found.values()] == [
        ["idle"],
        ["throttled"],
        ["underused"],
        ["host_bound"],
    ]
