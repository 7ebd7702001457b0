"""Recorded machines with their BMC: what a scrape says of the node, of what is beyond its parts, and of the BMC."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from exporter.exposition.metrics.render import Renderer
from exporter.sampling.sampler import Sampler, SamplerOptions
from exporter.snapshot import Snapshot
from exporter.sources.nvml.source import NvmlSource
from exporter.sources.registry import build
from exporter.workloads.namer import WorkloadNamer
from tests.sources.bmc.stepped import SteppedBmc
from tests.support import machine as machines
from tests.support.mock_bmc import MockBmc, login_file
from tests.support.nvml import control
from tests.support.nvml.control import FakeDriver
from tests.support.nvml.node import fresh_bindings
from tests.support.repository import HOSTS

MAKERS = {
    "intel-2s-dram-psys": "Dell iDRAC",
    "amd-epyc": "HPE iLO",
    "a100-4x-mig": "Supermicro",
    "h100-8x": "HGX H100",
}
SHOWN = ("energy_node_", "energy_device_joules_total", "energy_device_power_watts", "energy_power_source_info")


@pytest.fixture(params=MAKERS)
def played(
    request: pytest.FixtureRequest, tmp_path: Path, library: Path, monkeypatch: pytest.MonkeyPatch
) -> tuple[str, list[Snapshot]]:
    """A machine with its BMC, played from its first instant to its last."""
    name: str = request.param
    machine = machines.load(name, tmp_path / name)
    document = json.loads((HOSTS / name / "bmc.json").read_text(encoding="utf-8"))
    credentials = login_file(tmp_path)
    host = machine.host()
    first, *later = document["instants"]
    with MockBmc(first) as bmc, FakeDriver(library, tmp_path) as driver:
        sources: list[Any] = build(host, {"nvml": False, "podresources": False})
        if machine.gpus is not None:
            monkeypatch.setenv(control.STATE_VARIABLE, str(driver.path))
            machine.plug(driver)
            sources.append(NvmlSource(host, fresh_bindings(driver.library)))
        sources.append(SteppedBmc(bmc, str(credentials), host.clock, 5.0))
        options = SamplerOptions(interval_seconds=5.0, source_timeout_seconds=5.0)
        sampler = Sampler(sources, WorkloadNamer(), host, options)
        try:
            snapshots = [sampler.tick()]
            for changed in later:
                machine.advance()
                bmc.resources |= changed
                snapshots.append(sampler.tick())
        finally:
            sampler.close()
    return name, snapshots


def test_scrape(played: tuple[str, list[Snapshot]], request: pytest.FixtureRequest) -> None:
    """To the byte: the node's counters and those of the BMC; its meters are devices, of which one is the node."""
    name, snapshots = played
    body = Renderer().body(snapshots[-1]).decode()
    kept = [line for line in body.splitlines(keepends=True) if line.startswith(SHOWN)]
    scrape = "".join(line for line in kept if line.startswith("energy_node_") or 'source="bmc"' in line)
    golden = HOSTS / name / "expected-bmc.prom"
    if request.config.getoption("--update-golden"):
        golden.write_text(scrape, encoding="utf-8")
    assert scrape == golden.read_text(encoding="utf-8"), "if this is meant: make golden, and review the difference"


def test_every_joule_counts_once(played: tuple[str, list[Snapshot]]) -> None:
    """Components keep their own meters, and all of the node is at most what its BMC measured."""
    _, snapshots = played
    last = snapshots[-1].energy
    assert all(snapshot.energy.conservation_error_ratio <= 1e-9 for snapshot in snapshots)
    (whole,) = [row for row in last.devices if row.device.source == "bmc" and row.device.scope != "part"]
    parts = [row for row in last.devices if row.device.component in {"cpu", "dram", "gpu"}]
    assert {row.device.source for row in parts} <= {"rapl", "nvml", "hwmon"}
    nodes = {row.component: row.joules for row in last.nodes}
    assert nodes["other"] > 0
    # A counter begins with its first step, the parts with the first reading.
    assert sum(nodes.values()) <= whole.joules * 1.02 + 6 * whole.device.step_joules
