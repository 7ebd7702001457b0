"""Marks tests that need programs of the machine."""

from __future__ import annotations

import pytest

from tests.support.prerequisites import lacking


def needs(*names: str) -> pytest.MarkDecorator:
    """Skip where one of these names of the table of prerequisites is missing; the reason says how to get it."""
    reason = lacking(*names)
    return pytest.mark.skipif(bool(reason), reason=reason)
