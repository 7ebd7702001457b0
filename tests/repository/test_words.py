"""The writing rule of CONTRIBUTING.md: no people-words for components, no bookkeeping or speech for data flow."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.support.repository import REPOSITORY

BANNED = re.compile(
    r"(?<![-\w/.`])(?:"
    r"whoever|whom|somebody|nobody|everybody|"
    r"told|untold|retold|tells?|"
    r"book(?:s|ed|ing)?|anew|lest|mend(?:s|ed|ing)?|dearer|stumbles?d?|"
    r"for good|gives? up|given up|gave up|giving up|takes? over|took over"
    r")(?![-\w/`])",
    re.IGNORECASE,
)
"""Words that operators do not search for. Quoted in backticks they are names, not prose."""

FOLDERS = ("exporter", "docs", "prometheus", "deploy", "grafana/generate", "grafana/render", "findings")
PROSE = {".py", ".md", ".yml", ".yaml", ".conf", ".service", ".rules", ".sh"}
RULE = REPOSITORY / "CONTRIBUTING.md"
FILES = sorted(
    path
    for path in [*(p for folder in FOLDERS for p in (REPOSITORY / folder).rglob("*")), *REPOSITORY.glob("*.md")]
    if path.suffix in PROSE and "node_modules" not in path.parts and path not in {RULE, REPOSITORY / "CHANGELOG.md"}
)


def banned(text: str) -> list[str]:
    """Line and word of each banned word."""
    return [
        f"line {number}: {match[0]!r}"
        for number, line in enumerate(text.splitlines(), start=1)
        for match in BANNED.finditer(line)
    ]


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(REPOSITORY)))
def test_plain_words(path: Path) -> None:
    assert banned(path.read_text(encoding="utf-8")) == []


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("the baseline gave up", 1),
        ("Nobody knows, whoever asks", 2),
        ("booked under a name", 1),
        ("joules are attributed to the container", 0),
        ("the cookbook, a notebook and `book`", 0),
        ("told\nuntold", 2),
    ],
)
def test_the_lint_finds_them(text: str, found: int) -> None:
    assert len(banned(text)) == found
