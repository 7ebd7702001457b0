"""Fixtures with real cgroups."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from exporter.host import Host
from tests.support.cgroups import Forest, Ticker, mount_point


@pytest.fixture(params=["v2", "v1"])
def forest(request: pytest.FixtureRequest) -> Iterator[Forest]:
    where = mount_point(request.param)
    if where is None:
        pytest.skip(f"no cgroup {request.param} tree with CPU accounting is mounted here")
    try:
        made = Forest(where, "cpu.stat" if request.param == "v2" else "cpuacct.usage")
    except OSError as error:
        pytest.skip(f"cgroups cannot be made here: {error.strerror}")
    try:
        yield made
    finally:
        made.close()


@pytest.fixture
def ticker(forest: Forest) -> Iterator[Ticker]:
    made = Ticker(Host(cgroupfs=forest.root))
    try:
        yield made
    finally:
        made.source.close()
