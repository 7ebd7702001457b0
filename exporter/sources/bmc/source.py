"""The node as its BMC measures it: over the network by Redfish, from within by IPMI."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from ...network.kept_connection import Trust
from ...records import EnergyReading, PowerReading, Problem, Reading, Unavailable
from .poller import Poller
from .reader import Reader
from .redfish import RedfishReader
from .session import RedfishSession

PERIOD_SECONDS = 10.0


@dataclass(frozen=True, slots=True)
class BmcOptions:
    """What the operator set: the BMC's address, whom it logs in and trusts, and how often it is read.

    ``url`` is "" without Redfish, ``ipmi`` whether to ask the BMC through ``/dev/ipmi0``.
    """

    url: str = ""
    credentials: str = ""
    trust: Trust = field(default_factory=Trust)
    system: str = ""
    ipmi: bool = False
    period_seconds: float = PERIOD_SECONDS

    @property
    def wanted(self) -> bool:
        """Whether there is anything to read."""
        return bool(self.url) or self.ipmi


class BmcSource:
    """Whatever the BMC measures; each way to read it has a thread of its own, so that no tick waits for it."""

    name = "bmc"

    def __init__(self, options: BmcOptions, clock: Callable[[], float], readers: Sequence[Reader] = ()) -> None:
        period = options.period_seconds
        wanted = list(readers)
        if options.url:
            session = RedfishSession(options.url, options.trust, options.credentials)
            wanted.insert(0, RedfishReader(session, clock, period, options.system))
        self._pollers = [Poller(reader, clock, period) for reader in wanted]

    def read(self, now: float) -> Reading:  # noqa: ARG002 - a BMC's values have their own times
        """What was read since the last call. Raises `Unavailable` if no way to read it works."""
        if not self._pollers:
            raise Unavailable(
                "not_found",
                "neither --bmc.redfish.url nor --bmc.ipmi is set",
                "on a server, either adds what fans, disks and power supplies use, 20 to 40 % of it: docs/bmc.md",
            )
        meters: list[EnergyReading | PowerReading] = []
        problems: list[Problem] = []
        for poller in self._pollers:
            taken, wrong = poller.take()
            meters += taken
            problems += wrong
        if not meters and problems and all(poller.failed for poller in self._pollers):
            raise Unavailable(*problems[0])
        pending = not meters and any(poller.pending for poller in self._pollers)
        return Reading(meters=tuple(meters), problems=tuple(problems), pending=pending)

    def close(self) -> None:
        """End the sessions, without waiting for a BMC that hangs."""
        for poller in self._pollers:
            poller.close()
