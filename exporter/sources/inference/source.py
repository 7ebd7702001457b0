"""Tokens and requests of the model servers on this machine, read from their own metrics."""

from __future__ import annotations

from collections.abc import Callable

from ...host import Host
from ...records import Reading
from ...workloads.protocol import ModelServer
from .poller import Poller

REST_SECONDS = 5.0
"""How often to look whether a server was recognised while there is none."""


def no_servers() -> tuple[ModelServer, ...]:
    """Without a namer no server is recognised."""
    return ()


class InferenceSource:
    """What the servers that ``servers`` returns have counted; their pages are read in the background.

    A server that refuses is asked once more with the key in ``key_file``.
    """

    name = "inference"

    def __init__(
        self, host: Host, servers: Callable[[], tuple[ModelServer, ...]] = no_servers, key_file: str = ""
    ) -> None:
        self._poller = Poller(host, servers, key_file)

    def read(self, now: float) -> Reading:  # noqa: ARG002 - pages have their own times
        """Everything that was counted since the last read; a server that is not read is a problem."""
        uses, problems = self._poller.take()
        return Reading(tokens=uses, problems=problems, rest_seconds=0.0 if self._poller.started else REST_SECONDS)

    def close(self) -> None:
        """Stop reading."""
        self._poller.close()
