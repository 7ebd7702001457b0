"""Options of the test suite."""

from __future__ import annotations

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    """``--update-golden`` writes the expected scrapes anew instead of comparing them."""
    parser.addoption("--update-golden", action="store_true", help="write tests/hosts/*/expected.prom anew")
