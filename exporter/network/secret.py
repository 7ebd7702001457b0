"""Tokens and passwords in files, read for each request, so that they may be replaced."""

from __future__ import annotations

from ..host import read_file
from ..records import Unavailable

_MAX_BYTES = 8192


def secret(path: str) -> str:
    """The first line of a file of a token or password. Raises `Unavailable`."""
    try:
        first = read_file(path, _MAX_BYTES).decode("ascii").splitlines()[:1]
    except UnicodeDecodeError:
        first = []
    if not first or not first[0].strip().isprintable() or not first[0].strip():
        raise Unavailable("implausible", f"{path}: its first line is not a token", "write the token into it")
    return first[0].strip()
