"""Reads cards in a child process, so that the exporter survives a driver that hangs or crashes.

An upgraded driver and a call that hangs are faults 20 and 23 of docs/faults.md.
"""

from __future__ import annotations

import contextlib
import os
import pickle
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Collection
from dataclasses import dataclass, replace
from typing import NamedTuple

from .. import __version__
from ..host import Host, read_file
from ..records import GpuState, Problem, Reading, Unavailable

_LIBRARY_FOLDERS = ("/lib64", "/usr/lib64", "/lib", "/usr/lib")
"""Folders that the dynamic linker searches besides LD_LIBRARY_PATH and its cache (ld.so(8))."""

_MAX_EXITING = 3
"""With that many children stuck in the kernel no other is started: it would get stuck too."""

_CLOSE_SECONDS = 2.0

_MIN_TIMEOUTS = (10.0, 3.0, 0.5)

_ROOM = "raise the limits of the service or container: memory, number of processes, open files"
_MEMORY = "if it was ended for lack of memory (dmesg), raise the limit of the service or container"


class Timeouts(NamedTuple):
    """Seconds after which a child counts as hung, and between the starts of two children.

    ``first`` is for its first answer: without persistence mode the driver then initialises each card, in 1 to 3 s
    (NVIDIA's Driver Persistence). ``answer`` is for all others: while the card's users hold the driver's lock, calls of
    milliseconds take many times as long, and killing a slow child would not help. ``start`` limits restarts to 3 % of
    a core if the driver ends every child at once.
    """

    first: float = 60.0
    answer: float = 30.0
    start: float = 5.0

    @classmethod
    def of(cls, deadline_seconds: float) -> Timeouts:
        """Scaled to the sampler's deadline for one reading; `Timeouts()` is for the default of 0.5 s.

        Never less than a healthy driver may need: killing it in the middle of a call can upset a card.
        """
        scaled = (seconds * 2 * deadline_seconds for seconds in cls())
        return cls(*(max(least, seconds) for least, seconds in zip(_MIN_TIMEOUTS, scaled, strict=True)))


def no_cards() -> Collection[str]:
    """Where no program reports regions."""
    return ()


@dataclass(frozen=True, slots=True)
class DriverChild:
    """What is called in the child: ``module`` reads its standard input as `exporter.sources.driver_child` does.

    ``is_present``: whether this machine seems to have the driver, so that starting a process is worthwhile; ``absent``
    is the problem if not. ``messages`` are what to look for in the kernel's log.
    """

    name: str
    module: str
    is_present: Callable[[Host], bool]
    absent: Problem
    messages: str

    @property
    def see_kernel(self) -> str:
        """What to do about a driver that failed."""
        return f"look for {self.messages} in the kernel's log (dmesg); the exporter keeps retrying"

    @property
    def reboot(self) -> str:
        """What to do about a driver that hangs."""
        return f"look for {self.messages} in the kernel's log (dmesg); a driver that keeps hanging needs a reboot"


class DriverProcess:
    """A source of cards: reads it in a child process, and starts another one when that fails.

    A new process loads the driver's library again, which is the only way to continue after a driver upgrade. A child
    that hangs is killed, or left behind if it cannot be killed; one that crashes makes the source unavailable.
    ``watched`` returns the ids of the cards whose energy counters are to be read between two readings too.
    """

    def __init__(
        self,
        host: Host,
        driver: DriverChild,
        timeouts: Timeouts | None = None,
        watched: Callable[[], Collection[str]] = no_cards,
    ) -> None:
        self.name = driver.name
        self._driver = driver
        self._host = host
        self._timeouts = timeouts or Timeouts()
        self._watched = watched
        self._child: _Child | None = None
        self._exiting: list[threading.Thread] = []
        self._start_at = float("-inf")
        self._failure = Problem("not_found", "")
        self._totals = _Totals()

    def read(self, now: float) -> Reading:
        """Read all cards. Raises `Unavailable` when there is none that can be read, or the child fails."""
        if self._child is None:
            self._child = self._start(now)
        try:
            answer = self._child.request(now, self._watched())
            if isinstance(answer, str):
                unexpected = RuntimeError(answer.strip().rpartition("\n")[2])
                unexpected.add_note(answer)
                raise unexpected
            if isinstance(answer, Problem):
                raise Unavailable(*answer)
        except Exception as error:
            # After any failure a new process has the better chance.
            self._failure = _problem(error)
            self._release()
            raise
        return self._totals.add(answer)

    def close(self) -> None:
        """Let the child exit; the next read starts another. A child that hangs exits later on its own."""
        self._release()
        until = time.monotonic() + _CLOSE_SECONDS
        for thread in self._exiting:
            thread.join(max(0.0, until - time.monotonic()))

    # --- starting and ending the child --------------------------------------------------------------

    def _start(self, now: float) -> _Child:
        self._exiting = [thread for thread in self._exiting if thread.is_alive()]
        if len(self._exiting) >= _MAX_EXITING:
            raise Unavailable("timeout", f"{len(self._exiting)} processes hang in the driver", self._driver.reboot)
        if now < self._start_at:
            raise Unavailable(*self._failure)
        if not self._driver.is_present(self._host):
            raise Unavailable(*self._driver.absent)
        self._start_at = now + self._timeouts.start
        self._totals.start_child()
        try:
            return _Child(self._host, self._driver, self._timeouts)
        except OSError as error:
            self._failure = Problem("error", f"cannot start a process: {error.strerror or error}", _ROOM)
            raise Unavailable(*self._failure) from None

    def _release(self) -> None:
        child, self._child = self._child, None
        if child is not None:
            self._exiting.append(child.release())


