"""The examples of docs/meters.md, each run as it stands there against a program or file of that name."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

from exporter.config.loading import load
from exporter.records import EnergyReading, PowerReading
from exporter.sources.custom.meter import Meter
from exporter.sources.custom.source import CustomSource
from tests.support.patience import wait_for
from tests.support.repository import REPOSITORY
from tests.support.written_node import WrittenNode

EXAMPLES = re.findall(r"```yaml\n(- name.*?)```", (REPOSITORY / "docs/meters.md").read_text(), re.DOTALL)

QAIC = """QID 0
  Status:Ready
  Board Power: 35.5 W
QID 1
  Status:Ready
  Board Power: 36.25 W
"""

PRINTS = {"snmpget": "41235\n", "qaic-util": QAIC, "lxi": "+2.174500E+01\n"}
EXPECTED = {
    "pdu": 4123.5 * 3.6e6,
    "pdu-power": 412_350.0,
    "cloud-ai-100": 71.75,
    "cpu-rail": 1_234.567,
    "bench": 21.745,
}


def test_every_example_is_here() -> None:
    names = [entry["name"] for text in EXAMPLES for entry in yaml.safe_load(text)]
    assert sorted(names) == sorted(EXPECTED)


@pytest.mark.parametrize("text", EXAMPLES, ids=[yaml.safe_load(text)[0]["name"] for text in EXAMPLES])
def test_an_example_reads_its_number(text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for entry in yaml.safe_load(text):
        assert len(entry) <= 6
    for name, output in PRINTS.items():
        (tmp_path / "output").mkdir(exist_ok=True)
        (tmp_path / "output" / name).write_text(output)
        program = tmp_path / name
        program.write_text(f"#!/bin/sh\nexec cat '{tmp_path}/output/{name}'\n")
        program.chmod(0o755)
    (tmp_path / "millijoules").write_text("1234567\n")
    text = text.replace("/opt/qti-aic/tools/", f"{tmp_path}/").replace("/run/lab/", f"{tmp_path}/")
    file = tmp_path / "meters.yaml"
    file.write_text(text)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    settings = load({"meters.file": str(file)}, {})
    node = WrittenNode(tmp_path / "node")
    source = CustomSource(node.host(), [Meter(**meter._asdict()) for meter in settings.meters])
    try:
        found: dict[str, float] = {}

        def all_read() -> bool:
            reading = source.read(node.now)
            assert not reading.problems, reading.problems
            for meter in reading.meters:
                value = meter.joules if isinstance(meter, EnergyReading) else meter.watts
                found[meter.device.name] = value
                assert isinstance(meter, PowerReading) == (meter.device.method == "power_integrated")
            return len(found) == len(settings.meters)

        wait_for(all_read)
    finally:
        source.close()
    assert found == pytest.approx({name: EXPECTED[name] for name in found})
