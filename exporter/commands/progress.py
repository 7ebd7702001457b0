"""How far a command is that queries for longer; only on a terminal."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def progress(steps: int) -> Iterator[Callable[[], None]]:
    """Show a percentage on standard error that each call of what is yielded moves by one of ``steps``."""
    if not sys.stderr.isatty():
        yield lambda: None
        return
    done = 0

    def advance() -> None:
        nonlocal done
        done += 1
        sys.stderr.write(f"\rReading: {min(done / steps, 1.0):4.0%}")
        sys.stderr.flush()

    try:
        yield advance
    finally:
        sys.stderr.write("\r\033[K")  # to the beginning of the line, and erase it
        sys.stderr.flush()
