"""Label values: whatever a process calls itself, the scrape stays whole."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from exporter.exposition.metrics.labels import MAX_CHARACTERS, clean, escape, pairs

HOSTILE = st.text(st.characters(exclude_categories=()), max_size=400)


@pytest.mark.parametrize("value", ["", "vllm", "näme 模型 🚀", 'a"b', "a\\b", "two\nlines", "x" * MAX_CHARACTERS])
def test_what_is_safe_stays(value: str) -> None:
    assert clean(value) == value


@pytest.mark.parametrize("bad", ["\x00", "\r", "\x1b[31m", "\x85", "\udcff", "\u202e", "\u2066", "\u2028", "\ufeff"])
def test_what_is_unsafe_is_made_visible_and_told_apart(bad: str) -> None:
    """Fault 45: control characters, direction overrides and bytes that were not UTF-8."""
    assert clean(f"a{bad}b").startswith("a\ufffd")
    assert bad not in clean(f"a{bad}b")
    assert clean(f"a{bad}b") != clean("a\x01b")


def test_values_equal_after_truncation_stay_different() -> None:
    """Fault 46."""
    one, two = clean("m" * 1_000_000 + "1"), clean("m" * 1_000_000 + "2")
    assert len(one) == len(two) == MAX_CHARACTERS
    assert one != two


@given(HOSTILE)
def test_any_text_becomes_valid_and_bounded(value: str) -> None:
    """Faults 45 and 46; cleaning twice changes nothing more."""
    cleaned = clean(value)
    assert len(cleaned) <= MAX_CHARACTERS
    cleaned.encode("utf-8")
    assert clean(cleaned) == cleaned
    assert "\n" not in escape(cleaned)


def test_pairs_escape_backslash_quote_and_newline() -> None:
    assert pairs(("a", "b"), ('x"\\', "1\n2")) == 'a="x\\"\\\\",b="1\\n2"'
