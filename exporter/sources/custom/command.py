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
"""Output of a command; more is not read."""

_END_SECONDS = 1.0
"""Within that time a process ends after it has closed its output, or was killed."""

_SHOWN = 200


class Command:
    """One command, run again and again, never twice at the same time.

    A run that takes too long is killed with all processes of its session. One that cannot be killed, because it waits
    in the kernel, is waited for before the next run.
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
        output, errors, ended = self._read(process, time.monotonic() + self._timeout_seconds)
        status = _end(process, ended=ended)
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

    def _read(self, process: subprocess.Popen[bytes], deadline: float) -> tuple[bytes, bytes, bool]:
        """Output and errors, each up to `MAX_BYTES`, and whether both ended in time."""
        kept: dict[int, bytearray] = {}
        with selectors.DefaultSelector() as selector:
            for stream in (process.stdout, process.stderr):
                assert stream is not None
                kept[stream.fileno()] = bytearray()
                selector.register(stream, selectors.EVENT_READ)
            while selector.get_map() and (left := deadline - time.monotonic()) > 0:
                for key, _ in selector.select(left):
                    data = os.read(key.fd, MAX_BYTES)
                    if not data:
                        selector.unregister(key.fileobj)
                    kept[key.fd] += data[: MAX_BYTES - len(kept[key.fd])]
            ended = not selector.get_map()
        output, errors = map(bytes, kept.values())
        return output, errors, ended

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
    try:
        return process.wait(_END_SECONDS if ended else 0.0)
    except subprocess.TimeoutExpired:
        _kill(process)
    with contextlib.suppress(subprocess.TimeoutExpired):  # it waits in the kernel
        process.wait(_END_SECONDS)
    return None


def _kill(process: subprocess.Popen[bytes]) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
