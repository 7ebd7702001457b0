"""A progress bar for commands that query for longer; only on a terminal."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import Progress


@contextmanager
def progress(steps: int) -> Iterator[Callable[[], None]]:
    """Show a bar on standard error that each call of what is yielded moves by one of ``steps``."""
    if not sys.stderr.isatty():
        yield lambda: None
        return
    with Progress(console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("Reading", total=steps)
        yield lambda: bar.advance(task)
