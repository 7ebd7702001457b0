"""Names of other people's models stay in their cell, whatever they are."""

from __future__ import annotations

import csv
import io
from dataclasses import replace
from html.parser import HTMLParser

import pytest
from hypothesis import given
from hypothesis import strategies as st

from exporter.analysis import formats, page
from exporter.analysis.cells import markdown_cell, padded, printable, spreadsheet_cell, width
from exporter.analysis.lines import Amounts, Line, Report
from exporter.analysis.window import Window

NAMES = st.text(st.characters(codec="utf-8"), min_size=1, max_size=12)


def report(*names: str) -> Report:
    """A model of each name in the first one's namespace, of one joule each."""
    used = Amounts({("gpu", "active"): 1.0})
    lines = [Line((names[0], name), used) for name in names]
    total = Amounts({("gpu", ""): float(len(names))})
    return Report(Window(0.0, 3600.0), ("namespace", "model_name"), lines, [], total, 3600.0, 0.0)


@given(NAMES, NAMES)
def test_a_line_of_text_and_of_markdown_is_one_line(namespace: str, name: str) -> None:
    """No name breaks a line, ends a cell or sends a control sequence to the terminal."""
    plain = formats.text(report("a", "b"))
    assert formats.text(report(namespace, name)).count("\n") == plain.count("\n")
    assert all(each.isprintable() for each in formats.text(report(namespace, name)).split("\n"))
    head, _, *rows = [line for line in formats.markdown(report(namespace, name)).split("\n") if line[:1] == "|"]
    assert len(rows) == 3
    for row in rows:
        unescaped = row.replace("\\\\", "").replace("\\|", "")
        assert unescaped.count("|") == head.count("|")


@given(NAMES)
def test_no_name_is_a_formula(name: str) -> None:
    """And every other one is as it was, if it is printable."""
    _, row, *_ = csv.reader(io.StringIO(formats.comma_separated(report(name))))
    assert row[1] in (printable(name), f"'{printable(name)}")
    assert not row[1].startswith(("=", "+", "-", "@"))


def test_no_name_is_html() -> None:
    """On the page, and where Markdown is rendered."""
    name = "</script><script>alert(1)</script><img src=x onerror=alert(1)>"
    tags: list[str] = []

    class Tags(HTMLParser):
        def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
            tags.append(tag)

    Tags().feed(page.page(report(name)))
    Tags().feed(formats.markdown(report(name)))
    assert not {"script", "img"} & set(tags)


@pytest.mark.parametrize(
    ("text", "shown"),
    [("a\nb", "a\\nb"), ("\x1b[31mred", "\\x1b[31mred"), ("a\u202eb", "a\\u202eb"), ("日本 é", "日本 é")],
)
def test_control_characters_are_visible(text: str, shown: str) -> None:
    """As in a string of Python."""
    assert printable(text) == shown


def test_numbers_and_comparisons_in_markdown_stay() -> None:
    """Only what begins a tag is HTML."""
    assert markdown_cell("<0.001 | a\\b <b>") == "<0.001 \\| a\\\\b &lt;b>"


def test_negative_amounts_are_numbers_for_spreadsheets() -> None:
    """Only names are quoted."""
    credit = replace(report("-a"), lines=[Line(("-a", "b"), Amounts({("gpu", "active"): 1.0}, cost={"EUR": -2.0}))])
    line = next(csv.DictReader(io.StringIO(formats.comma_separated(credit))))
    assert (line["namespace"], line["cost_EUR"]) == ("'-a", "-2.0")
    assert spreadsheet_cell("org/a-b") == "org/a-b"


def test_columns_are_those_of_a_terminal() -> None:
    """East Asian letters take two, combining marks none."""
    assert [width(text) for text in ("abc", "日本", "e\u0301")] == [3, 4, 1]
    assert (padded("日", 4), padded("日", 4, right=True), padded("long", 2)) == ("日  ", "  日", "long")


def test_what_rounds_to_nothing_has_no_sign() -> None:
    """Neither a share nor an amount of money."""
    small = Amounts({("cpu", ""): -1.0}, cost={"EUR": -0.001})
    shown = formats.text(replace(report("a"), shared=[("rest", small)], total=Amounts({("gpu", ""): 1e6})))
    assert "<0.01 EUR" in shown
    assert "-0%" not in shown
