"""Each recorded machine's scrape, to the byte: what a user of that machine sees after its last instant."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from exporter.exposition.metrics.catalogue import CATALOGUE
from exporter.exposition.metrics.collector import exporter_registry
from exporter.exposition.metrics.render import Renderer
from exporter.sampling.sampler import Sampler, SamplerOptions
from exporter.snapshot import Snapshot
from exporter.sources.accelerators.gaudi import GaudiSource
from exporter.sources.accelerators.hlml import Hlml
from exporter.sources.accelerators.tpu import TpuSource
from exporter.sources.accelerators.tpu_metrics import TpuMetrics
from exporter.sources.hwmon.source import HwmonSource
from exporter.sources.nvml.source import NvmlSource
from exporter.sources.protocol import Source
from exporter.sources.registry import build
from exporter.sources.usage.cgroups import CgroupSource
from exporter.workloads.models.resolver import Models
from exporter.workloads.namer import WorkloadNamer
from tests.support import machine as machines
from tests.support.fake_tpu import FakeTpu, Messages
from tests.support.hlml import control as hlml_control
from tests.support.hlml.control import Card, FakeHlml
from tests.support.nvml import control
from tests.support.nvml.control import FakeDriver
from tests.support.nvml.node import fresh_bindings
from tests.support.repository import HOSTS

Played = tuple[list[Snapshot], list[dict[str, float]]]
Play = Callable[[str], Played]

VOLATILE = (
    "process_",
    "python_",
    "energy_exporter_build_info",
    "energy_source_read_seconds_total",
    "energy_sample_seconds_total",
    "energy_sample_duration_seconds",
    "energy_scrape_duration_seconds",
)
"""What depends on the machine the tests run on."""


@pytest.fixture
def play(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Play]:
    """Plays a machine from its first instant to its last."""
    with contextlib.ExitStack() as stack:

        def played(name: str) -> Played:
            machine = machines.load(name, tmp_path / name)
            # NVIDIA's library and a kubelet answer for the machine the tests run on, not for the recorded one.
            sources = build(machine.host(), {"nvml": False, "gaudi": False, "tpu": False, "podresources": False})
            if machine.gpus is not None:
                driver = stack.enter_context(FakeDriver(request.getfixturevalue("library"), tmp_path))
                stack.enter_context(pytest.MonkeyPatch.context()).setenv(control.STATE_VARIABLE, str(driver.path))
                machine.plug(driver)
                sources.insert(1, NvmlSource(machine.host(), fresh_bindings(driver.library)))
            if (cards := machine.recorded("gaudi.json")) is not None:
                fake = FakeHlml(request.getfixturevalue("hlml"), tmp_path, [Card(**card) for card in cards["cards"]])
                stack.enter_context(pytest.MonkeyPatch.context()).setenv(hlml_control.STATE_VARIABLE, str(fake.path))
                machine.follow(lambda shown: fake.show(cards["instants"][shown]))
                sources.insert(1, GaudiSource(machine.host(), Hlml((str(fake.library),))))
            if (said := machine.recorded("tpu.json")) is not None:
                sources.insert(1, _tpu(machine, said["instants"], stack, tmp_path))
            return _snapshots(machine, sources)

        yield played


def _tpu(machine: Any, instants: Sequence[Any], stack: contextlib.ExitStack, folder: Path) -> TpuSource:
    """The source of a machine's TPUs, whose runtime is asked at each instant."""
    runtime = FakeTpu(Messages(folder))
    runtime.start()
    stack.callback(runtime.stop)
    clients: list[TpuMetrics] = []

    def show(shown: int) -> None:
        runtime.values = {
            name: {int(device): value for device, value in values.items()} for name, values in instants[shown].items()
        }
        for client in clients:
            client.ask()

    def start(client: TpuMetrics) -> None:
        clients.append(client)
        client.ask()

    machine.follow(show)
    return TpuSource(machine.host(), address=runtime.address, start=start)


def _snapshots(machine: Any, sources: Sequence[Source]) -> Played:
    """Every tick of a machine's recorded time, and what its devices really used in each."""
    host = machine.host()
    sampler = Sampler(
        sources,
        WorkloadNamer(models=Models(host)),
        host,
        SamplerOptions(interval_seconds=5.0, source_timeout_seconds=5.0),
    )
    try:
        snapshots, truth = [sampler.tick()], []
        for _ in range(machine.instants):
            machine.advance()
            snapshots.append(sampler.tick())
            truth.append(dict(machine.joules))
    finally:
        sampler.close()
    return snapshots, truth


def _stable(body: str) -> str:
    lines = []
    for line in body.splitlines(keepends=True):
        name = line.split()[2] if line.startswith("#") else line
        if not name.startswith(VOLATILE):
            lines.append(line)
    return "".join(lines)


