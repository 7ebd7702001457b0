"""Every way to install makes the directory in which programs look for the exporter's socket, and mounts it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

from exporter.config.settings import Settings
from exporter.regions.client import DEFAULT_SOCKET
from tests.support.repository import REPOSITORY

DIRECTORY = str(Path(DEFAULT_SOCKET).parent)


def test_program_and_exporter_mean_the_same_socket() -> None:
    assert Settings().regions_socket == DEFAULT_SOCKET


def test_the_unit_makes_it_and_other_users_may_enter() -> None:
    unit = (REPOSITORY / "deploy/systemd/ai-energy-exporter.service").read_text()
    assert f"\nRuntimeDirectory={DIRECTORY.removeprefix('/run/')}\n" in unit
    assert "\nRuntimeDirectoryMode=0755\n" in unit
    assert "\nRuntimeDirectoryPreserve=yes\n" in unit, "containers have it mounted"


def test_the_daemon_set_makes_and_mounts_it() -> None:
    spec = yaml.safe_load((REPOSITORY / "deploy/kubernetes/parts/daemonset/daemonset.yaml").read_text())
    pod = spec["spec"]["template"]["spec"]
    (volume,) = [each for each in pod["volumes"] if each.get("hostPath", {}).get("path") == DIRECTORY]
    assert volume["hostPath"]["type"] == "DirectoryOrCreate"
    (container,) = pod["containers"]
    (mount,) = [each for each in container["volumeMounts"] if each["name"] == volume["name"]]
    assert (mount["mountPath"], mount.get("readOnly", False)) == (DIRECTORY, False)
    assert pod["hostPID"] is True, "who reports is known by pid"


@pytest.mark.parametrize(
    ("file", "expected"),
    [
        ("deploy/helm/ai-energy-exporter/values.yaml", rf"hostPath: {DIRECTORY}\n"),
        ("deploy/compose/compose.yaml", rf"- {DIRECTORY}:{DIRECTORY} "),
        ("deploy/kubernetes/overlays/nonroot/ai-energy-exporter.conf", rf"d {DIRECTORY} 0755 "),
        ("docs/regions.md", rf"mountPath: {DIRECTORY}, readOnly: true"),
    ],
)
def test_the_others_name_it(file: str, expected: str) -> None:
    assert re.search(expected, (REPOSITORY / file).read_text())
