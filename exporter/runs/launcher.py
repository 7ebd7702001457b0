"""Starts a command, passes signals on to it, and waits for it and for the orphans that it leaves.

Three processes: this one is the parent of the command, and as a subreaper (prctl(2)) that of all its orphans, so that
wait4(2) returns the exact CPU time of each. It has one thread. The command waits for a byte before it is executed,
until the meters have been read. They are read in a child of its own, so that a driver that hangs or crashes does not
reach the command. All stay in the process group of the shell, as with time(1) and nice(1): the terminal's own signals
reach the command without help.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import json
import os
import select
import signal
import sys
import time
from collections.abc import Callable, Sequence
from typing import NamedTuple, NoReturn

from ..host import boot_seconds

PASSED_ON = (
    signal.SIGINT,
    signal.SIGTERM,
    signal.SIGHUP,
    signal.SIGQUIT,
    signal.SIGUSR1,
    signal.SIGUSR2,
    signal.SIGTSTP,
    signal.SIGCONT,
)
"""Signals that the command receives as well, unless the terminal has sent them to its whole process group."""

NOT_FOUND, NOT_EXECUTABLE = 127, 126
"""Exit status for a command that does not exist, and one that cannot be executed, as of a shell."""

_ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT)
_PR_SET_CHILD_SUBREAPER = 36
_FIRST_READING_SECONDS = 20.0
_LAST_READING_SECONDS = 30.0
_POLL_SECONDS = 0.02
_WAIT_SECONDS = 3600.0


class Ending(NamedTuple):
    """How the command ended: exit status as of a shell, and when it ran, in boot-time seconds.

    ``seconds`` is the exact CPU time of all its descendants that have exited.
    """

    status: int
    started_at: float
    ended_at: float
    seconds: float


class Abandoned(Exception):  # noqa: N818 - no error: there is nothing to measure any more
    """The command was never executed, or the process that waits for it has been killed."""


class Link:
    """The measuring process's view of the launcher: ``launcher`` and ``command`` are pids, of a subreaper if so."""

    def __init__(self, launcher: int, command: int, news: int, ready: int, *, subreaper: bool) -> None:
        self.launcher = launcher
        self.command = command
        self.subreaper = subreaper
        self._news = news
        self._ready = ready

    def ready(self) -> None:
        """The meters have been read once: execute the command."""
        with contextlib.suppress(BrokenPipeError):
            os.write(self._ready, b"!")

    def wait(self, seconds: float) -> Ending | None:
        """Wait for the end of the command, None after so many seconds. Raises `Abandoned`."""
        if not select.select([self._news], [], [], max(0.0, seconds))[0]:
            return None
        text = b""
        while part := os.read(self._news, 4096):
            text += part
        if not text:
            raise Abandoned
        return Ending(*json.loads(text))


Measure = Callable[[Link], None]


def launch(
    command: Sequence[str],
    attach: Callable[[int], None],
    measure: Measure,
    *,
    wait_for_all: bool = False,
    fail: Callable[[str], None],
) -> int:
    """Run ``command`` to its end. Returns its exit status as of a shell: 128 + n after signal n.

    ``attach`` gets the pid of the command before that is executed. ``measure`` runs in a process of its own.
    ``wait_for_all`` waits for all its descendants, else the end of the command is the end. ``fail`` prints a reason.
    """
    return _Launcher(command, attach, measure, wait_for_all, fail).run()


