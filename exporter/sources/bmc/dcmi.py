"""The power of the machine by DCMI's Get Power Reading (Data Center Manageability Interface 1.5, section 6.6.1)."""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import NamedTuple, Protocol

from ...records import Device, PowerReading, Unavailable
from .reader import Found

_NETFN_GROUP, _GET_POWER_READING, _DCMI = 0x2C, 0x02, 0xDC
_REPLY = struct.Struct("<BHHHHIIB")
_ACTIVE = 1 << 6

_MAX_WATTS = 65_534.0
"""The field has 16 bits; all ones says that there is no value."""

_STANDS_STILL_SECONDS = 120.0
_UNSUPPORTED = (0xC1, 0xC7, 0xC8, 0xC9, 0xCC)
_NO_METER = "this BMC has no power reading by DCMI: unset --bmc.ipmi; Redfish may have one (--bmc.redfish.url)"


class Commands(Protocol):
    """What sends a command to the BMC."""

    def command(self, netfn: int, cmd: int, data: bytes) -> bytes:
        """Completion code and data of the reply. Raises `Unavailable`."""


class PowerReply(NamedTuple):
    """Watts now and in a period of ``period_milliseconds`` that ended at ``timestamp``, a clock of the BMC's."""

    watts: int
    least: int
    most: int
    average: int
    timestamp: int
    period_milliseconds: int
    active: bool


def parse(reply: bytes) -> PowerReply:
    """Parse completion code and data. Raises `Unavailable`."""
    code = reply[0] if reply else None
    if code is None:
        raise Unavailable("implausible", "IPMI: an empty reply")
    if code in _UNSUPPORTED:
        raise Unavailable("not_found", f"DCMI: Get Power Reading is not supported (0x{code:02X})", _NO_METER)
    if code:
        raise Unavailable("driver", f"DCMI: Get Power Reading failed (0x{code:02X})")
    if len(reply) < 1 + _REPLY.size or reply[1] != _DCMI:
        raise Unavailable("implausible", f"DCMI: not a power reading: {reply[:24].hex(' ')}")
    _, watts, least, most, average, timestamp, period, state = _REPLY.unpack_from(reply, 1)
    return PowerReply(watts, least, most, average, timestamp, period, bool(state & _ACTIVE))


class DcmiReader:
    """Reads the power of the machine; ``period_seconds`` is the time between two reads."""

    name = "IPMI"

    def __init__(self, device: Commands, clock: Callable[[], float], period_seconds: float) -> None:
        self._device = device
        self._clock = clock
        self._period = period_seconds
        self._timestamp = 0
        self._moved_at: float | None = None
        self._meter = Device(
            id="bmc-dcmi",
            component="platform",
            source="bmc",
            quality="measured",
            name="DCMI power reading",
            capacity=0.0,
            max_watts=_MAX_WATTS,
            method="power_integrated",
            scope="node",
            period_seconds=period_seconds,
        )

    def read(self) -> Found:
        """Read once. Raises `Unavailable`."""
        reply = parse(self._device.command(_NETFN_GROUP, _GET_POWER_READING, bytes((_DCMI, 1, 0, 0))))
        now = self._clock()
        if not reply.active:
            raise Unavailable(
                "not_found", "DCMI: the BMC does not measure now", "switch on power monitoring in the BMC"
            )
        if not 0 < reply.watts <= _MAX_WATTS:
            raise Unavailable("implausible", f"DCMI: {reply.watts} W is no power of a machine", _NO_METER)
        self._check_time(reply.timestamp, now)
        return Found((PowerReading(self._meter, now, float(reply.watts)),))

    def close(self) -> None:
        """Nothing is kept open."""

    def interrupt(self) -> None:
        """A command ends by its own time limit."""

    def _check_time(self, timestamp: int, now: float) -> None:
        """A value whose time has moved before and moves no more is old. Some BMCs report no time at all."""
        if timestamp != self._timestamp:
            self._moved_at = now if self._timestamp else None
            self._timestamp = timestamp
        elif self._moved_at is not None and now - self._moved_at > max(_STANDS_STILL_SECONDS, 3 * self._period):
            what = f"DCMI: the reading has been of the same moment for {now - self._moved_at:.0f} s"
            raise Unavailable("driver", what, "restart the BMC: ipmitool mc reset cold; the machine runs on")
