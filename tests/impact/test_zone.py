"""The zone of a machine, from cloud-init's own description of it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from exporter.impact.zone import detect


def written(folder: Path, content: object) -> Path:
    file = folder / "instance-data.json"
    file.write_text(content if isinstance(content, str) else json.dumps(content))
    return file


@pytest.mark.parametrize(
    ("names", "zone"),
    [
        ({"cloud_name": "aws", "region": "eu-west-3", "availability_zone": "eu-west-3a"}, "aws/eu-west-3"),
        ({"cloud_name": "azure", "region": "westeurope"}, "azure/westeurope"),
        ({"cloud_name": "gce", "region": "europe-west9"}, "gcp/europe-west9"),
        ({"cloud_name": "openstack", "region": "RegionOne"}, ""),
        ({"cloud_name": "aws", "region": None}, ""),
        ({"cloud_name": "unknown"}, ""),
    ],
)
def test_the_region_that_cloud_init_names(tmp_path: Path, names: dict[str, str | None], zone: str) -> None:
    assert detect(written(tmp_path, {"v1": names})) == zone


@pytest.mark.parametrize("content", ["", "{", "[]", '{"v1": 3}', '{"v1": {}}', '{"v1": null}', "null"])
def test_a_file_that_says_nothing(tmp_path: Path, content: str) -> None:
    assert detect(written(tmp_path, content)) == ""


def test_no_file(tmp_path: Path) -> None:
    assert detect(tmp_path / "none") == ""
