"""What the doctor says of each kind of meter: whether it is read, what it measures, and what it adds."""

from __future__ import annotations

import io
from pathlib import Path

import pytest

from exporter.commands.doctor import report
from exporter.config.loading import load
from exporter.host import Host
from exporter.sources.accelerators.gaudi_process import GaudiProcess
from exporter.sources.accelerators.neuron import NeuronSource
from exporter.sources.accelerators.tpu import TpuSource
from exporter.sources.cpu.powercap import PowercapSource
from exporter.sources.cray.source import CraySource
from exporter.sources.custom.meter import Meter
from exporter.sources.custom.source import CustomSource
from exporter.sources.protocol import Source
from tests.support import machine as machines
from tests.support.written_node import WrittenNode


def said(host: Host, *sources: Source) -> list[str]:
    """The lines about sources, without their indentation."""
    out = io.StringIO()
    report(load({}, {}), sources, host, out, pause_seconds=0.0)
    return [line.strip() for line in out.getvalue().partition("\n\nCarbon")[0].splitlines()]


def test_cray(tmp_path: Path) -> None:
    host = machines.load("cray-ex", tmp_path).host()
    lines = said(host, CraySource(host))
    assert any(line.startswith("cray         works   cray-accel0 (gpu)") for line in lines)
    assert sum("counts only where no other meter measures it" in line for line in lines) == 6
    assert any(line.startswith("cray-node (platform)") for line in lines)


def test_powercap_names_what_the_operator_may_assign(tmp_path: Path) -> None:
    node = WrittenNode(tmp_path)
    node.text("sys/class/powercap/arm-scmi:0/name", "SOC")
    node.text("sys/class/powercap/arm-scmi:0/power_uw", 97_000_000)
    lines = said(node.host(), PowercapSource(node.host()))
    assert "powercap     works   powercap-SOC (platform): 97.0 W, part of node" in lines


def test_neuron_says_that_a_ratio_is_no_joule(tmp_path: Path) -> None:
    host = machines.load("trn2", tmp_path).host()
    lines = said(host, NeuronSource(host))
    assert any("GPU 0: Trainium2" in line and "41.2% of an unpublished maximum" in line for line in lines)
    assert any("POWER_STATUS_NO_DATA" in line for line in lines)
    estimated = said(host, NeuronSource(host, (100.0, 500.0)))
    assert any("between 100.0 and 500.0 W, estimated" in line for line in estimated)
    assert not any("SPECpower" in line for line in estimated), "that is the table of processors"


def test_tpu_without_a_program(tmp_path: Path) -> None:
    machine = machines.load("tpu-v5e", tmp_path)
    host = machine.host()
    lines = said(host, TpuSource(host, address="localhost:1", start=lambda metrics: metrics.ask()))
    assert any("TPU v5e (tpu-0000:00:04.0)" in line for line in lines)


def test_a_meter_of_ones_own_that_fails(tmp_path: Path) -> None:
    node = WrittenNode(tmp_path)
    (setting,) = load({"meters": ["{name: pdu, command: /nonexistent/snmpget -c s3cret, unit: kWh}"]}, {}).meters
    source = CustomSource(node.host(), [Meter(**setting._asdict())], start=lambda poller: poller.read())
    text = "\n".join(said(node.host(), source))
    assert "meter pdu: /nonexistent/snmpget: No such file or directory (not_found)" in text
    assert "fix: name an executable program" in text
    assert "s3cret" not in text


@pytest.mark.parametrize("make", [CraySource, PowercapSource, NeuronSource, TpuSource, GaudiProcess])
def test_machines_without_one_are_told_that_nothing_is_wrong(make: type, tmp_path: Path) -> None:
    host = WrittenNode(tmp_path).host()
    text = "\n".join(said(host, make(host)))
    assert "(not_found)" in text
    assert "fix: nothing to do" in text
