"""The process in which a driver is called: one reading for every line of its input, until that ends.

:mod:`exporter.sources.driver_process` starts it. It exits on its own even if the exporter is killed (fault 33 of
docs/faults.md): after the present call once its input has ended, and by an alarm if that call never returns.
"""

from __future__ import annotations

import os
import pickle
import select
import signal
import sys
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import replace
from typing import IO, Protocol

from .. import __version__
from ..host import Host
from ..records import CardSteps, Problem, Reading, Unavailable
from .protocol import Source

_CHANNEL = 0
"""The socket for requests and answers is the standard input, so that output of a library cannot corrupt them."""


class Between(Protocol):
    """Reads between two lines of the input: `exporter.sources.nvml.fast_reads.FastReads`."""

    def watch(self, cards: Collection[str], /) -> None:
        """Read these cards from now on, and no others."""

    def wait_seconds(self) -> float | None:
        """Time until the next read is due; None if there is none."""

    def read(self) -> None:
        """Read each card that is watched once. Raises nothing."""

    def take(self) -> tuple[CardSteps, ...]:
        """The steps since the last call."""


def serve(
    source: Source,
    requests: Iterable[bytes],
    answers: IO[bytes],
    limit_seconds: float,
    between: Between | None = None,
) -> None:
    """Answer each line, a boot time and the cards to watch from then on.

    An answer is a pickled `Reading`, a `Problem`, or the text of an unexpected traceback. The kernel ends this process
    if one call takes ``limit_seconds``: the default action of the alarm needs no handler.
    """
    try:
        for line in requests:
            signal.setitimer(signal.ITIMER_REAL, limit_seconds)
            now, *watched = line.decode().split()
            pickle.dump(_answer(source, float(now), between), answers, pickle.HIGHEST_PROTOCOL)
            answers.flush()
            if between is not None:
                between.watch(watched)
            signal.setitimer(signal.ITIMER_REAL, 0)
    except (BrokenPipeError, ConnectionResetError):
        pass  # the exporter has exited
    finally:
        signal.setitimer(signal.ITIMER_REAL, limit_seconds)
        source.close()
        signal.setitimer(signal.ITIMER_REAL, 0)


def lines(channel: int, between: Between | None, limit_seconds: float) -> Iterator[bytes]:
    """Lines of a file descriptor, until it ends; it reads ``between`` two of them."""
    received = b""
    while True:
        wait = None if between is None else between.wait_seconds()
        if between is None or wait is None or select.select([channel], [], [], wait)[0]:
            data = os.read(channel, 1 << 16)
            if not data:
                return
            *complete, received = (received + data).split(b"\n")
            yield from complete
        else:
            signal.setitimer(signal.ITIMER_REAL, limit_seconds)
            between.read()
            signal.setitimer(signal.ITIMER_REAL, 0)


def _answer(source: Source, now: float, between: Between | None) -> Reading | Problem | str:
    steps = () if between is None else between.take()
    try:
        reading = source.read(now)
    except Unavailable as error:
        return Problem(error.reason, error.message, error.fix)
    except Exception:  # noqa: BLE001 - the exporter logs it
        import traceback  # noqa: PLC0415 - rarely needed, and this process should stay small

        return traceback.format_exc()
    return replace(reading, steps=steps) if steps else reading


def run(arguments: Sequence[str], make: Callable[[Host], tuple[Source, Between | None]]) -> None:
    """Read what a source reads. Arguments: version, procfs, sysfs, cgroupfs, limit in seconds."""
    version, procfs, sysfs, cgroupfs, limit = arguments
    if version != __version__:
        sys.exit(f"exporter {version} started the child of {__version__}: it was upgraded, restart it")
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        # A service manager may signal every process of the service: ending in the middle of a call can upset a card.
        signal.signal(number, signal.SIG_IGN)
    source, between = make(Host(procfs, sysfs, cgroupfs))
    with open(_CHANNEL, "wb", closefd=False) as answers:
        serve(source, lines(_CHANNEL, between, float(limit)), answers, float(limit), between)
