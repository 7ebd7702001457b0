"""Whatever happens to meters and workloads, in any order, the totals stay right: a stateful property test."""

from __future__ import annotations

import math
import shutil
import tempfile
from collections import Counter
from pathlib import Path

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse_text

from exporter.exposition.metrics.render import Renderer
from exporter.host import Host
from exporter.impact.protocol import NoFactors
from exporter.impact.values import Factors
from exporter.records import (
    CpuUse,
    Device,
    EnergyReading,
    GpuState,
    GpuUse,
    GroupKey,
    GroupUse,
    Model,
    Process,
    ProcessKey,
    ProcessUse,
    Reading,
    Unavailable,
    Workload,
)
from exporter.sampling.deadline import WorkerPool
from exporter.sampling.sampler import Sampler, SamplerOptions
from exporter.sampling.state_file import StateStore
from exporter.workloads.protocol import Namer
from tests.support.inline_pool import HangsError, Inline

RANGE = 65_536.0
PACKAGE = Device("package-0", "cpu", "meters", "measured", "package-0", 4.0, max_watts=400.0)
DRAM = Device("dram-0", "dram", "meters", "measured", "dram", 4.0, max_watts=100.0)
GPU = Device("GPU-1", "gpu", "meters", "measured", "gpu", 1.0, max_watts=800.0)
PLAUSIBLE_WATTS = {"cpu": 400.0, "dram": 100.0, "gpu": 800.0}

COUNTED = ("_joules_total", "_grams_total", "_cost_total", "_credit_total")

Key = tuple[str, tuple[tuple[str, str], ...]]
Series = dict[Key, float]


class Chosen(NoFactors):
    """The factors that a rule of the machine chose."""

    def __init__(self, machine: Node) -> None:
        self._machine = machine

    def at(self, unix_seconds: float) -> Factors | None:
        return self._machine.factors


class MeterSource:
    """Three counters that obey the test: they wrap, are reset, jump, vanish and hang."""

    name = "meters"

    def __init__(self) -> None:
        self.joules = {PACKAGE: 60_000.0, DRAM: 1_000.0, GPU: 1e6}
        self.glitch: dict[Device, float] = {}
        self.failing = False
        self.hanging = False

    def read(self, now: float) -> Reading:
        if self.hanging:
            raise HangsError
        if self.failing:
            raise Unavailable("driver", "meters are gone")
        readings = []
        for device, joules in self.joules.items():
            value = self.glitch.get(device, joules if device is GPU else joules % RANGE)
            readings.append(EnergyReading(device, now, value, None if device is GPU else RANGE))
        return Reading(tuple(readings))

    def close(self) -> None:
        pass


class UseSource:
    """Groups and processes that come, work, move and go; the same pids are used again."""

    name = "use"

    def __init__(self) -> None:
        self.groups: dict[str, GroupKey] = {}
        self.processes: dict[int, tuple[Process, str]] = {}
        self.births = 0
        self.last_at = 0.0
        self.work: dict[int, float] = {}
        self.started: list[GroupKey] = []
        self.ended: list[GroupKey] = []
        self.exited: list[ProcessKey] = []
        self.card: tuple[float | None, ...] = (None, None)
        self.throttled = 0.0

    def restart(self) -> None:
        self.started, self.ended, self.exited = list(self.groups.values()), [], []
        self.work = {}

    def read(self, now: float) -> Reading:
        window, self.last_at = now - self.last_at, now
        groups = []
        for name, key in self.groups.items():
            uses = [ProcessUse(p, self.work.get(p.key.pid, 0.0)) for p, home in self.processes.values() if home == name]
            uses = [use for use in uses if use.seconds]
            if uses:
                groups.append(GroupUse(key, 1.25 * sum(use.seconds for use in uses), tuple(uses)))
        busy = sum(group.seconds for group in groups) + 0.01
        cpu = CpuUse(
            now, window, busy, tuple(groups), 0.01, 0.0, tuple(self.started), tuple(self.ended), tuple(self.exited)
        )
        holders = [
            GpuUse(GPU.id, self.groups[home], process, self.work.get(process.key.pid, 0.0) / 4)
            for process, home in self.processes.values()
            if process.key.pid % 2 and home in self.groups
        ]
        self.started, self.ended, self.exited, self.work = [], [], [], {}
        sm, dram = self.card
        throttled = (("sw_power_cap", self.throttled),)
        card = GpuState(GPU.id, "0", sm_active_ratio=sm, dram_active_ratio=dram, throttle_seconds=throttled)
        return Reading(cpu=cpu, gpu_uses=tuple(holders), gpus=(card,))

    def close(self) -> None:
        pass


