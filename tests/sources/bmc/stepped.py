"""A BMC source without its thread, for machines whose clock is stepped."""

from __future__ import annotations

from collections.abc import Callable

from exporter.network.kept_connection import Trust
from exporter.records import Reading
from exporter.sources.bmc.redfish import RedfishReader
from exporter.sources.bmc.session import RedfishSession
from tests.support.mock_bmc import MockBmc


class SteppedBmc:
    """Reads a mock BMC over TLS in the tick in which it is due."""

    name = "bmc"

    def __init__(self, bmc: MockBmc, credentials: str, clock: Callable[[], float], period_seconds: float) -> None:
        session = RedfishSession(bmc.url, Trust(fingerprint=bmc.fingerprint), credentials)
        self._reader = RedfishReader(session, clock, period_seconds)
        self._period = period_seconds
        self._due = float("-inf")

    def read(self, now: float) -> Reading:
        if now < self._due:
            return Reading()
        self._due = now + self._period
        found = self._reader.read()
        return Reading(meters=found.meters, problems=found.problems)

    def close(self) -> None:
        self._reader.close()
