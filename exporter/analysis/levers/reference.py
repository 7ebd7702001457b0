"""Writes the section on levers of docs/advise.md: ``python -m exporter.analysis.levers.reference docs/advise.md``."""

from __future__ import annotations

import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path

from .lever import Lever
from .registry import LEVERS

HEADING = "## Levers"
_WIDTH = 120


def text() -> str:
    """The section: for each lever its title, when it applies, its estimate, queries, risk and published figures."""
    return "\n".join([HEADING, "", *(line for lever in LEVERS for line in _lines(lever))])


def _lines(lever: Lever) -> Iterator[str]:
    yield from (f"### {lever.name}", "", f"{lever.title}.", "")
    estimate = " ".join((lever.judge.__doc__ or "").split())
    for name, words in (
        ("Applies when", lever.applies),
        ("Estimate", estimate[:1].lower() + estimate[1:].rstrip(".")),
        ("Not if", lever.would_change),
        ("Risk", lever.risk),
        ("Undo", lever.undo),
        ("Elsewhere", lever.published),
    ):
        yield from textwrap.wrap(
            f"- {name}: {words}.", _WIDTH, subsequent_indent="  ", break_long_words=False, break_on_hyphens=False
        )
    yield from ("- Evidence, then counter-evidence:", "", "  ```promql")
    for query in (lever.evidence, lever.counter_evidence):
        yield from textwrap.wrap(
            query, _WIDTH, initial_indent="  ", subsequent_indent="    ", break_long_words=False, break_on_hyphens=False
        )
    yield from ("  ```", "")


def main() -> None:
    """Replace the section in the file that is given."""
    path = Path(sys.argv[1])
    before, _, _ = path.read_text(encoding="utf-8").partition(f"\n{HEADING}\n")
    path.write_text(f"{before}\n{text()}", encoding="utf-8")


if __name__ == "__main__":
    main()