class Names(Namer):
    """Every third pid serves a model."""

    def workload(self, group: GroupKey) -> Workload:
        return Workload(container=group.path.strip("/"), runtime="docker", container_id=str(group.inode))

    def model(self, group: GroupKey | None, process: Process) -> Model | None:
        pid = process.key.pid
        return Model(f"model-{pid}", "", "inference", "test") if pid % 3 == 0 else None


class Node(RuleBasedStateMachine):
    """One exporter on a node where anything may happen between two ticks."""

    @initialize()
    def boot(self) -> None:
        self.folder = Path(tempfile.mkdtemp())
        (self.folder / "sys/kernel/random").mkdir(parents=True)
        (self.folder / "sys/kernel/random/boot_id").write_text("boot-1\n")
        self.now = 1000.0
        self.meters, self.use = MeterSource(), UseSource()
        self.given = dict.fromkeys(("cpu", "dram", "gpu"), 0.0)
        self.ticks = 0
        self.last: Series = {}
        self.devices: set[Key] = set()
        self.births: dict[str, tuple[int, int]] = {}
        self.moves: Counter[int] = Counter()
        self.may_fall: set[Key] = set()
        self.renderer = Renderer()
        self.factors: Factors | None = None
        self._start()

    def _start(self) -> None:
        host = Host(procfs=str(self.folder), clock=lambda: self.now, wall=lambda: 1.7e9 + self.now)
        options = SamplerOptions(process_top=3, linger_seconds=6.0, checkpoint_seconds=8.0)
        self.store = StateStore(str(self.folder / "state"))
        self.use.restart()
        self.sampler = Sampler(
            [self.meters, self.use],
            Names(),
            host,
            options,
            store=self.store,
            pools=self._crew,
            factors=Chosen(self),
        )

    def _crew(self, name: str) -> WorkerPool:
        crew = Inline(name)
        if name == "sources":
            self.crew = crew
        return crew

    def _series(self) -> Series:
        snapshot = self.sampler.snapshot
        assert snapshot is not None
        families = parse_text(self.renderer.body(snapshot).decode())
        return {
            (sample.name, tuple(sorted(sample.labels.items()))): sample.value
            for family in families
            if family.name.startswith("energy_")
            for sample in family.samples
        }

    @rule(
        seconds=st.sampled_from((1.0, 1.0, 0.5, 3.0, 7.0, 7.0, 120.0)),
        watts=st.tuples(st.floats(20, 390), st.floats(1, 90), st.floats(30, 790)),
        works=st.lists(st.tuples(st.integers(1, 6), st.sampled_from("abc"), st.floats(0.001, 0.9)), max_size=4),
        card=st.tuples(st.none() | st.sampled_from((0.1, 0.8)), st.none() | st.sampled_from((0.1, 0.7))),
        throttled=st.sampled_from((0.0, 0.0, 0.6)),
    )
    def tick(
        self,
        seconds: float,
        watts: tuple[float, float, float],
        works: list[tuple[int, str, float]],
        card: tuple[float | None, float | None],
        throttled: float,
    ) -> None:
        self.use.card = card
        self.use.throttled += throttled * seconds
        for pid, name, work in works:
            self.run(pid, name, work)
        self.now += seconds
        for device, power in zip((PACKAGE, DRAM, GPU), watts, strict=True):
            self.meters.joules[device] += power * seconds
            self.given[device.component] += power * seconds
        self.sampler.tick()
        self.ticks += 1
        self.meters.hanging = False
        self.crew.release()
        self.meters.failing = False
        self.meters.glitch = {}

    def run(self, pid: int, name: str, work: float) -> None:
        """A process works; if its group or pid is new it was born, if its group is another one it moved."""
        if name not in self.use.groups:
            self.use.births += 1
            self.use.groups[name] = GroupKey(f"/{name}", self.use.births)
            self.use.started.append(self.use.groups[name])
        if pid not in self.use.processes:
            self.use.births += 1
            self.use.processes[pid] = (Process(ProcessKey(pid, self.use.births), f"p{pid}"), name)
        process, home = self.use.processes[pid]
        self.moves[pid] += home != name
        self.use.processes[pid] = (process, name)
        self.use.work[pid] = work

    @rule(
        intensity=st.none() | st.sampled_from((0.0, 41.0, 700.0)),
        price=st.none() | st.sampled_from((-0.2, 0.0, 0.31)),
        pue=st.sampled_from((1.0, 1.4)),
    )
    def change_factors(self, intensity: float | None, price: float | None, pue: float) -> None:
        """Another hour of the tariff, or a factor that is not known any more."""
        self.factors = Factors(intensity, price, pue, "EUR", credits=True)

    @rule(device=st.sampled_from((PACKAGE, DRAM, GPU)))
    def reset_counter(self, device: Device) -> None:
        self.meters.joules[device] = 0.0

    @rule(device=st.sampled_from((PACKAGE, DRAM, GPU)), value=st.sampled_from((0.0, 1.8e19, 65_535.0, math.nan)))
    def glitch(self, device: Device, value: float) -> None:
        self.meters.glitch[device] = value

    @rule(hang=st.booleans())
    def next_read_fails(self, hang: bool) -> None:
        """The next read of the meters raises, or outlives its deadline and comes late."""
        if hang:
            self.meters.hanging = True
        else:
            self.meters.failing = True

    @rule(name=st.sampled_from("abc"))
    def end_group(self, name: str) -> None:
        for pid in [pid for pid, (_, home) in self.use.processes.items() if home == name]:
            self.use.exited.append(self.use.processes.pop(pid)[0].key)
        if name in self.use.groups:
            self.use.ended.append(self.use.groups.pop(name))

    @rule(pid=st.integers(1, 6))
    def exit(self, pid: int) -> None:
        if pid in self.use.processes:
            self.use.exited.append(self.use.processes.pop(pid)[0].key)

    @rule(cleanly=st.booleans())
    def restart(self, cleanly: bool) -> None:
        """Stop, or be killed, and start again on the same state file."""
        self.meters.hanging = False
        if cleanly:
            self.sampler.close()
        else:
            self.store.close()
        self._start()

    @invariant()
    def books_are_true(self) -> None:
        if not hasattr(self, "sampler") or self.sampler.snapshot is None:
            return
        series = self._series()
        openmetrics = self.renderer.body(self.sampler.snapshot, openmetrics=True).decode()
        assert list(parse_openmetrics(openmetrics))  # type: ignore[no-untyped-call]
        assert all(math.isfinite(value) for value in series.values()), series
        assert all(value >= 0 or name.startswith("energy_electricity_price") for (name, _), value in series.items())
        self._conserve(series)
        self._conserve_impact(series)
        self._conserve_activities(series)
        self._never_fall(series)
        self._show_devices(series)

    def _conserve(self, series: Series) -> None:
        nodes: dict[str, float] = {}
        attributed: dict[str, float] = {}
        parts = ("energy_container_joules_total", "energy_unattributed_joules_total", "energy_retired_joules_total")
        for (name, labels), value in series.items():
            component = dict(labels).get("component", "")
            if name == "energy_node_joules_total":
                nodes[component] = nodes.get(component, 0.0) + value
            elif name in parts:
                attributed[component] = attributed.get(component, 0.0) + value
        for component, joules in nodes.items():
            assert math.isclose(attributed.get(component, 0.0), joules, rel_tol=1e-9, abs_tol=1e-9), component
            # Never more than was really used, but for what a counter can hide for a moment: a slack of 0.1 s a tick.
            slack = PLAUSIBLE_WATTS[component] * 0.2 * (self.ticks + 1) + self.given[component] * 1e-9
            assert joules <= self.given[component] + self._hidden(component) + slack

    def _conserve_impact(self, series: Series) -> None:
        """Grams and money of all parts are the node's, and a factor that is not known has no series."""
        view = self.sampler.snapshot.impact if self.sampler.snapshot else None
        for kind, known in (("carbon_grams", "grams"), ("cost", "cost"), ("credit", "credit")):
            node = [value for (name, _), value in series.items() if name == f"energy_node_{kind}_total"]
            parts = [f"energy_{part}_{kind}_total" for part in ("container", "unattributed", "retired")]
            attributed = [value for (name, _), value in series.items() if name in (*parts, f"energy_unnamed_{kind}")]
            if view is None or getattr(view.rates, known) is None:
                assert node == attributed == []
            else:
                assert math.isclose(sum(attributed), *node, rel_tol=1e-9, abs_tol=1e-9), kind

    def _conserve_activities(self, series: Series) -> None:
        """The activities of each model are its GPU joules, in every scrape."""
        owed: dict[str, float] = {}
        for (name, labels), value in series.items():
            if name == "energy_model_activity_joules_total":
                owed[dict(labels)["model_name"]] = owed.get(dict(labels)["model_name"], 0.0) + value
            elif name == "energy_model_joules_total" and dict(labels)["component"] == "gpu":
                owed[dict(labels)["model_name"]] = owed.get(dict(labels)["model_name"], 0.0) - value
        for model, difference in owed.items():
            assert math.isclose(difference, 0.0, abs_tol=1e-9 * (self.given["gpu"] + 1.0)), model

    def _hidden(self, component: str) -> float:
        """A reset or a glitch below the plausible power looks like use: at most full power all the time."""
        return PLAUSIBLE_WATTS[component] * (self.now - 1000.0) - self.given[component]

    def _show_devices(self, series: Series) -> None:
        """Every device that was ever read has its counter, read now or not; together they make the node."""
        given = {key: value for key, value in series.items() if key[0] == "energy_device_joules_total"}
        assert self.devices <= given.keys()
        self.devices = set(given)
        for (_, labels), joules in given.items():
            component = dict(labels)["component"]
            node = series["energy_node_joules_total", (("component", component),)]
            assert math.isclose(joules, node, rel_tol=1e-9, abs_tol=1e-9), component

    def _never_fall(self, series: Series) -> None:
        """A series may fall only where another took its labels: a reused pid, or a process that went away and back."""
        births = {str(p): (self.moves[p], process.key.start_ticks) for p, (process, _) in self.use.processes.items()}
        reborn = {pid for pid, birth in births.items() if self.births.get(pid) != birth}
        self.births |= births
        self.may_fall |= {key for key in self.last if dict(key[1]).get("pid") in reborn}
        for key, value in series.items():
            if key[0].endswith(COUNTED) and value < self.last.get(key, 0.0) * (1 - 1e-12):
                assert key in self.may_fall, key
                self.may_fall.discard(key)
        self.last = series

    def teardown(self) -> None:
        if hasattr(self, "sampler"):
            self.sampler.close()
            shutil.rmtree(self.folder)


Node.TestCase.settings = settings(max_examples=40, stateful_step_count=40, deadline=None)
TestNode = Node.TestCase
