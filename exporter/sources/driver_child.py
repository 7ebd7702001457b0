"""The process in which a driver is called: one reading for every line of its input, until that ends.

:mod:`exporter.sources.driver_process` starts it. It exits on its own even if the exporter is killed (fault 33 of
docs/faults.md): after the present call once its input has ended, and by an alarm if that call never returns.
"""

from __future__ import annotations

import pickle
import signal
import sys
from collections.abc import Callable, Iterable, Sequence
from typing import IO

from .. import __version__
from ..host import Host
from ..records import Problem, Unavailable
from .protocol import Source

_CHANNEL = 0
"""The socket for requests and answers is the standard input, so that output of a library cannot corrupt them."""


def serve(source: Source, requests: Iterable[bytes], answers: IO[bytes], limit_seconds: float) -> None:
    """Answer each line, a boot time, with a pickled `Reading`, a `Problem`, or the text of an unexpected traceback.

    The kernel ends this process if one call takes ``limit_seconds``: the default action of the alarm needs no handler.
    """
    try:
        for line in requests:
            signal.setitimer(signal.ITIMER_REAL, limit_seconds)
            pickle.dump(_answer(source, float(line)), answers, pickle.HIGHEST_PROTOCOL)
            answers.flush()
            signal.setitimer(signal.ITIMER_REAL, 0)
    except (BrokenPipeError, ConnectionResetError):
        pass  # the exporter has exited
    finally:
        signal.setitimer(signal.ITIMER_REAL, limit_seconds)
        source.close()
        signal.setitimer(signal.ITIMER_REAL, 0)


def _answer(source: Source, now: float) -> object:
    try:
        return source.read(now)
    except Unavailable as error:
        return Problem(error.reason, error.message, error.fix)
    except Exception:  # noqa: BLE001 - the exporter logs it
        import traceback  # noqa: PLC0415 - rarely needed, and this process should stay small

        return traceback.format_exc()


def run(arguments: Sequence[str], make: Callable[[Host], Source]) -> None:
    """Read what a source reads. Arguments: version, procfs, sysfs, cgroupfs, limit in seconds."""
    version, procfs, sysfs, cgroupfs, limit = arguments
    if version != __version__:
        sys.exit(f"exporter {version} started the child of {__version__}: it was upgraded, restart it")
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        # A service manager may signal every process of the service: ending in the middle of a call can upset a card.
        signal.signal(number, signal.SIG_IGN)
    source = make(Host(procfs, sysfs, cgroupfs))
    with open(_CHANNEL, "rb", closefd=False) as requests, open(_CHANNEL, "wb", closefd=False) as answers:
        serve(source, requests, answers, float(limit))
