"""A BMC that measures, and its login."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.sources.bmc import boards
from tests.support.mock_bmc import MockBmc, login_file


@pytest.fixture
def bmc() -> Iterator[MockBmc]:
    with MockBmc(boards.energy(joules=1000.0)) as made:
        yield made


@pytest.fixture
def login(tmp_path: Path) -> Path:
    return login_file(tmp_path)
