"""How long a test waits: for what takes a moment on an idle machine, longer on a busy one."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

T = TypeVar("T")

LOADAVG = Path("/proc/loadavg")

PATIENCE_SECONDS = 20.0
"""What no single step of a test takes on an idle machine."""


def patience(seconds: float = PATIENCE_SECONDS) -> float:
    """Seconds to wait, as of now, for what takes less than ``seconds`` on an idle machine.

    They grow with the number of threads that share a CPU: the mean of the last minute, or those of this moment where
    the mean has not seen them yet.
    """
    return seconds * max(1.0, _load() / len(os.sched_getaffinity(0)))


def wait_for(
    condition: Callable[[], T], what: str = "it", seconds: float = PATIENCE_SECONDS, *, every_seconds: float = 0.01
) -> T:
    """Wait until the condition holds, and return what it returned; fail after `patience`, which may grow meanwhile."""
    began = deadline = time.monotonic()
    while not (found := condition()):
        deadline = max(deadline, began + patience(seconds))
        assert time.monotonic() < deadline, f"{what} did not come"
        time.sleep(every_seconds)
    return found


def _load() -> float:
    mean, _, _, tasks, *_ = LOADAVG.read_text(encoding="ascii").split()
    return max(float(mean), float(tasks.partition("/")[0]))
