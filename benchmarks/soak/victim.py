"""The second exporter of the soak: ended during every fault, and started again on its state file."""

from __future__ import annotations

import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

from exporter.accounting.checkpoint import StateCorruptError, decode
from tests.support.live import Exporter, Scrape
from tests.support.patience import patience

from .clients import Honest, Inspector

STOP_SECONDS = 5.0
"""What is promised after SIGTERM, on a machine that is not overloaded."""

ROUNDED = 1e-12
"""A scrape shows 15 digits, a state file has them all."""


class Victim:
    """``ends`` and ``slowest_seconds`` say how often it was ended and how long that took at most."""

    def __init__(self, start: Callable[[], Exporter], state: Path, every_seconds: float) -> None:
        self.inspector = Inspector("victim")
        self.ends = 0
        self.slowest_seconds = 0.0
        self._start = start
        self._state = state
        self._every_seconds = every_seconds
        self.begin(kept=True)

    def begin(self, *, kept: bool) -> None:
        """Start it; if its state was ``kept`` no counter of joules may fall, else those of devices may not."""
        before = device_joules(self.inspector.last)
        self.inspector.restarted(kept=kept)
        self.exporter = self._start()
        self._honest = Honest(self.exporter, self.inspector, self._every_seconds)
        for device, joules in device_joules(self.inspector.last).items():
            if joules < before.get(device, 0.0):
                self.inspector.fail(f"{device} fell over a restart from {before[device]} to {joules}")

    def end(self, fault: str, *, keeps: bool) -> None:
        """SIGTERM: it ends in time with status 0, and all that was ever on show is in its state file."""
        self._honest.stop()
        status, seconds = ended(self.exporter)
        self.ends += 1
        self.slowest_seconds = max(self.slowest_seconds, seconds)
        if status != 0 or seconds > patience(STOP_SECONDS):
            self.inspector.fail(f"SIGTERM while {fault}: status {status} after {seconds:.1f} s")
        try:
            saved = decode(self._state.read_bytes()).devices.joules
        except (OSError, StateCorruptError) as error:
            self.inspector.fail(f"SIGTERM while {fault}: {error}")
            return
        for device, joules in device_joules(self.inspector.last).items():
            if keeps and saved.get(device, 0.0) < joules * (1 - ROUNDED):
                self.inspector.fail(f"SIGTERM while {fault}: {device} has {saved.get(device)} of {joules} J")

    def stop(self) -> None:
        """End it for good."""
        self._honest.stop()
        status, seconds = ended(self.exporter)
        if status != 0:
            self.inspector.fail(f"SIGTERM at the end: status {status} after {seconds:.1f} s")


def ended(exporter: Exporter) -> tuple[int, float]:
    """Exit status after SIGTERM, and the seconds it took; one that does not end is killed."""
    began = time.monotonic()
    try:
        exporter.end(signal.SIGTERM)
    except subprocess.TimeoutExpired:
        exporter.end(signal.SIGKILL)
    return exporter.process.returncode, time.monotonic() - began


def device_joules(scrape: Scrape) -> dict[str, float]:
    """Exported joules by device."""
    return {labels["device"]: joules for labels, joules in scrape.find("energy_device_joules_total")}
