"""A real helm, and what it makes of the chart."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.support.chart import FOLDER, NAMESPACE
from tests.support.manifests import LOADER, Object
from tests.support.patience import patience

HELM = os.environ.get("HELM", "helm")
KUBERNETES = "1.37.0"

Helm = Callable[..., subprocess.CompletedProcess[str]]
Template = Callable[..., list[Object]]


@pytest.fixture(scope="session")
def helm() -> Helm:
    """Run helm with some values; its whole output is in the result."""
    if shutil.which(HELM) is None:
        pytest.fail(f"{HELM} is missing: CONTRIBUTING.md says how to get it")

    def run(*arguments: str, values: dict[str, Any] | None = None) -> subprocess.CompletedProcess[str]:
        command = [HELM, *arguments, *(["--values=-"] if values is not None else [])]
        text = yaml.safe_dump(values)
        return subprocess.run(command, input=text, capture_output=True, text=True, timeout=patience(60), check=False)

    return run


@pytest.fixture(scope="session")
def template(helm: Helm) -> Template:
    """The objects that helm would install. Fails with what it says."""

    def objects(values: dict[str, Any], chart: Path = FOLDER, namespace: str = NAMESPACE) -> list[Object]:
        place = [f"--namespace={namespace}", f"--kube-version={KUBERNETES}"]
        done = helm("template", "release", str(chart), *place, values=values)
        assert done.returncode == 0, done.stderr
        return [found for found in yaml.load_all(done.stdout, Loader=LOADER) if found]

    return objects
