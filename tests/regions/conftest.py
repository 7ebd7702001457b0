"""A socket that stands for the exporter, and a client connected to it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from exporter.regions import Client
from tests.support.patience import patience
from tests.support.region_server import RegionServer


@pytest.fixture
def server(tmp_path: Path) -> Iterator[RegionServer]:
    running = RegionServer(tmp_path / "regions.sock")
    yield running
    running.close()


@pytest.fixture
def client(server: RegionServer) -> Client:
    """It waits for its lock as long as a busy machine may keep a thread that holds it."""
    return Client(str(server.path), lock_seconds=patience())