class _Totals:
    """Adds up counters over children, each of which counts from 0: a counter must not decrease while we run."""

    def __init__(self) -> None:
        self._shown: dict[str, GpuState] = {}
        self._before: dict[str, GpuState] = {}

    def start_child(self) -> None:
        """Another child starts to count."""
        self._before = dict(self._shown)

    def add(self, reading: Reading) -> Reading:
        """The reading plus what earlier children counted."""
        return replace(reading, gpus=tuple(gpu if gpu.gpu_instance else self._of(gpu) for gpu in reading.gpus))

    def _of(self, gpu: GpuState) -> GpuState:
        before = self._before.get(gpu.uuid)
        if before is not None:
            throttled = dict(before.throttle_seconds)
            gpu = replace(
                gpu,
                throttle_seconds=tuple((name, own + throttled.get(name, 0.0)) for name, own in gpu.throttle_seconds),
                xid_errors=None if gpu.xid_errors is None else gpu.xid_errors + (before.xid_errors or 0.0),
                last_xid=before.last_xid if gpu.last_xid is None else gpu.last_xid,
            )
        self._shown[gpu.uuid] = gpu
        return gpu


class _Child:
    """A process that runs the driver's module."""

    def __init__(self, host: Host, driver: DriverChild, timeouts: Timeouts) -> None:
        """Start it. Raises OSError if the system cannot start a process."""
        self._driver = driver
        self._timeouts = timeouts
        self._timeout_seconds = timeouts.first
        # The alarm ends an orphaned child; as long as the exporter runs, its own shorter timeout comes first.
        limit = 2 * timeouts.first
        module = driver.module
        command = [sys.executable, "-P", "-m", module, __version__, host.procfs, host.sysfs, host.cgroupfs, f"{limit}"]
        # The child must find the same modules, however the exporter was started.
        path = os.pathsep.join(folder or os.getcwd() for folder in sys.path)
        with contextlib.ExitStack() as ours, contextlib.ExitStack() as theirs:
            self._socket, other = socket.socketpair()
            ours.enter_context(self._socket)
            theirs.enter_context(other)
            read_end, write_end = os.pipe2(
                os.O_NONBLOCK | os.O_CLOEXEC
            )  # when full, further output of a library is lost
            self._output = ours.enter_context(open(read_end, "rb", buffering=0))
            theirs.callback(os.close, write_end)
            self._process = subprocess.Popen(
                command,
                stdin=other.fileno(),
                stdout=write_end,
                stderr=write_end,
                env=os.environ | {"PYTHONPATH": path},
                start_new_session=True,  # Ctrl-C in a terminal is for the exporter
            )
            ours.pop_all()  # it runs: keep them
        self._query_lists = self._socket.makefile("rb")

    def request(self, now: float, watched: Collection[str]) -> Reading | Problem | str:
        """Its answer; from then on it reads the counters of the ``watched`` cards more often.

        Raises `Unavailable` if it exited or does not answer in time.
        """
        self._socket.settimeout(self._timeout_seconds)
        try:
            self._socket.sendall(" ".join((repr(now), *watched)).encode() + b"\n")
            answer: Reading | Problem | str = pickle.load(self._query_lists)
        except TimeoutError:
            self._process.kill()
            raise Unavailable(
                "timeout", f"the driver did not return for {self._timeout_seconds:g} s", self._driver.see_kernel
            ) from None
        except (EOFError, OSError, pickle.UnpicklingError):
            raise self._exit_reason() from None
        self._timeout_seconds = self._timeouts.answer
        return answer

    def release(self) -> threading.Thread:
        """Close its input, and kill it if it has not exited in time; the thread ends with the process."""
        self._query_lists.close()
        self._socket.close()
        thread = threading.Thread(target=self._reap, name=f"{self._driver.name}-leaving", daemon=True)
        thread.start()
        return thread

    def _reap(self) -> None:
        try:
            self._process.wait(self._timeouts.answer)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()  # never returns if the process is stuck in the kernel
        self._output.close()

    def _exit_reason(self) -> Unavailable:
        try:
            status = self._process.wait(1.0)
        except subprocess.TimeoutExpired:
            return Unavailable("error", "the process that calls the driver closed its connection")
        if status < 0:
            name = signal.Signals(-status).name if -status in set(signal.Signals) else f"signal {-status}"
            fix = _MEMORY if -status == signal.SIGKILL else self._driver.see_kernel
            return Unavailable(
                "driver", f"the process that calls the driver was ended by {name}{self._last_output()}", fix
            )
        return Unavailable(
            "error", f"the process that calls the driver ended with status {status}{self._last_output()}"
        )

    def _last_output(self) -> str:
        """The last line it printed, if any."""
        lines = (self._output.read(1 << 16) or b"").decode("utf-8", "replace").splitlines()
        return f": {lines[-1][:200]}" if lines else ""


def has_library(name: str) -> bool:
    """Whether the dynamic linker would find a library."""
    folders = (*os.environ.get("LD_LIBRARY_PATH", "").replace(";", ":").split(":"), *_LIBRARY_FOLDERS)
    if any(os.path.exists(f"{folder}/{name}") for folder in folders if folder):
        return True
    try:
        return name.encode() in read_file("/etc/ld.so.cache")
    except Unavailable:
        return False


def _problem(error: Exception) -> Problem:
    if isinstance(error, Unavailable):
        return Problem(error.reason, error.message, error.fix)
    return Problem("error", f"{type(error).__name__}: {error}")
