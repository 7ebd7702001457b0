"""Values from an API's JSON, of which each may be missing, null or of another type; their sizes are bounded."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

MAX_TEXT = 4096
"""Longest text in characters. Longer ones are files, not names: left out of labels and environment, cut in commands."""

MAX_ENTRIES = 256


def mapping(value: object) -> Mapping[str, Any]:
    """The value if it is an object, else an empty one."""
    return value if isinstance(value, dict) else {}


def sequence(value: object) -> list[Any]:
    """The value if it is an array, else an empty one."""
    return value if isinstance(value, list) else []


def mappings(value: object) -> Iterator[Mapping[str, Any]]:
    """The objects in an array."""
    return (entry for entry in sequence(value) if isinstance(entry, dict))


def text(value: object) -> str:
    """The value if it is a string of at most `MAX_TEXT` characters, else ""."""
    return value if isinstance(value, str) and len(value) <= MAX_TEXT else ""


def texts(value: object) -> dict[str, str]:
    """Of the first `MAX_ENTRIES` of an object, those that are strings of at most `MAX_TEXT` characters."""
    pairs = [*mapping(value).items()][:MAX_ENTRIES]
    return {name: value for name, value in pairs if isinstance(value, str) and len(value) <= MAX_TEXT}
