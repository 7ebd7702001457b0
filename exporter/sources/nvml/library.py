"""Calls functions of NVIDIA's library through pynvml and translates its errors (nvmlReturn_t) to `DriverError`."""

from __future__ import annotations

import importlib
from typing import Any, Literal

from ...records import Reason, Unavailable

Kind = Literal["unsupported", "nothing", "lost", "down", "failed"]
"""What an error means: not supported by this card; no such item; card lost; library unusable; only this call failed."""

_MATCH = (
    "the library and the kernel module have different versions, as after an upgrade: reload the module or reboot; "
    "the exporter keeps retrying"
)
INSTALL = (
    "nothing to do without an NVIDIA GPU; else install the driver, and in a container use the NVIDIA runtime "
    "(NVIDIA_DRIVER_CAPABILITIES=utility)"
)
_RELOAD = "check the driver with nvidia-smi; in a container that lost its devices, restart the container"
_RESET = "see dmesg for the Xid; reset the card (nvidia-smi --gpu-reset) or reboot"
_PRIVILEGE = "run as root; under MIG in a container, privileged and with NVIDIA_MIG_MONITOR_DEVICES=all"

_MEANING: dict[int, tuple[Kind, Reason, str]] = {
    0: ("nothing", "not_found", ""),  # SUCCESS, which pynvml raises where a list is empty at the first call
    1: ("down", "driver", _RELOAD),  # UNINITIALIZED
    3: ("unsupported", "not_found", ""),  # NOT_SUPPORTED
    4: ("failed", "permission", _PRIVILEGE),  # NO_PERMISSION
    6: ("nothing", "not_found", ""),  # NOT_FOUND
    9: ("down", "driver", _RELOAD),  # DRIVER_NOT_LOADED
    10: ("failed", "timeout", ""),  # TIMEOUT
    12: ("down", "not_found", INSTALL),  # LIBRARY_NOT_FOUND
    13: ("unsupported", "not_found", ""),  # FUNCTION_NOT_FOUND
    15: ("lost", "driver", _RESET),  # GPU_IS_LOST
    16: ("lost", "driver", _RESET),  # RESET_REQUIRED
    18: ("down", "driver", _MATCH),  # LIB_RM_VERSION_MISMATCH
    25: ("unsupported", "not_found", ""),  # ARGUMENT_VERSION_MISMATCH
    26: ("unsupported", "not_found", ""),  # DEPRECATED
    28: ("lost", "driver", _RESET),  # GPU_NOT_FOUND
}
"""nvmlReturn_t → kind, reason and fix."""

_FUNCTION_NOT_FOUND = 13


class DriverError(Unavailable):
    """A failed call into the driver; ``kind`` states how much is unusable because of it."""

    def __init__(self, kind: Kind, reason: Reason, message: str, fix: str = "") -> None:
        super().__init__(reason, message, fix)
        self.kind = kind


class Library:
    """A loaded NVML. Every method raises `DriverError`.

    ``bindings`` stands for the pynvml module; None imports it on `open`.
    """

    def __init__(self, bindings: Any = None) -> None:
        self._nvml = bindings
        self._is_open = False

    def open(self) -> None:
        """Load and initialise the library."""
        if self._nvml is None:
            try:
                self._nvml = importlib.import_module("pynvml")
            except ImportError:
                raise DriverError(
                    "down", "not_found", "the module pynvml is not installed", "pip install nvidia-ml-py"
                ) from None
        self.call("nvmlInit")
        self._is_open = True

    def close(self) -> None:
        """Shut the library down; closing twice is harmless."""
        if self._is_open:
            self._is_open = False
            self.call_ignoring_errors("nvmlShutdown")

    def call(self, name: str, *arguments: Any) -> Any:
        """Call one function of pynvml."""
        function = getattr(self._nvml, name, None)
        if function is None:
            raise _error(name, _FUNCTION_NOT_FOUND, "not in this pynvml")
        try:
            return function(*arguments)
        except self._nvml.NVMLError as error:
            raise _error(name, error.value, str(error)) from None
        except self._nvml.NVMLLibraryMismatchError as error:  # not an NVMLError: a versioned symbol is missing
            raise _error(name, _FUNCTION_NOT_FOUND, str(error)) from None
        except UnicodeDecodeError as error:
            raise DriverError("failed", "error", f"{name}: {error}") from None

    def call_optional(self, name: str, *arguments: Any) -> Any:
        """Call it for an optional value: None if the call fails, but raises if the card or the driver is gone."""
        try:
            return self.call(name, *arguments)
        except DriverError as error:
            if error.kind in ("lost", "down"):
                raise
            return None

    def call_ignoring_errors(self, name: str, *arguments: Any) -> Any:
        """Call it; None if it fails in any way. Raises nothing."""
        try:
            return self.call(name, *arguments)
        except DriverError:
            return None


def _error(name: str, code: int, text: str) -> DriverError:
    kind, reason, fix = _MEANING.get(code, ("failed", "driver", _RELOAD))
    return DriverError(kind, reason, f"{name}: {text}", fix)
