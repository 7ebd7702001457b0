"""Documents are read in terminals and reviewed line by line: no line is longer than 120 characters."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.repository import REPOSITORY

DOCUMENTS = sorted([*REPOSITORY.glob("*.md"), *(REPOSITORY / "docs").rglob("*.md")])
LONGEST = 120


def prose(text: str) -> Iterator[str]:
    """Lines that can be wrapped: no tables, no code, no addresses longer than a line."""
    code = False
    for line in text.splitlines():
        if line.lstrip().startswith("```"):
            code = not code
        elif not (code or line.startswith(("|", "    "))):
            yield re.sub(r"\bhttps?://[^\s)]+", "", line)


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: str(path.relative_to(REPOSITORY)))
def test_lines_are_no_longer_than_120(path: Path) -> None:
    assert [line for line in prose(path.read_text(encoding="utf-8")) if len(line) > LONGEST] == []


def test_tables_code_and_addresses_may_be_longer() -> None:
    long = "x" * (LONGEST + 1)
    text = f"| {long} |\n```\n{long}\n```\n    {long}\n[a](https://{long})\n- {long}\n"
    assert [line for line in prose(text) if len(line) > LONGEST] == [f"- {long}"]
