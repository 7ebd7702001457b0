"""``ai-energy-exporter budgets --status``: how much of each budget is used, read from Prometheus."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping, Sequence

from ..analysis import budget_status
from . import read_back

_RENDER = {
    "text": budget_status.text,
    "markdown": budget_status.markdown,
    "csv": budget_status.comma_separated,
    "json": budget_status.as_json,
}
_EPILOG = """\
verdict: within; will be used up (at the present net growth, in the time shown); used up; no data (its selector matches
nothing, or its rules have not been evaluated yet)

exit status: 0 all are within, 3 one is used up or will be, 2 usage error, 1 anything else, such as no budgets
"""

EXCEEDED = 3
"""Exit status if a budget is used up, or will be."""


def parser() -> read_back.Parser:
    """Its flags."""
    made = read_back.parser(
        "budgets --status", "Print how much of each energy budget is used. See docs/rules.md.", _EPILOG
    )
    add = made.add_argument
    add("--owner", default="", metavar="NAME", help="only the budgets of this owner")
    add("--format", choices=tuple(_RENDER), default="text", help="text (default); csv for spreadsheets")
    read_back.add_output(made)
    return made


def run(words: Sequence[str], environ: Mapping[str, str] = os.environ, now: Callable[[], float] = time.time) -> int:
    """Run the command. Returns the exit status: 0 if all budgets are within, 3 if not, 2 and 1 for errors."""

    def answer(given: read_back.Given) -> tuple[str, int]:
        found = budget_status.collect(read_back.connect(given), now(), read_back.matchers(given), given["owner"])
        exceeded = any(status.verdict in ("used up", "will be used up") for status in found)
        return _RENDER[given["format"]](found), EXCEEDED if exceeded else 0

    return read_back.run(parser(), words, environ, answer)
