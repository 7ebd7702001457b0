"""Asks the metrics service of a TPU's runtime (libtpu): gRPC on a port of this machine, in a thread of its own.

Imported only where there is a TPU: the gRPC client needs h2, of the extra ``kubernetes``. Messages:
tpu.monitoring.runtime in tpu-info 0.14.2.
"""

from __future__ import annotations

import math
import struct
import threading
from collections.abc import Mapping
from typing import NamedTuple

from ...host import Host
from ...records import Problem, Unavailable
from ..podresources.grpc import call
from ..podresources.wire import fields

METHOD = "/tpu.monitoring.runtime.RuntimeMetricService/GetRuntimeMetric"
TOTAL = "tpu.runtime.hbm.memory.total.bytes"
USED = "tpu.runtime.hbm.memory.usage.bytes"
DUTY = "tpu.runtime.tensorcore.dutycycle.percent"

_INTERVAL_SECONDS = 1.0
_TIMEOUT_SECONDS = 2.0

_NEGATIVE = 1 << 63
"""An int64 below 0 is this or more on the wire."""


class Answer(NamedTuple):
    """One round: metric → device → value, at a boot time."""

    at: float
    values: Mapping[str, Mapping[int, float]]


class TpuMetrics:
    """Asks once a second; ``answer`` and ``problem`` are replaced by single assignments."""

    def __init__(self, host: Host, address: str) -> None:
        self.answer: Answer | None = None
        self.problem: Problem | None = None
        self._host = host
        self._address = address
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="tpu", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def stop(self) -> None:
        """End the thread after the call it is in."""
        self._stopping.set()

    def ask(self) -> None:
        """One round."""
        try:
            values = {
                name: decode(call(self._address, METHOD, _TIMEOUT_SECONDS, encode(name)))
                for name in (TOTAL, USED, DUTY)
            }
            self.answer, self.problem = Answer(self._host.clock(), values), None
        except Unavailable as error:
            self.problem = Problem(error.reason, error.message, error.fix)
        except ValueError as error:
            self.problem = Problem("implausible", f"{self._address}: not a metric of libtpu: {error}")

    def _run(self) -> None:
        while not self._stopping.is_set():
            self.ask()
            self._stopping.wait(_INTERVAL_SECONDS)


def encode(name: str) -> bytes:
    """A ``MetricRequest``."""
    text = name.encode()
    return bytes((0x0A, len(text))) + text


def decode(message: bytes) -> dict[int, float]:
    """Value by device of a ``MetricResponse``. Raises ValueError if it is not one."""
    found = {}
    for metric in _all(_one(message, 1), 3):
        device, value = 0, None
        for number, part in fields(metric):
            if number == 1 and isinstance(part, bytes):
                device = _integer(_one(part, 2), 3)
            elif number == 3 and isinstance(part, bytes):
                value = _gauge(part)
        if value is not None:
            found[device] = value
    return found


def _gauge(message: bytes) -> float | None:
    for number, value in fields(message):
        if number == 1 and isinstance(value, bytes) and len(value) == 8:
            double: float = struct.unpack("<d", value)[0]
            return double if 0 <= double < math.inf else None
        if number == 2 and isinstance(value, int):
            return float(value) if value < _NEGATIVE else None
    return None


def _integer(message: bytes, wanted: int) -> int:
    return next((value for number, value in fields(message) if number == wanted and isinstance(value, int)), 0)


def _all(message: bytes, wanted: int) -> list[bytes]:
    return [value for number, value in fields(message) if number == wanted and isinstance(value, bytes)]


def _one(message: bytes, wanted: int) -> bytes:
    return next(iter(_all(message, wanted)), b"")
