"""Make any string a label value that cannot break a scrape: cleaned, bounded in length, escaped."""

from __future__ import annotations

import re
from collections.abc import Iterable
from hashlib import blake2b

MAX_CHARACTERS = 256
"""Longest label value in characters; longer ones are truncated and end in a hash of the whole value (fault 46)."""

_HASH_BYTES = 4

_UNSAFE = re.compile(
    "["
    "\x00-\x09\x0b-\x1f\x7f-\x9f"  # control characters except the newline, which has its own escape
    "\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069"  # bidirectional overrides: they make a name look like another one
    "\u2028\u2029\ufeff"  # line separators and the byte order mark
    "\ud800-\udfff"  # lone surrogates: bytes that were not UTF-8
    "]"
)


OPTIONAL = frozenset({"variant"})
"""Labels that only series with a value for them have."""


def is_shown(name: str, value: str) -> bool:
    """Whether a series has a label: an `OPTIONAL` one is absent where it would be empty."""
    return value != "" or name not in OPTIONAL


def clean(value: str) -> str:
    """Return ``value`` as valid, printable text of at most `MAX_CHARACTERS`; unsafe characters become U+FFFD.

    A changed value ends in a hash of the original, so that values which differ stay different (faults 45, 46).
    """
    if len(value) <= MAX_CHARACTERS and ((value.isascii() and value.isprintable()) or not _UNSAFE.search(value)):
        return value
    digest = blake2b(value.encode("utf-8", "surrogatepass"), digest_size=_HASH_BYTES).hexdigest()
    return _UNSAFE.sub("\ufffd", f"{value[: MAX_CHARACTERS - 2 * _HASH_BYTES - 1]}~{digest}")


def escape(value: str) -> str:
    """Escape a cleaned label value for both text formats: backslash, double quote, newline."""
    return value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")


def escape_help(text: str) -> str:
    """Escape a HELP text for the format 0.0.4: backslash and newline (OpenMetrics escapes the quote too)."""
    return text.replace("\\", "\\\\").replace("\n", "\\n")


def pairs(names: Iterable[str], values: Iterable[str]) -> str:
    """Return ``name="value",…`` with every value cleaned and escaped; empty `OPTIONAL` ones are left out."""
    given = zip(names, values, strict=True)
    return ",".join([f'{name}="{escape(clean(value))}"' for name, value in given if is_shown(name, value)])
