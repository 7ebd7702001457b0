"""The zone of a machine, from cloud-init's own description of it, or from its firmware and Kubernetes."""

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
    assert detect(str(tmp_path), {}, written(tmp_path, {"v1": names})) == zone


@pytest.mark.parametrize("content", ["", "{", "[]", '{"v1": 3}', '{"v1": {}}', '{"v1": null}', "null"])
def test_a_file_that_says_nothing(tmp_path: Path, content: str) -> None:
    assert detect(str(tmp_path), {}, written(tmp_path, content)) == ""


def test_no_file(tmp_path: Path) -> None:
    assert detect(str(tmp_path), {}, tmp_path / "none") == ""


@pytest.mark.parametrize(
    ("firmware", "region", "zone"),
    [
        ({"sys_vendor": "Amazon EC2\n"}, "eu-west-3", "aws/eu-west-3"),
        ({"sys_vendor": "Xen\n", "bios_version": "4.11.amazon\n"}, "eu-west-3", "aws/eu-west-3"),
        ({"sys_vendor": "Google\n", "product_name": "Google Compute Engine\n"}, "europe-west9", "gcp/europe-west9"),
        ({"chassis_asset_tag": "7783-7084-3265-9085-8269-3286-77\n"}, "westeurope", "azure/westeurope"),
        ({"sys_vendor": "Google\n", "product_name": "Chromebox\n"}, "europe-west9", ""),
        ({"sys_vendor": "Microsoft Corporation\n", "chassis_asset_tag": "1234\n"}, "westeurope", ""),
        ({"sys_vendor": "Dell Inc.\n"}, "eu-west-3", ""),
        ({"sys_vendor": "Amazon EC2\n"}, "", ""),
        ({}, "eu-west-3", ""),
    ],
)
def test_a_pod_knows_the_provider_from_the_firmware_and_the_region_from_its_label(
    tmp_path: Path, firmware: dict[str, str], region: str, zone: str
) -> None:
    folder = tmp_path / "class/dmi/id"
    folder.mkdir(parents=True)
    for name, text in firmware.items():
        (folder / name).write_text(text)
    assert detect(str(tmp_path), {"NODE_REGION": region}, tmp_path / "none") == zone
