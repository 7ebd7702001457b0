"""A machine with scripted NVIDIA cards, and the source that reads them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from exporter.sources.nvml.source import NvmlSource
from tests.support.nvml import control
from tests.support.nvml.control import FakeDriver
from tests.support.nvml.node import Node


@pytest.fixture
def node(library: Path, bindings: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Node]:
    with FakeDriver(library, tmp_path) as driver:
        monkeypatch.setenv(control.STATE_VARIABLE, str(driver.path))
        yield Node(tmp_path, driver, bindings)


@pytest.fixture
def source(node: Node) -> Iterator[NvmlSource]:
    made = NvmlSource(node.host, node.bindings)
    yield made
    made.close()
