"""What ``make regions-check`` found with a real PyTorch is what docs/regions.md says."""

from __future__ import annotations

import json

import pytest

from tests.regions.check import EXPECTED, TOLERANCE
from tests.support.repository import REPOSITORY

RECORDED = REPOSITORY / "tests/regions/training-pytorch-2.13.0.json"
DOCUMENT = REPOSITORY / "docs/regions.md"


def test_regions_of_a_real_training_add_up_to_its_process() -> None:
    found = json.loads(RECORDED.read_text(encoding="utf-8"))
    assert set(found["regions"]) == EXPECTED
    assert sum(found["regions"].values()) == pytest.approx(found["process_joules"], rel=TOLERANCE)
    assert sum(found["trace_layers"].values()) == pytest.approx(found["trace_joules"], rel=0.01)


def test_the_document_has_these_figures() -> None:
    found, text = json.loads(RECORDED.read_text(encoding="utf-8")), DOCUMENT.read_text(encoding="utf-8")
    for name, joules in found["regions"].items():
        assert name in text
        assert f"{joules:.1f} J" in text or f"{joules + 1e-9:.1f} J" in text
