"""Every case of docs/cases.md names a test that exists."""

from __future__ import annotations

import re

import pytest

from tests.support.repository import REPOSITORY

TABLES = (REPOSITORY / "docs/cases.md").read_text(encoding="utf-8").splitlines()
ROWS = [line for line in TABLES if re.match(r"\| (?!report \|)", line)]


def references(row: str) -> list[tuple[str, str]]:
    """File and name of each test in the last cell; ``::name`` and ``…::name`` are in the file before."""
    cell = re.split(r"(?<!\\)\|", row.strip().strip("|"))[-1]
    found, file = [], "tests/accounting/test_ledger.py"
    for text in re.findall(r"`([^`]+)`", cell):
        path, _, name = text.partition("::")
        file = path if path.startswith(("tests/", "prometheus/")) else file
        found.append((file, name.rpartition("::")[2]))
    return found


@pytest.mark.parametrize("row", ROWS, ids=range(len(ROWS)))
def test_its_test_exists(row: str) -> None:
    named = references(row)
    assert named
    for file, name in named:
        text = (REPOSITORY / file).read_text(encoding="utf-8")
        assert name.partition("[")[0].removesuffix("…").strip() in text, (file, name)
