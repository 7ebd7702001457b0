"""One command to the BMC through the kernel's IPMI device (Documentation/driver-api/ipmi.rst, linux/ipmi.h)."""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import os
import select
import time
from collections.abc import Callable
from typing import Any

from ...host import unavailable
from ...records import Unavailable

DEVICES = ("/dev/ipmi0", "/dev/ipmi/0", "/dev/ipmidev/0")

_SYSTEM_INTERFACE, _BMC_CHANNEL = 0x0C, 0x0F
_MAX_REPLY = 272
_SECONDS = 5.0
_FIX = "sudo modprobe -a ipmi_si ipmi_devintf; a virtual machine has none"


class _Address(ctypes.Structure):
    _fields_ = [("addr_type", ctypes.c_int), ("channel", ctypes.c_short), ("lun", ctypes.c_ubyte)]


class _Message(ctypes.Structure):
    _fields_ = [
        ("netfn", ctypes.c_ubyte),
        ("cmd", ctypes.c_ubyte),
        ("data_len", ctypes.c_ushort),
        ("data", ctypes.c_void_p),
    ]


class _Request(ctypes.Structure):
    _fields_ = [
        ("addr", ctypes.c_void_p),
        ("addr_len", ctypes.c_uint),
        ("msgid", ctypes.c_long),
        ("msg", _Message),
    ]


class _Received(ctypes.Structure):
    _fields_ = [
        ("recv_type", ctypes.c_int),
        ("addr", ctypes.c_void_p),
        ("addr_len", ctypes.c_uint),
        ("msgid", ctypes.c_long),
        ("msg", _Message),
    ]


def _ioctl(direction: int, number: int, kind: type[ctypes.Structure]) -> int:
    """The number of a request (asm-generic/ioctl.h): direction, size, type and number."""
    return direction << 30 | ctypes.sizeof(kind) << 16 | ord("i") << 8 | number


SEND_COMMAND = _ioctl(2, 13, _Request)
RECEIVE_MSG_TRUNC = _ioctl(3, 11, _Received)

Ioctl = Callable[[int, int, Any], Any]


class IpmiDevice:
    """Opened for each command, which takes 10 to 100 ms; used by one thread.

    ``ioctl`` is that of the operating system.
    """

    def __init__(self, paths: tuple[str, ...] = DEVICES, ioctl: Ioctl = fcntl.ioctl) -> None:
        self._paths = paths
        self._ioctl = ioctl
        self._sequence = 0

    def command(self, netfn: int, cmd: int, data: bytes) -> bytes:
        """The reply to a command: its completion code, then its data. Raises `Unavailable`."""
        path = next((path for path in self._paths if os.path.exists(path)), "")
        if not path:
            raise Unavailable("not_found", f"{self._paths[0]}: there is no IPMI device", _FIX)
        try:
            device = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        except OSError as error:
            raise unavailable(error, path) from None
        try:
            return self._exchange(device, path, netfn, cmd, data)
        except OSError as error:
            raise unavailable(error, path) from None
        finally:
            os.close(device)

    def _exchange(self, device: int, path: str, netfn: int, cmd: int, data: bytes) -> bytes:
        self._sequence += 1
        address = _Address(_SYSTEM_INTERFACE, _BMC_CHANNEL, 0)
        sent = ctypes.create_string_buffer(data, len(data))
        message = _Message(netfn, cmd, len(data), ctypes.addressof(sent))
        request = _Request(ctypes.addressof(address), ctypes.sizeof(address), self._sequence, message)
        self._ioctl(device, SEND_COMMAND, request)
        buffer = ctypes.create_string_buffer(_MAX_REPLY)
        deadline = time.monotonic() + _SECONDS
        while True:
            if not self._wait(device, deadline - time.monotonic()):
                raise Unavailable(
                    "timeout", f"{path}: no reply within {_SECONDS:g} s", "see dmesg for the driver ipmi_si"
                )
            source = _Address()
            reply = _Message(0, 0, _MAX_REPLY, ctypes.addressof(buffer))
            received = _Received(0, ctypes.addressof(source), ctypes.sizeof(source), 0, reply)
            self._ioctl(device, RECEIVE_MSG_TRUNC, received)
            if received.msgid == self._sequence:
                return buffer.raw[: received.msg.data_len]

    def _wait(self, device: int, seconds: float) -> bool:
        poll = select.poll()
        poll.register(device, select.POLLIN)
        with contextlib.suppress(InterruptedError):
            return seconds > 0 and bool(poll.poll(seconds * 1000))
        return False
