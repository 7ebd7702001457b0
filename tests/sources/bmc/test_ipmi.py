"""DCMI's power reading, and the kernel's IPMI device at the level of bytes."""

from __future__ import annotations

import ctypes
import errno
import os
import struct
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from exporter.records import PowerReading, Unavailable
from exporter.sources.bmc import ipmi
from exporter.sources.bmc.dcmi import DcmiReader, parse
from exporter.sources.bmc.ipmi import IpmiDevice

ASKED = bytes((0xDC, 1, 0, 0))
NOW = 1_795_000_000


def reply(watts: int, timestamp: int = NOW, *, active: bool = True, code: int = 0) -> bytes:
    """A reply as DCMI 1.5 lays it out: here 310 W of the last minute, from 180 to 402."""
    return bytes((code,)) + struct.pack("<BHHHHIIB", 0xDC, watts, 180, 402, 310, timestamp, 60_000, active << 6)


class Kernel:
    """The driver behind a file: it understands the two requests by their numbers and the layout of linux/ipmi.h."""

    def __init__(self, answers: Callable[[bytes], bytes | None]) -> None:
        self.answers = answers
        self.asked: list[tuple[int, int, bytes, int, int]] = []
        self._waiting: list[tuple[int, bytes]] = []

    def __call__(self, fd: int, number: int, argument: ctypes.Structure) -> int:
        raw = bytes(argument)
        if number == 0x8028690D:  # IPMICTL_SEND_COMMAND on 64 bits
            address, length, msgid, netfn, cmd, size, data = struct.unpack("@PIlBBHP", raw)
            kind, channel, _ = struct.unpack("@ihB", ctypes.string_at(address, 7))
            assert length == 8
            sent = ctypes.string_at(data, size)
            self.asked.append((netfn, cmd, sent, kind, channel))
            answer = self.answers(sent)
            if answer is not None:
                self._waiting += [(msgid - 1, b"of another"), (msgid, answer)]
            return 0
        assert number == 0xC030690B  # IPMICTL_RECEIVE_MSG_TRUNC
        _, _, _, _, _, _, size, data = struct.unpack("@iPIlBBHP", raw)
        msgid, answer = self._waiting.pop(0)
        assert size >= len(answer)
        ctypes.memmove(data, answer, len(answer))
        packed = struct.pack("@iPIlBBHP", 1, 0, 8, msgid, 0x2D, 2, len(answer), data)
        ctypes.memmove(ctypes.addressof(argument), packed, len(packed))
        return 0


@pytest.fixture
def device(tmp_path: Path) -> Iterator[str]:
    """A file that is always ready to be read: a pipe that has something in it."""
    path = tmp_path / "ipmi0"
    os.mkfifo(path)
    held = os.open(path, os.O_RDWR)
    os.write(held, b"ready")
    yield str(path)
    os.close(held)


def test_the_numbers_are_those_of_the_kernel() -> None:
    """As linux/ipmi.h has them, compiled on x86_64."""
    assert (ipmi.SEND_COMMAND, ipmi.RECEIVE_MSG_TRUNC) == (0x8028690D, 0xC030690B)


def test_the_power_of_the_machine(device: str) -> None:
    kernel = Kernel(lambda sent: reply(305))
    reader = DcmiReader(IpmiDevice((device,), kernel), lambda: 7.0, 10.0)
    (meter,) = reader.read().meters
    assert isinstance(meter, PowerReading)
    assert (meter.watts, meter.at, meter.device.scope, meter.device.period_seconds) == (305.0, 7.0, "node", 10.0)
    assert kernel.asked == [(0x2C, 2, ASKED, 0x0C, 0x0F)]


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (b"\xc1", "not_found"),
        (b"\xc0", "driver"),
        (b"", "implausible"),
        (b"\x00", "implausible"),
        (b"\x00\xdc\x01", "implausible"),
        (b"\x00" + b"\xaa" * 18, "implausible"),
        (reply(305, active=False), "not_found"),
        (reply(0), "implausible"),
        (reply(65_535), "implausible"),
    ],
    ids=["0xC1", "busy", "empty", "no data", "short", "another group", "inactive", "0 W", "65535 W"],
)
def test_what_is_no_power(device: str, answer: bytes, reason: str) -> None:
    """Case 4."""
    reader = DcmiReader(IpmiDevice((device,), Kernel(lambda sent: answer)), lambda: 7.0, 10.0)
    with pytest.raises(Unavailable) as caught:
        reader.read()
    assert caught.value.reason == reason


def test_a_reading_of_the_same_moment_for_minutes_is_old(device: str) -> None:
    """Case 4: its time has moved before, so it is no BMC without a clock."""
    now, times = [0.0], [NOW]
    reader = DcmiReader(IpmiDevice((device,), Kernel(lambda sent: reply(305, times[0]))), lambda: now[0], 10.0)
    for _ in range(100):
        now[0] += 10.0
        assert reader.read().meters, "a clock that never moved says nothing"
    times[0] += 1
    reader.read()
    for _ in range(12):
        now[0] += 10.0
        reader.read()
    now[0] += 10.0
    with pytest.raises(Unavailable, match="same moment") as caught:
        reader.read()
    assert caught.value.reason == "driver"
    times[0] += 1
    assert reader.read().meters


def test_a_reply_is_parsed_whole() -> None:
    assert parse(reply(305)) == (305, 180, 402, 310, NOW, 60_000, True)


def test_without_a_device_or_without_the_right_to_use_it(device: str, tmp_path: Path) -> None:
    with pytest.raises(Unavailable) as caught:
        IpmiDevice((str(tmp_path / "none"),)).command(0x2C, 2, ASKED)
    assert (caught.value.reason, "modprobe" in caught.value.fix) == ("not_found", True)

    def refuse(*_: object) -> int:
        raise PermissionError(errno.EACCES, "Permission denied")

    with pytest.raises(Unavailable) as caught:
        IpmiDevice((device,), refuse).command(0x2C, 2, ASKED)
    assert caught.value.reason == "permission"


def test_a_bmc_that_does_not_reply_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The driver gives no reply: the command ends by its own time limit."""
    path = tmp_path / "ipmi0"
    os.mkfifo(path)
    monkeypatch.setattr(ipmi, "_SECONDS", 0.01)
    with pytest.raises(Unavailable) as caught:
        IpmiDevice((str(path),), Kernel(lambda sent: None)).command(0x2C, 2, ASKED)
    assert caught.value.reason == "timeout"


def test_a_bmc_that_sends_only_what_was_not_asked_is_given_up(device: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Replies to others and events without end: the time limit is that of the command, not of each message."""

    class Chatty(Kernel):
        def __call__(self, fd: int, number: int, argument: ctypes.Structure) -> int:
            self._waiting.append((0, b"of another"))
            return super().__call__(fd, number, argument)

    monkeypatch.setattr(ipmi, "_SECONDS", 0.05)
    with pytest.raises(Unavailable) as caught:
        IpmiDevice((device,), Chatty(lambda sent: None)).command(0x2C, 2, ASKED)
    assert caught.value.reason == "timeout"