class _Launcher:
    def __init__(
        self,
        command: Sequence[str],
        attach: Callable[[int], None],
        measure: Measure,
        wait_for_all: bool,
        fail: Callable[[str], None],
    ) -> None:
        self._command = command
        self._attach = attach
        self._measure = measure
        self._wait_for_all = wait_for_all
        self._fail = fail
        self._signals = {*PASSED_ON, signal.SIGCHLD}
        self._seconds = 0.0
        self._pid = self._measuring = 0
        self._status: int | None = None
        self._measured: int | None = None  # wait status of the measuring process

    def run(self) -> int:
        subreaper = _become_subreaper()
        mask = signal.pthread_sigmask(signal.SIG_BLOCK, self._signals)
        children = signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # where it is ignored, no child can be waited for
        gate_read, gate = os.pipe()
        failure, failure_write = os.pipe()
        self._pid = os.fork()
        if not self._pid:
            os.close(gate)
            signal.signal(signal.SIGCHLD, children or signal.SIG_DFL)
            _execute(self._command, gate_read, failure_write, mask)
        os.close(gate_read)
        os.close(failure_write)
        self._attach(self._pid)
        news_read, news = os.pipe()
        ready, ready_write = os.pipe()
        launcher = os.getpid()
        self._measuring = os.fork()
        if not self._measuring:
            for fd in (gate, failure, news, ready):
                os.close(fd)
            link = Link(launcher, self._pid, news_read, ready_write, subreaper=subreaper)
            _run_measuring(self._measure, link, mask)
        os.close(news_read)
        os.close(ready_write)
        ended_by = self._await_first_reading(ready)
        if ended_by is not None:
            os.kill(self._pid, signal.SIGKILL)
            os.close(news)
            self._reap_the_last()
            return 128 + ended_by
        started_at = boot_seconds()
        os.write(gate, b"!")
        os.close(gate)
        code = os.read(failure, 16)  # nothing at all once it is executed
        os.close(failure)
        if code:
            os.close(news)
            self._reap_the_last()
            self._fail(f"{self._command[0]}: {os.strerror(int(code))}")
            return NOT_FOUND if int(code) == errno.ENOENT else NOT_EXECUTABLE
        self._await_end()
        assert self._status is not None
        ending = Ending(self._status, started_at, boot_seconds(), self._seconds)
        with contextlib.suppress(BrokenPipeError), os.fdopen(news, "w") as file:
            json.dump(ending, file)
        self._reap_the_last()
        if self._measured:
            self._fail(f"the energy was not measured: its process ended ({_words(self._measured)})")
        return self._status

    def _await_first_reading(self, ready: int) -> int | None:
        """Wait until the meters have been read; returns the signal that came first and ends everything."""
        until = time.monotonic() + _FIRST_READING_SECONDS
        while time.monotonic() < until:
            if select.select([ready], [], [], _POLL_SECONDS)[0]:
                break
            found = signal.sigtimedwait(self._signals, 0)
            if found is not None and found.si_signo in _ENDING:
                return found.si_signo
            if found is not None and found.si_signo != signal.SIGCHLD:
                self._pass_on(found)
        else:
            self._fail("no meter answered in time: the command starts without a first reading")
        os.close(ready)
        return None

    def _await_end(self) -> None:
        while self._status is None or (self._wait_for_all and self._others()):
            found = signal.sigtimedwait(self._signals, _WAIT_SECONDS)
            if found is None:
                continue
            if found.si_signo == signal.SIGCHLD:
                self._reap()
            else:
                self._pass_on(found)

    def _pass_on(self, found: signal.struct_siginfo) -> None:
        number = found.si_signo
        to_all = found.si_code > 0  # the kernel's: from the terminal, to its whole process group
        if not to_all and self._status is None:
            _kill(self._pid, number)
        if self._status is not None and number in _ENDING:
            self._wait_for_all = False
        if number == signal.SIGCONT:
            _kill(self._measuring, number)
        elif number == signal.SIGTSTP:
            # By its default action, which the kernel leaves out where no shell could continue the job.
            signal.pthread_sigmask(signal.SIG_UNBLOCK, {number})
            os.kill(os.getpid(), number)
            signal.pthread_sigmask(signal.SIG_BLOCK, {number})

    def _reap(self) -> None:
        """Wait for all children that have exited, and add up what they and their own children used."""
        with contextlib.suppress(ChildProcessError):
            while True:
                pid, status, usage = os.wait4(-1, os.WNOHANG)
                if not pid:
                    return
                if pid == self._measuring:
                    self._measured = status
                    continue
                self._seconds += usage.ru_utime + usage.ru_stime
                if pid == self._pid:
                    code = os.waitstatus_to_exitcode(status)
                    self._status = code if code >= 0 else 128 - code

    def _reap_the_last(self) -> None:
        """Wait for the measuring process, which prints; Ctrl-C ends it."""
        until = time.monotonic() + _LAST_READING_SECONDS
        while self._measured is None:
            self._reap()
            left = until - time.monotonic()
            found = signal.sigtimedwait(self._signals, max(0.0, left)) if self._measured is None else None
            if left <= 0 or (found is not None and found.si_signo in _ENDING):
                _kill(self._measuring, signal.SIGKILL)
                until = time.monotonic() + 1.0
        self._reap()

    def _others(self) -> bool:
        """Whether there are children besides the measuring process; False where /proc does not list them."""
        try:
            with open(f"/proc/self/task/{os.getpid()}/children", encoding="ascii") as file:
                return {int(pid) for pid in file.read().split()} > {self._measuring}
        except OSError:
            return False


def _become_subreaper() -> bool:
    if sys.platform != "linux":
        return False
    return bool(ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) == 0)


def _execute(command: Sequence[str], gate: int, failure: int, mask: set[signal.Signals | int]) -> NoReturn:
    """Become the command once the gate opens, with the signals as they were."""
    try:
        for number in (signal.SIGPIPE, signal.SIGXFSZ):  # the interpreter ignores them
            signal.signal(number, signal.SIG_DFL)
        if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
            signal.signal(signal.SIGINT, signal.SIG_DFL)
        if not os.read(gate, 1):
            os._exit(NOT_FOUND)  # the launcher was killed
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        os.execvp(command[0], list(command))
    except OSError as error:
        os.write(failure, str(error.errno or errno.EINVAL).encode())
    except ValueError:  # an argument with a NUL byte
        os.write(failure, str(errno.EINVAL).encode())
    finally:
        os._exit(NOT_EXECUTABLE)


def _run_measuring(measure: Measure, link: Link, mask: set[signal.Signals | int]) -> NoReturn:
    """Measure until the launcher says so: its signals do not end this process, and its input is not read here."""
    status = 1
    try:
        for number in (*_ENDING, signal.SIGUSR1, signal.SIGUSR2):
            signal.signal(number, _nothing)  # a handler, because children would inherit SIG_IGN
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        null = os.open(os.devnull, os.O_RDONLY)
        os.dup2(null, 0)
        measure(link)
        status = 0
    except Abandoned:
        status = 0
    except Exception:  # noqa: BLE001 - the command must not depend on it
        sys.excepthook(*sys.exc_info())
    finally:
        with contextlib.suppress(OSError):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(status)


def _nothing(*_: object) -> None:
    pass


def _kill(pid: int, number: int) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.kill(pid, number)


def _words(status: int) -> str:
    code = os.waitstatus_to_exitcode(status)
    return f"status {code}" if code >= 0 else signal.strsignal(-code) or f"signal {-code}"
