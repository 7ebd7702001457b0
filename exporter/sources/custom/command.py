"""Runs a command that prints a number: without a shell, with a deadline, with bounded output."""

from __future__ import annotations

import contextlib
import os
import selectors
import signal
import subprocess
import time
from collections.abc import Sequence

from ...records import Reason, Unavailable

MAX_BYTES = 1 << 16
"""Output of a command; more is not kept."""

_MOST_BYTES = 16 << 20
"""A command that prints more is killed: to throw it away takes time of a core."""

_END_SECONDS = 1.0
"""Within that time a process ends after it has closed its output, or was killed."""

_POLL_SECONDS = 0.002
_SHOWN = 200


class Command:
    """One command, run again and again, never twice at the same time.

    A run that takes too long is killed. At the end of each run so is what is left of its session: a process that it
    left behind would be one more each time. One that cannot be killed, because it waits in the kernel, is waited for
    before the next run.
    """

    def __init__(self, argv: Sequence[str], timeout_seconds: float) -> None:
        self._argv = list(argv)
        self._timeout_seconds = timeout_seconds
        self._process: subprocess.Popen[bytes] | None = None
        self._stopped = False

    def run(self) -> str:
        """What it prints. Raises `Unavailable` if it cannot be started, fails, or takes too long."""
        name = self._argv[0]
        if self._process is not None and self._process.poll() is None:
            raise Unavailable("timeout", f"{name}: an earlier run cannot be ended", "look at it with ps: state D")
        try:
            self._process = subprocess.Popen(
                self._argv,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                env=os.environ | {"LC_ALL": "C"},  # a decimal point is a point
                start_new_session=True,
            )
        except OSError as error:
            reason: Reason = "permission" if isinstance(error, PermissionError) else "not_found"
            fix = "name an executable program, with its path; in a container it must be in the image"
            raise Unavailable(reason, f"{name}: {error.strerror or error}", fix) from None
        process = self._process
        if self._stopped:  # while it was started
            _kill(process)
        output, errors, ended, size = self._read(process, time.monotonic() + self._timeout_seconds)
        status = _end(process, ended=ended)
        if size > _MOST_BYTES:
            raise Unavailable("implausible", f"{name}: more than {_MOST_BYTES >> 20} MiB of output: killed")
        if status is None or not ended:
            fix = "raise its timeout, or find out what it waits for"
            raise Unavailable("timeout", f"{name}: not ended after {self._timeout_seconds:g} s: killed", fix)
        if status != 0:
            how = f"exit status {status}" if status > 0 else f"ended by signal {-status}"
            text = f"{name}: {how}{self._last_line(errors)}"
            raise Unavailable("error", text, "run it by hand as the exporter's user")
        return output.decode("utf-8", "replace")

    def stop(self) -> None:
        """Kill a run that has not ended, and all later ones."""
        self._stopped = True
        if self._process is not None and self._process.poll() is None:
            _kill(self._process)

    def _read(self, process: subprocess.Popen[bytes], deadline: float) -> tuple[bytes, bytes, bool, int]:
        """Output and errors, each up to `MAX_BYTES`, whether both ended in time, and the size of all that was said."""
        kept: dict[int, bytearray] = {}
        size = 0
        with selectors.DefaultSelector() as selector:
            for stream in (process.stdout, process.stderr):
                assert stream is not None
                kept[stream.fileno()] = bytearray()
                selector.register(stream, selectors.EVENT_READ)
            while selector.get_map() and size <= _MOST_BYTES and (left := deadline - time.monotonic()) > 0:
                for key, _ in selector.select(left):
                    data = os.read(key.fd, MAX_BYTES)
                    if not data:
                        selector.unregister(key.fileobj)
                    size += len(data)
                    kept[key.fd] += data[: MAX_BYTES - len(kept[key.fd])]
            ended = not selector.get_map()
        output, errors = map(bytes, kept.values())
        return output, errors, ended, size

    def _last_line(self, errors: bytes) -> str:
        """The last line of its errors, without its arguments: one may be a password."""
        lines = errors.decode("utf-8", "replace").strip().splitlines()
        if not lines:
            return ""
        line = lines[-1]
        for argument in self._argv[1:]:
            line = line.replace(argument, "...") if len(argument) > 2 else line
        return f": {line[:_SHOWN]}"


def _end(process: subprocess.Popen[bytes], *, ended: bool) -> int | None:
    """The exit status; None if it had to be killed."""
    for stream in (process.stdout, process.stderr):
        if stream is not None:
            stream.close()
    has_ended = ended and _wait(process, _END_SECONDS)
    _kill(process)  # before its id is given back, which is that of its session
    with contextlib.suppress(subprocess.TimeoutExpired):  # it waits in the kernel
        process.wait(_END_SECONDS)
    return process.returncode if has_ended else None


def _wait(process: subprocess.Popen[bytes], seconds: float) -> bool:
    """Wait until it has ended, and leave its status where it is."""
    deadline = time.monotonic() + seconds
    with contextlib.suppress(ChildProcessError):  # `stop` has taken its status
        while os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None:
            if time.monotonic() > deadline:
                return False
            time.sleep(_POLL_SECONDS)
    return True


def _kill(process: subprocess.Popen[bytes]) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
