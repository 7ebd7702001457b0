"""Names of other people's models, pods and labels as cells: of a terminal, of Markdown, of a spreadsheet."""

from __future__ import annotations

import re
import unicodedata

_TAG = re.compile(r"<(?=[a-zA-Z/!?])")
_FORMULA = ("=", "+", "-", "@")


def printable(text: str) -> str:
    """Without control characters: a line break is ``\\n``, so that a name stays in its line and colours nothing."""
    return "".join(
        each if each.isprintable() else each.encode("unicode_escape").decode("ascii", "replace") for each in text
    )


def markdown_cell(text: str) -> str:
    """A cell of a table in Markdown: no end of the cell and no HTML in it."""
    return _TAG.sub("&lt;", printable(text).replace("\\", "\\\\").replace("|", "\\|"))


def spreadsheet_cell(text: str) -> str:
    """A cell of CSV that no spreadsheet takes for a formula: a quote is put before what looks like one."""
    cell = printable(text)  # csv of Python 3.11 does not quote a carriage return
    return f"'{cell}" if cell.startswith(_FORMULA) else cell


def width(text: str) -> int:
    """Columns of a terminal: East Asian letters take two, combining marks none."""
    return sum(
        0 if unicodedata.combining(each) else 2 if unicodedata.east_asian_width(each) in ("W", "F") else 1
        for each in text
    )


def padded(text: str, columns: int, *, right: bool = False) -> str:
    """The text filled with spaces up to ``columns`` of a terminal."""
    spaces = " " * max(0, columns - width(text))
    return spaces + text if right else text + spaces
