"""docs/advise.md: its section on levers is generated from them."""

from __future__ import annotations

from exporter.analysis.levers import reference
from exporter.analysis.levers.registry import LEVERS
from tests.support.repository import REPOSITORY

DOCUMENT = REPOSITORY / "docs/advise.md"


def test_levers_are_as_in_the_document() -> None:
    assert DOCUMENT.read_text(encoding="utf-8").endswith(f"\n{reference.text()}"), "make docs"


def test_every_lever_has_its_section() -> None:
    assert [line for line in reference.text().splitlines() if line.startswith("### ")] == [
        f"### {lever.name}" for lever in LEVERS
    ]
