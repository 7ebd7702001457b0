"""What the sampler expects of a source."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

from ..records import Reading


class Source(Protocol):
    """A meter, or a reader of usage. One class, one file, one line in the registry.

    ``read`` is called once a tick from the sources' thread. It finds its files on the first call, searches again
    when they vanish, raises `Unavailable` when nothing can be read, and puts partial failures into
    ``Reading.problems``. ``now`` is boot-time seconds.
    """

    @property
    def name(self) -> str:
        """Name in flags, labels and ``doctor``."""

    def read(self, now: float) -> Reading:
        """Read everything once."""

    def close(self) -> None:
        """Release file descriptors."""


@runtime_checkable
class Receiver(Protocol):
    """A source that programs send to: what they have sent would be lost at the end of the exporter."""

    def rest(self) -> Reading:
        """What was sent since the last ``read`` and before ``close``, which is called first."""
