"""The table of command lines and pods in command_lines.yaml, line by line."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

import pytest
import yaml

from exporter.config.settings import Settings
from exporter.records import GroupKey, Workload
from exporter.workloads.metadata.container_engines import read_container
from exporter.workloads.metadata.container_metadata import ContainerMetadata
from exporter.workloads.metadata.pod_parser import read_pod
from exporter.workloads.models.declared import ModelOptions
from exporter.workloads.models.evidence import NOTHING, Evidence
from exporter.workloads.models.recognise import recognise
from exporter.workloads.models.resolver import Models

TABLE: dict[str, list[dict[str, Any]]] = yaml.safe_load(
    Path(__file__).with_name("command_lines.yaml").read_text(encoding="utf-8")
)
SETTINGS = Settings()


def words(row: dict[str, Any], key: str = "command") -> list[str]:
    """The words of a row's command."""
    value = row.get(key, [])
    return shlex.split(value) if isinstance(value, str) else [str(word) for word in value]


def name(row: dict[str, Any]) -> str:
    """Test id of a row."""
    return str(row.get("name") or row["command"])[:90]


def test_the_table_has_its_minimum_size() -> None:
    assert len(TABLE["models"]) + len(TABLE["pods"]) >= 90
    assert len(TABLE["none"]) >= 30
    every = [str(row["command"]) for key in ("models", "unnamed", "none") for row in TABLE[key]]
    assert len(set(every)) == len(every)


@pytest.mark.parametrize("row", TABLE["models"], ids=name)
def test_a_command_line_with_model_and_phase(row: dict[str, Any]) -> None:
    found = recognise(words(row))
    assert (found.model_name, found.phase, found.source) == (row["model"], row["phase"], "command")


@pytest.mark.parametrize("row", TABLE["unnamed"], ids=name)
def test_a_command_line_with_only_a_phase(row: dict[str, Any]) -> None:
    found = recognise(words(row))
    assert (found.model_name, found.phase) == ("", row["phase"])


@pytest.mark.parametrize("row", TABLE["none"], ids=name)
def test_a_command_line_without_a_model(row: dict[str, Any]) -> None:
    found = recognise(words(row))
    assert found._replace(phase="", why="", server=None) == NOTHING, row.get("why", "")
    assert isinstance(found, Evidence)


def container_metadata(row: dict[str, Any]) -> ContainerMetadata:
    """Metadata of a row's container: of its pod as the API server returns it, or as Docker describes it."""
    image, variables = row.get("image", ""), row.get("environment", {})
    if row.get("engine") == "docker":
        first, *rest = words(row, "spec")
        config = {"Image": image, "Env": [f"{name}={value}" for name, value in variables.items()]}
        return read_container({"Name": "/main", "Path": first, "Args": rest, "Config": config})
    pod = {
        "metadata": {
            "uid": "u1",
            "name": "pod-0",
            "namespace": "team",
            "labels": row.get("labels", {}),
            "annotations": row.get("annotations", {}),
            "ownerReferences": [{"kind": row["owner_kind"], "name": "owner"}] if "owner_kind" in row else [],
        },
        "spec": {
            "containers": [
                {
                    "name": "main",
                    "image": image,
                    "command": words(row, "spec"),
                    "env": [{"name": name, "value": value} for name, value in variables.items()],
                }
            ]
        },
        "status": {"containerStatuses": [{"name": "main", "containerID": "containerd://c1"}]},
    }
    return read_pod(pod)[1]["c1"]


@pytest.mark.parametrize("row", TABLE["pods"], ids=name)
def test_a_pod_adds_evidence(row: dict[str, Any], proc: Any) -> None:
    process = proc.add(7, words(row))
    metadata = container_metadata(row)
    models = Models(proc.host, ModelOptions((), SETTINGS.models_keys, SETTINGS.models_phase_keys))
    model = models.resolve(process, GroupKey("/a", 1), Workload("team", "pod-0", "main", "kubernetes"), metadata)
    models.close()
    if "model" not in row:
        assert model is None
    else:
        assert model is not None
        assert (model.model_name, model.phase, model.source) == (row["model"], row["phase"], row["source"])
        assert model.namespace == "team"
