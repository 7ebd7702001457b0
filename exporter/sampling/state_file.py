"""The state file on disk: locked, replaced atomically, appended to once a tick."""

from __future__ import annotations

import contextlib
import fcntl
import os
import threading
from collections.abc import Callable

from ..accounting.checkpoint import State, StateCorruptError, decode


class StateLocked(Exception):  # noqa: N818 - the state of the world, not a mistake
    """Another exporter has locked this state file."""


class StateForeign(Exception):  # noqa: N818 - the state of the world, not a mistake
    """The state file is that of a simulated node and the exporter's node is real, or the reverse."""


class StateStore:
    """The state file, locked for as long as this object lives.

    ``on_write`` is called after each successful write, by the thread that wrote.

    Raises `StateLocked` at once if another process holds it, OSError if the folder cannot be written.
    """

    def __init__(self, path: str, on_write: Callable[[], None] = lambda: None) -> None:
        self.path = path
        self._on_write = on_write
        self._file = -1
        self._syncing = -1  # the next one, which is written and not yet on the disk
        self._switch = threading.Lock()
        self._lock = os.open(f"{path}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(self._lock)
            raise StateLocked(f"{path}: in use by another exporter") from None
        self._lagging = os.fstat(self._lock).st_size > 0

    def load(self) -> State | None:
        """Read it; None if there is none yet. Raises `StateCorruptError` (after setting the file aside) or OSError."""
        try:
            with open(self.path, "rb") as file:
                data = file.read()
        except FileNotFoundError:
            return None
        try:
            state = decode(data)
        except StateCorruptError as error:
            aside = self._set_aside()
            raise StateCorruptError(f"{self.path}: {error}; set aside as {aside}") from None
        state.lagging = self._lagging
        return state

    def write(self, job: tuple[bytes, bool]) -> None:
        """Append a journal line, or replace everything by a checkpoint (``job[1]``). Raises OSError.

        After a failed append the next write must be a checkpoint: the journal may end in half a line.
        """
        line, whole = job
        try:
            if whole:
                self._replace(line)
            elif self._file < 0:
                raise OSError("no checkpoint to append to")
            else:
                _write_all(self._file, line)
        except OSError:
            self._set_lagging(lagging=True)
            raise
        self._set_lagging(lagging=False)
        self._on_write()

    def _set_lagging(self, *, lagging: bool) -> None:
        """Record beside the file that it lags, as the lock file's length: a full disk cannot refuse a sparse byte."""
        if lagging != self._lagging:
            self._lagging = lagging
            with contextlib.suppress(OSError):
                os.ftruncate(self._lock, int(lagging))

    def _replace(self, line: bytes) -> None:
        new = f"{self.path}.new"
        file = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o644)
        try:
            _write_all(file, line)
            with self._switch:
                self._syncing = file
            self._sync(file)
            with self._switch:
                if self._syncing == file:
                    os.replace(new, self.path)
        except OSError:
            with self._switch:
                self._syncing = -1
            os.close(file)
            raise
        with self._switch:
            if self._file >= 0:
                os.close(self._file)
            self._file, self._syncing = file, -1

    def _sync(self, file: int) -> None:
        os.fsync(file)

    @property
    def is_syncing(self) -> bool:
        """Whether a checkpoint is written and not yet on the disk."""
        return self._syncing >= 0

    def append_checkpoint(self, line: bytes) -> None:
        """Add a checkpoint to the journal, and to a checkpoint that is being synced: whichever is there at the end.

        For any thread; not while a journal line is being written. Raises OSError.
        """
        with self._switch:
            for file in (self._syncing, self._file):
                if file >= 0:
                    _write_all(file, b"\n" + line)  # after half a line of a disk that was full
            if self._file < 0 <= self._syncing:
                os.replace(f"{self.path}.new", self.path)
                self._syncing = -1

    def close(self) -> None:
        """Release the lock."""
        for file in (self._file, self._lock):
            if file >= 0:
                os.close(file)
        self._file = self._lock = -1

    def _set_aside(self) -> str:
        for number in range(1, 100):
            aside = f"{self.path}.corrupt-{number}"
            if not os.path.exists(aside):
                break
        with contextlib.suppress(OSError):
            os.replace(self.path, aside)
        return aside


def _write_all(file: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(file, view) :]
