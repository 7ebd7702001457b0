"""The node as its BMC measures it: over the network by Redfish, from within by IPMI."""

from __future__ import annotations

import os
from collections.abc import Callable

from ...network.kept_connection import Trust
from ...records import EnergyReading, PowerReading, Problem, Reading, Unavailable
from .dcmi import DcmiReader
from .ipmi import DEVICES, IpmiDevice
from .options import BmcOptions
from .poller import Poller
from .reader import Reader
from .redfish import RedfishReader
from .session import RedfishSession


class BmcSource:
    """Whatever the BMC measures; each way to read it has a thread of its own, so that no tick waits for it."""

    name = "bmc"

    def __init__(self, options: BmcOptions, clock: Callable[[], float]) -> None:
        period = options.period_seconds
        wanted: list[Reader] = []
        if options.url:
            trust = Trust(options.ca_file, options.fingerprint, options.insecure)
            session = RedfishSession(options.url, trust, options.credentials)
            wanted.append(RedfishReader(session, clock, period, options.system))
        if options.ipmi:
            wanted.append(DcmiReader(IpmiDevice(), clock, period))
        self._pollers = [Poller(reader, clock, period) for reader in wanted]

    def read(self, now: float) -> Reading:  # noqa: ARG002 - a BMC's values have their own times
        """What was read since the last call. Raises `Unavailable` if no way to read it works."""
        if not self._pollers:
            adds = "on a server, either adds what fans, disks and power supplies use, 20 to 40 % of it: docs/bmc.md"
            here = next((path for path in DEVICES if os.path.exists(path)), "")
            fix = f"{here} is here, so --bmc.ipmi may do; {adds}" if here else adds
            raise Unavailable("not_found", "neither --bmc.redfish.url nor --bmc.ipmi is set", fix)
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
