"""Times, runs and units of the regions that programs on this machine report."""

from __future__ import annotations

from ...host import Host
from ...records import Reading
from .intake import Intake

SOCKET = "/run/ai-energy-exporter/regions.sock"


class RegionSource:
    """What the clients of `exporter.regions` on this machine have sent; the socket is read in the background."""

    name = "regions"

    def __init__(self, host: Host, path: str = SOCKET) -> None:
        self._intake = Intake(host, path)

    def read(self, now: float) -> Reading:  # noqa: ARG002 - what is reported has its own times
        """Everything since the last read."""
        self._intake.open()
        if not self._intake.has_news:
            return Reading()
        return Reading(regions=self._intake.take())

    def close(self) -> None:
        """Stop listening."""
        self._intake.close()

    def rest(self) -> Reading:
        """What programs had sent when the socket was closed; what they send later they keep for the next exporter."""
        return Reading(regions=self._intake.take())
