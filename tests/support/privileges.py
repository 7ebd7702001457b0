"""Reading as a user without privileges, whether the tests run as root or not."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

NOBODY = 65534


def drop_privileges() -> None:
    """Become nobody, if this is root."""
    if os.getuid() == 0:
        os.seteuid(NOBODY)


def regain_privileges() -> None:
    """Undo `drop_privileges`."""
    if os.getuid() == 0:
        os.seteuid(0)


@contextlib.contextmanager
def public_folder() -> Iterator[Path]:
    """A folder that everyone may enter; privileges dropped inside are regained at the end."""
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o755)
        try:
            yield Path(folder)
        finally:
            regain_privileges()
