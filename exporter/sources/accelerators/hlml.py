"""Calls Intel's library of Gaudi cards (libhlml) and translates its errors (hlml_return_t) to `DriverError`.

Names, types and units as in Intel's own bindings, pyhlml 1.24.2: those load the library from one path only, and print a
line and go on where it is missing.
"""

from __future__ import annotations

import ctypes
from typing import Any

from ...records import Reason
from ..nvml.library import DriverError, Kind
from .gaudi_process import INSTALL, LIBRARY, PATH

_RELOAD = "check the driver with hl-smi and dmesg; in a container that lost its devices, restart the container"
_RESET = "see dmesg; reset the card (hl-smi -r) or reboot"

_MEANING: dict[int, tuple[Kind, Reason, str]] = {
    1: ("down", "driver", _RELOAD),  # UNINITIALIZED
    3: ("unsupported", "not_found", ""),  # NOT_SUPPORTED
    6: ("nothing", "not_found", ""),  # NOT_FOUND
    9: ("down", "driver", _RELOAD),  # DRIVER_NOT_LOADED
    10: ("failed", "timeout", _RELOAD),  # TIMEOUT
    15: ("lost", "driver", _RESET),  # AIP_IS_LOST
    21: ("nothing", "not_found", ""),  # NO_DATA
}
_NAMES = {
    1: "uninitialized",
    2: "invalid argument",
    3: "not supported",
    6: "not found",
    7: "insufficient size",
    9: "driver not loaded",
    10: "timeout",
    15: "card is lost",
    20: "out of memory",
    21: "no data",
    49: "unknown error",
}

_TEXT_BYTES = 128
_PCI_BYTES = 256
"""More than hlml_pci_info_t, whose address was 15 characters before it was 19. It begins with the bus, a number."""

_ON_CHIP = 0


class Utilization(ctypes.Structure):
    """hlml_utilization_t: percents over the last second."""

    _fields_ = (("aip", ctypes.c_uint), ("memory", ctypes.c_uint))


class Memory(ctypes.Structure):
    """hlml_memory_t: bytes."""

    _fields_ = (("free", ctypes.c_ulonglong), ("total", ctypes.c_ulonglong), ("used", ctypes.c_ulonglong))


class Hlml:
    """A loaded libhlml; a handle is a ``void *``. Every method raises `DriverError`; units are SI.

    ``paths`` are tried in turn.
    """

    def __init__(self, paths: tuple[str, ...] = (LIBRARY, PATH)) -> None:
        self._paths = paths
        self._library: ctypes.CDLL | None = None
        self._is_open = False

    def open(self) -> None:
        """Load and initialise the library."""
        problem = ""
        for path in self._paths if self._library is None else ():
            try:
                self._library = ctypes.CDLL(path)
                break
            except OSError as error:
                problem = str(error)
        if self._library is None:
            raise DriverError("down", "not_found", problem, INSTALL)
        self._call("hlml_init")
        self._is_open = True

    def close(self) -> None:
        """Shut the library down; closing twice is harmless."""
        if self._is_open:
            self._is_open = False
            self.optional(lambda: self._call("hlml_shutdown"))

    def count(self) -> int:
        """Number of cards."""
        return self._number("hlml_device_get_count", ctypes.c_uint())

    def handle(self, index: int) -> Any:
        """The card with this index."""
        handle = ctypes.c_void_p()
        self._call("hlml_device_get_handle_by_index", ctypes.c_uint(index), ctypes.byref(handle))
        return handle

    def version(self) -> str:
        """Version of the driver; "" if unknown."""
        return self.optional(lambda: self._text("hlml_get_driver_version")) or ""

    def uuid(self, handle: Any) -> str:
        """UUID of a card."""
        return self._text("hlml_device_get_uuid", handle)

    def model(self, handle: Any) -> str:
        """Name of a card's product; "" if unknown."""
        return self.optional(lambda: self._text("hlml_device_get_name", handle)) or ""

    def minor(self, handle: Any) -> int:
        """N of /dev/accel/accelN and /sys/class/accel/accelN."""
        return self._number("hlml_device_get_minor_number", ctypes.c_uint(), handle)

    def bus_id(self, handle: Any) -> str:
        """PCI address in sysfs' form; "" if unknown."""
        info = ctypes.create_string_buffer(_PCI_BYTES)
        try:
            self._call("hlml_device_get_pci_info", handle, ctypes.byref(info))
        except DriverError as error:
            if error.kind in ("lost", "down"):
                raise
            return ""
        return info.raw[4:].partition(b"\0")[0].decode("ascii", "replace").lower()

    def energy_joules(self, handle: Any) -> float:
        """Joules since the driver was loaded."""
        return self._number("hlml_device_get_total_energy_consumption", ctypes.c_ulonglong(), handle) / 1000

    def power_watts(self, handle: Any) -> float:
        """Power now."""
        return self._number("hlml_device_get_power_usage", ctypes.c_uint(), handle) / 1000

    def limit_watts(self, handle: Any) -> float:
        """Power limit."""
        return self._number("hlml_device_get_power_management_limit", ctypes.c_uint(), handle) / 1000

    def throttle_bits(self, handle: Any) -> int:
        """Why clocks are lowered now: 1 power, 2 heat."""
        return self._number("hlml_device_get_current_clocks_throttle_reasons", ctypes.c_ulonglong(), handle)

    def temperature_celsius(self, handle: Any) -> float:
        """Temperature of the chip."""
        found = ctypes.c_uint()
        self._call("hlml_device_get_temperature", handle, ctypes.c_int(_ON_CHIP), ctypes.byref(found))
        return float(found.value)

    def utilization_ratio(self, handle: Any) -> float:
        """Part of the last second in which the card worked."""
        found = Utilization()
        self._call("hlml_device_get_utilization_rates", handle, ctypes.byref(found))
        percent: int = found.aip
        return min(1.0, percent / 100)

    def memory_bytes(self, handle: Any) -> tuple[float, float]:
        """Used and total."""
        found = Memory()
        self._call("hlml_device_get_memory_info", handle, ctypes.byref(found))
        return float(found.used), float(found.total)

    @staticmethod
    def optional(call: Any) -> Any:
        """What it returns, None if it fails; raises `DriverError` if the card or the driver is gone."""
        try:
            return call()
        except DriverError as error:
            if error.kind in ("lost", "down"):
                raise
            return None

    def _number(self, name: str, found: Any, *arguments: Any) -> int:
        self._call(name, *arguments, ctypes.byref(found))
        number: int = found.value
        return number

    def _text(self, name: str, *arguments: Any) -> str:
        found = ctypes.create_string_buffer(_TEXT_BYTES)
        self._call(name, *arguments, found, ctypes.c_uint(_TEXT_BYTES))
        return found.value.decode("utf-8", "replace").strip()

    def _call(self, name: str, *arguments: Any) -> None:
        try:
            function = getattr(self._library, name)
        except AttributeError:
            raise DriverError("unsupported", "not_found", f"{name}: not in this {LIBRARY}") from None
        code = function(*arguments)
        if code:
            kind, reason, fix = _MEANING.get(code, ("failed", "driver", _RELOAD))
            raise DriverError(kind, reason, f"{name}: {_NAMES.get(code, code)}", fix)
