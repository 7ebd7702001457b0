"""Reads one declared meter in a thread of its own, so that no tick waits for it."""

from __future__ import annotations

import threading

from ...host import Host, read_file
from ...records import Problem, Unavailable
from .command import MAX_BYTES, Command
from .meter import Meter, Sample, value_of

_STOP_SECONDS = 2.0


class Poller:
    """Reads a meter every ``interval_seconds`` from `start` to `stop`.

    ``sample`` is the last value, ``problem`` why there is no newer one, ``began`` when a read started that has not
    ended. They are replaced by single assignments, and may be read from any thread.
    """

    def __init__(self, meter: Meter, host: Host) -> None:
        self.meter = meter
        self.device = meter.device(float(host.cpu_count()))
        self.sample: Sample | None = None
        self.began: float | None = None
        self.problem: Problem | None = None
        self._host = host
        self._command = Command(meter.command, meter.timeout_seconds) if meter.command else None
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"meter-{meter.name}", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def stop(self) -> None:
        """End the thread; one whose read hangs ends with the process."""
        self._stopping.set()
        if self._command is not None:
            self._command.stop()
        if self._thread.is_alive():
            self._thread.join(_STOP_SECONDS)

    def read(self) -> None:
        """Read it once."""
        self.began = self._host.clock()
        try:
            text = (
                self._command.run()
                if self._command is not None
                else read_file(self.meter.file, MAX_BYTES).decode("utf-8", "replace")
            )
            self.sample = Sample(value_of(self.meter, text), self._host.clock())
            self.problem = None
        except Unavailable as error:
            message = error.message
            if self.meter.name not in message:
                message = f"meter {self.meter.name}: {message}"
            self.problem = Problem(error.reason, message, error.fix)
        except Exception as error:  # noqa: BLE001 - this thread must go on
            self.problem = Problem("error", f"{self.meter.what}: {type(error).__name__}: {error}")
        self.began = None

    def _run(self) -> None:
        due = self._host.clock()
        while not self._stopping.is_set():
            self.read()
            due += self.meter.interval_seconds
            now = self._host.clock()
            due = max(due, now)  # a run may take longer than the interval
            self._stopping.wait(due - now)
