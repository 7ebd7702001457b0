"""The objects of deploy/kubernetes as ``kubectl kustomize`` renders them, and short ways to what is in them."""

from __future__ import annotations

import functools
import os
import re
import subprocess
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.support.patience import patience
from tests.support.prerequisites import lacking
from tests.support.repository import REPOSITORY

FOLDER = REPOSITORY / "deploy" / "kubernetes"
OVERLAYS = ("base", *sorted(f"overlays/{path.name}" for path in (FOLDER / "overlays").iterdir()))
PARTS = tuple(sorted(f"parts/{path.name}" for path in (FOLDER / "parts").iterdir()))
LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
KUBECTL = os.environ.get("KUBECTL", "kubectl")

DOCUMENT = REPOSITORY / "docs" / "deploy-kubernetes.md"

Object = dict[str, Any]


def rendered(folder: Path) -> list[Object]:
    """What ``kubectl apply -k`` would send. Skips the test without kubectl. Raises CalledProcessError."""
    if reason := lacking("kubectl"):
        pytest.skip(reason)
    command = [KUBECTL, "kustomize", str(folder)]
    text = subprocess.run(command, capture_output=True, text=True, timeout=patience(60), check=True).stdout
    return [found for found in yaml.load_all(text, Loader=LOADER) if found]


@functools.cache
def _rendered_once(name: str) -> list[Object]:
    return rendered(FOLDER / name)


def render(name: str) -> list[Object]:
    """The objects of a folder below deploy/kubernetes. Tests that change them copy them first."""
    return _rendered_once(name)


def example(word: str) -> str:
    """The one example of YAML in the documentation that has this word."""
    blocks = re.findall(r"```yaml\n(.*?)```", DOCUMENT.read_text(encoding="utf-8"), re.DOTALL)
    (found,) = [str(block) for block in blocks if word in block]
    return found


def of_kind(objects: Iterable[Object], *kinds: str) -> list[Object]:
    """Those of these kinds."""
    return [found for found in objects if found["kind"] in kinds]


def identity(found: Object) -> tuple[str, str, str]:
    """Kind, namespace and name."""
    return found["kind"], found["metadata"].get("namespace", ""), found["metadata"]["name"]


def pods(objects: Iterable[Object]) -> Iterator[tuple[str, Object]]:
    """Name of each DaemonSet and the specification of its pods."""
    for found in of_kind(objects, "DaemonSet"):
        yield found["metadata"]["name"], found["spec"]["template"]["spec"]


def mounts(pod: Object) -> Iterator[tuple[Object, Object]]:
    """Every mount of a pod's containers with its volume. Raises KeyError where there is no such volume."""
    volumes = {volume["name"]: volume for volume in pod["volumes"]}
    for container in pod["containers"]:
        for mount in container["volumeMounts"]:
            yield mount, volumes[mount["name"]]


def variables(container: Object) -> dict[str, str]:
    """Its environment, as far as it is written down; what is from a Secret has a value of documentation."""
    secrets = {"AI_ENERGY_BMC_REDFISH_URL": "https://{node}-bmc.example.com"}
    return {entry["name"]: entry.get("value", secrets.get(entry["name"], "")) for entry in container.get("env", [])}
