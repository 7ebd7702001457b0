"""Every fault that docs/faults.md promises to survive is quoted by a test."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.support.repository import REPOSITORY, TESTS

PROMISED = [
    int(number)
    for number in re.findall(r"^\| (\d+) \|", (REPOSITORY / "docs/faults.md").read_text(encoding="utf-8"), re.MULTILINE)
]


def _quoted() -> set[int]:
    quoted: set[int] = set()
    for path in TESTS.rglob("test_*.py"):
        if path.name == Path(__file__).name:
            continue
        text = path.read_text(encoding="utf-8")
        for numbers in re.findall(r"[Ff]aults? ((?:\d+(?:, | and |–)?)+)", text):
            for first, last in re.findall(r"(\d+)(?:–(\d+))?", numbers):
                quoted.update(range(int(first), int(last or first) + 1))
    return quoted


@pytest.mark.parametrize("number", PROMISED)
def test_is_quoted_by_a_test(number: int) -> None:
    assert number in _quoted()


def test_the_list_is_complete() -> None:
    assert set(range(1, 71)) == set(PROMISED)
