"""What a profiler saw, whichever it was: pieces of work on tracks, placed on the wall clock."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

NANOSECONDS = 1e-9


class TraceError(Exception):
    """A file is no trace, or has nothing that can be priced; the text is one line for the user."""


class Work(NamedTuple):
    """Something that ran from ``start`` to ``end``, in ns of Unix time, on a ``stream`` (of a GPU) or thread.

    ``device`` is the key of a `Device`. ``ranges`` are the annotations of the program around it, ``layers`` the modules
    of the network, outermost first both. ``name`` is the kernel's or operator's.
    """

    device: str
    stream: str
    name: str
    start: int
    end: int
    ranges: tuple[str, ...] = ()
    layers: tuple[str, ...] = ()


class Device(NamedTuple):
    """Where work runs: a GPU by ``uuid`` and the ``number`` that the program saw, or the CPUs with ``pid``."""

    key: str
    name: str = ""
    uuid: str = ""
    number: str = ""
    pid: int | None = None


@dataclass(frozen=True, slots=True)
class Trace:
    """All work of a file, and from when to when it was recorded, in ns of Unix time.

    ``notes`` say what of the file could not be used, in sentences.
    """

    devices: Sequence[Device]
    work: Sequence[Work]
    start: int
    end: int
    host: str = ""
    notes: Sequence[str] = field(default_factory=tuple)

    @property
    def seconds(self) -> float:
        """Its length."""
        return (self.end - self.start) * NANOSECONDS
