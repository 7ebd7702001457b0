"""Options of the test suite."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, settings

# On a busy machine any example may take long: that is no failure.
settings.register_profile("patient", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("patient")


def pytest_addoption(parser: pytest.Parser) -> None:
    """``--update-golden`` writes the expected scrapes anew instead of comparing them."""
    parser.addoption("--update-golden", action="store_true", help="write tests/hosts/*/expected.prom anew")