@pytest.mark.parametrize("name", machines.names())
def test_scrape(name: str, play: Play, request: pytest.FixtureRequest) -> None:
    snapshots, _ = play(name)
    scrape = _stable(Renderer(exporter_registry()).body(snapshots[-1]).decode())
    golden = HOSTS / name / "expected.prom"
    if request.config.getoption("--update-golden"):
        golden.write_text(scrape, encoding="utf-8")
    assert scrape == golden.read_text(encoding="utf-8"), "if this is meant: make golden, and review the difference"
    assert list(text_string_to_metric_families(scrape))


def test_every_gpu_metric_is_seen_on_some_machine() -> None:
    """Except what a kubelet's socket reports; and joules, watts and use of GPUs at every level."""
    scrapes = "".join(path.read_text(encoding="utf-8") for path in HOSTS.glob("*/expected.prom"))
    shown = {sample.name for family in text_string_to_metric_families(scrapes) for sample in family.samples}
    wanted = {family.name for family in CATALOGUE if family.name.startswith("energy_gpu_")}
    assert wanted - shown <= {"energy_gpu_allocated_ratio"}
    for level in ("process", "container", "model"):
        for quantity in ("joules_total", "power_watts", "utilization_ratio"):
            assert re.search(rf'^energy_{level}_{quantity}{{.*component="gpu"', scrapes, re.MULTILINE), (
                level,
                quantity,
            )


@pytest.mark.parametrize("name", machines.names())
def test_every_joule_is_accounted_for_once(name: str, play: Play) -> None:
    """Devices = containers + unattributed + retired, and devices = what the hardware counted."""
    snapshots, truth = play(name)
    last = snapshots[-1]
    assert last.energy.conservation_error_ratio <= 1e-9
    for row in last.energy.devices:
        used = [step[row.device.id] for step in truth if row.device.id in step]
        if used and row.device.quality == "measured" and row.device.method == "energy_counter":
            assert row.joules == pytest.approx(sum(used), abs=1e-3), row.device.id
    attributed: dict[str, float] = {}
    for account in last.energy.containers:
        for (component, _), joules in zip(account.cells, account.joules, strict=True):
            attributed[component] = attributed.get(component, 0.0) + joules
    for component, _, joules in last.energy.unattributed:
        attributed[component] = attributed.get(component, 0.0) + joules
    assert attributed == pytest.approx({node.component: node.joules for node in last.energy.nodes}, rel=1e-9)


def test_nested_and_duplicate_meters_are_counted_once(play: Play) -> None:
    """Fault 16: psys contains package and DRAM; the node is psys, no more."""
    snapshots, truth = play("intel-2s-dram-psys")
    last = snapshots[-1]
    assert sum(node.joules for node in last.energy.nodes) == pytest.approx(
        sum(step["psys-0"] for step in truth), abs=1e-3
    )


def test_a_gpu_that_knows_only_its_module_is_counted_once(
    tmp_path: Path, library: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Fault 16: a Grace Hopper whose GPU does not report its own power, beside the meters of module and CPU."""
    machine = machines.load("arm-grace", tmp_path / "machine")
    while machine.instants:
        machine.advance()
    passed = [0.0]
    host = replace(machine.host(), clock=lambda: machine.now + passed[0])
    with FakeDriver(library, tmp_path) as driver:
        monkeypatch.setenv(control.STATE_VARIABLE, str(driver.path))
        machine.plug(driver)
        (gpu,) = driver.gpus
        gpu.field(186, code=control.NOT_SUPPORTED)
        nvml = NvmlSource(host, fresh_bindings(driver.library))
        sources: list[Source] = [nvml, HwmonSource(host), CgroupSource(host)]
        options = SamplerOptions(interval_seconds=5.0, source_timeout_seconds=5.0)
        sampler = Sampler(sources, WorkloadNamer(models=Models(host)), host, options)
        snapshots = []
        for _ in range(8):
            snapshots.append(sampler.tick())
            passed[0] += 5.0
            gpu.energy_joules += 5.0 * 500.0
        sampler.close()
    watts = {row.device.id: row.watts for row in snapshots[-1].energy.devices if row.watts is not None}
    assert watts[gpu.uuid] == pytest.approx(500.0)
    nodes = {row.component: row.watts for row in snapshots[-1].energy.nodes}
    assert nodes == pytest.approx({"cpu": watts["grace-0"], "other": watts["module-0"] - watts["grace-0"]})
    counted = [sum(row.joules for row in snapshot.energy.nodes) for snapshot in snapshots]
    assert counted[-1] - counted[1] == pytest.approx(6 * 5.0 * watts["module-0"])
    assert snapshots[-1].energy.conservation_error_ratio <= 1e-9


def test_machine_without_a_meter_starts_and_says_so(play: Play) -> None:
    """Fault 17: no zeros, an estimate that is called one."""
    snapshots, _ = play("cloud-vm")
    rapl = next(source for source in snapshots[-1].exporter.sources if source.name == "rapl")
    assert (rapl.up, rapl.reason) == (False, "not_found")
    assert rapl.fix
    assert {row.device.quality for row in snapshots[-1].energy.devices} == {"estimated"}
