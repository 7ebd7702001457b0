"""Work that goes on beside the soak, on a thread of its own."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator


@contextlib.contextmanager
def again(work: Callable[[], object], every_seconds: float, problems: list[str]) -> Iterator[None]:
    """Do ``work`` again and again, that many seconds apart, until the block ends or it raises, which is a problem."""
    over = threading.Event()

    def run() -> None:
        try:
            while not over.wait(every_seconds):
                work()
        except Exception as error:  # noqa: BLE001 - told in the verdict, whatever it is
            problems.append(f"beside the soak: {type(error).__name__}: {error}")

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
