"""Options of the test suite, and the program as a process."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
from hypothesis import HealthCheck, settings

from tests.program import Running

# On a busy machine any example may take long: that is no failure.
settings.register_profile("patient", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("patient")


def pytest_addoption(parser: pytest.Parser) -> None:
    """``--update-golden`` writes the expected scrapes anew instead of comparing them."""
    parser.addoption("--update-golden", action="store_true", help="write tests/hosts/*/expected.prom anew")


@pytest.fixture
def start() -> Iterator[Callable[..., Running]]:
    """Start the program; whatever still runs at the end of a test is killed."""
    started: list[Running] = []

    def start_one(*flags: str) -> Running:
        started.append(Running(flags))
        return started[-1]

    yield start_one
    for one in started:
        if one.process.poll() is None:
            one.process.kill()
            one.process.wait()
