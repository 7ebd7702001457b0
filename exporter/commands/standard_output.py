"""What to do with standard output that cannot be written."""

from __future__ import annotations

import os
import sys


def discard_output() -> None:
    """Lose what is in its buffer: the interpreter would complain of it once more at its end."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
