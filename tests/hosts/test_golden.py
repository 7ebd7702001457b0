"""Each recorded machine's scrape, to the byte: what a user of that machine sees after its last instant."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from exporter.exposition.render import Renderer
from exporter.records import Snapshot
from exporter.sampler import Sampler, SamplerOptions
from exporter.sources import build
from exporter.workloads.namer import PathNamer

HERE = Path(__file__).parent
VOLATILE = ("process_", "energy_exporter_build_info", "energy_source_read_seconds_total", "energy_sample_seconds_total")
"""What depends on the machine the tests run on."""


def _machines() -> Any:
    spec = importlib.util.spec_from_file_location("machine", HERE / "machine.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


MACHINES = _machines()


def _snapshots(name: str, target: Path) -> tuple[list[Snapshot], list[dict[str, float]]]:
    """Every tick of a machine's recorded time, and what its devices really used in each."""
    machine = MACHINES.load(name, target)
    host = machine.host()
    # NVIDIA's library answers for the machine the tests run on, not for the recorded one.
    sampler = Sampler(
        build(host, {"nvml": False}),
        PathNamer(),
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


@pytest.mark.parametrize("name", MACHINES.names())
def test_scrape(name: str, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    snapshots, _ = _snapshots(name, tmp_path / name)
    scrape = _stable(Renderer().body(snapshots[-1]).decode())
    golden = HERE / name / "expected.prom"
    if request.config.getoption("--update-golden"):
        golden.write_text(scrape, encoding="utf-8")
    assert scrape == golden.read_text(encoding="utf-8"), "if this is meant: make golden, and review the difference"
    assert list(text_string_to_metric_families(scrape))


@pytest.mark.parametrize("name", MACHINES.names())
def test_every_joule_is_accounted_for_once(name: str, tmp_path: Path) -> None:
    """Devices = containers + unattributed + retired, and devices = what the hardware counted."""
    snapshots, truth = _snapshots(name, tmp_path / name)
    last = snapshots[-1]
    assert last.conservation_error_ratio <= 1e-9
    for row in last.devices:
        used = [step[row.device.id] for step in truth if row.device.id in step]
        if used and row.device.quality == "measured" and row.device.method == "energy_counter":
            assert row.joules == pytest.approx(sum(used), abs=1e-3), row.device.id
    booked: dict[str, float] = {}
    for account in last.containers:
        for (component, _), joules in zip(account.cells, account.joules, strict=True):
            booked[component] = booked.get(component, 0.0) + joules
    for component, _, joules in last.unattributed:
        booked[component] = booked.get(component, 0.0) + joules
    assert booked == pytest.approx({node.component: node.joules for node in last.nodes}, rel=1e-9)


def test_nested_and_duplicate_meters_are_counted_once(tmp_path: Path) -> None:
    """Fault 16: psys contains package and DRAM; the node is psys, no more."""
    snapshots, truth = _snapshots("intel-2s-dram-psys", tmp_path / "m")
    last = snapshots[-1]
    assert sum(node.joules for node in last.nodes) == pytest.approx(sum(step["psys-0"] for step in truth), abs=1e-3)


def test_machine_without_a_meter_starts_and_says_so(tmp_path: Path) -> None:
    """Fault 17: no zeros, an estimate that is called one."""
    snapshots, _ = _snapshots("cloud-vm", tmp_path / "m")
    rapl = next(source for source in snapshots[-1].sources if source.name == "rapl")
    assert (rapl.up, rapl.reason) == (False, "not_found")
    assert rapl.fix
    assert {row.device.quality for row in snapshots[-1].devices} == {"estimated"}
