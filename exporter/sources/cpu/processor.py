"""What /proc/cpuinfo says of the first processor that matters for its meters: vendor, hypervisor, idle share."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

from ...host import Host
from ...records import Unavailable

_LOW = 0.12
"""B. Davy, "Building an AWS EC2 Carbon Emissions Dataset" (Teads Engineering, 2021): RAPL of bare-metal Xeon hosts,
12 % of the TDP when idle and 102 % at full load."""

_HIGH = 0.45
"""L. Barroso, U. Hölzle, "The Case for Energy-Proportional Computing" (IEEE Computer 40/12, 2007): up to about half of
the full power is drawn at idle; processors are more proportional than the server around them."""


@dataclass(frozen=True, slots=True)
class Processor:
    """``vendor`` is vendor_id, "" where there is none (Arm, POWER); ``virtual``: this kernel runs in a guest."""

    vendor: str
    virtual: bool

    @property
    def one_counter_per_package(self) -> bool:
        """Whether the energy register is the package's, so that the zones of its dies all show that one.

        AMD PPR of family 17h: MSR C001_029B, "package energy"; Hygon's parts derive from it.
        """
        return self.vendor in ("AuthenticAMD", "HygonGenuine")


def first_processor(host: Host) -> str:
    """The text of /proc/cpuinfo about the first processor; "" if it cannot be read."""
    try:
        return host.text(host.proc("cpuinfo")).partition("\n\n")[0]
    except Unavailable:
        return ""


def read_processor(host: Host) -> Processor:
    """Vendor and hypervisor flag (CPUID 1, ECX bit 31) of this machine."""
    fields = fields_of(first_processor(host))
    return Processor(fields.get("vendor_id", ""), "hypervisor" in fields.get("flags", "").split())


def fields_of(cpuinfo: str) -> dict[str, str]:
    """Field → value of one processor of /proc/cpuinfo."""
    return dict(re.findall(r"^([\w ]+?)\s*:[ \t]*(.*)$", cpuinfo, re.MULTILINE))


def idle_share(tuned: float | None = None) -> tuple[float, float, float]:
    """Idle power of a CPU meter over its power at full use until it is learned: least, assumed, most.

    ``tuned`` is the share of servers with this processor in SPECpower_ssj2008, whose settings favour low idle power:
    most machines idle at more. The assumed share makes active power wrong by the same factor if it is ``tuned`` (else
    the least) as if it is the most.
    """
    tuned = min(_LOW if tuned is None else tuned, _HIGH)
    return (min(_LOW, tuned), 1 - math.sqrt((1 - tuned) * (1 - _HIGH)), _HIGH)
