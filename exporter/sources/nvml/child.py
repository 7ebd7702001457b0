"""The process in which NVIDIA's driver is called: one reading for every line of its input, until that ends.

Between two lines it reads the energy counters of the cards that the last line names.

:mod:`exporter.sources.nvml.process` starts it. It exits on its own even if the exporter is killed (fault 33 of
docs/faults.md): after the present call once its input has ended, and by an alarm if that call never returns.
"""

from __future__ import annotations

import os
import pickle
import select
import signal
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from typing import IO

from ... import __version__
from ...host import Host
from ...records import Problem, Reading, Unavailable
from ..protocol import Source
from .fast_reads import FastReads
from .source import NvmlSource

_CHANNEL = 0
"""The socket for requests and answers is the standard input, so that output of a library cannot corrupt them."""


def serve(
    source: Source, requests: Iterable[bytes], answers: IO[bytes], limit_seconds: float, fast_reads: FastReads
) -> None:
    """Answer each line, a boot time and the cards to watch from then on.

    An answer is a pickled `Reading`, a `Problem`, or the text of an unexpected traceback. The kernel ends this process
    if one call takes ``limit_seconds``: the default action of the alarm needs no handler.
    """
    try:
        for line in requests:
            signal.setitimer(signal.ITIMER_REAL, limit_seconds)
            now, *watched = line.decode().split()
            pickle.dump(_answer(source, float(now), fast_reads), answers, pickle.HIGHEST_PROTOCOL)
            answers.flush()
            fast_reads.watch(watched)
            signal.setitimer(signal.ITIMER_REAL, 0)
    except (BrokenPipeError, ConnectionResetError):
        pass  # the exporter has exited
    finally:
        signal.setitimer(signal.ITIMER_REAL, limit_seconds)
        source.close()
        signal.setitimer(signal.ITIMER_REAL, 0)


def lines(channel: int, fast_reads: FastReads, limit_seconds: float) -> Iterator[bytes]:
    """Lines of a file descriptor, until it ends; ``fast_reads`` are made while the next one is awaited."""
    received = b""
    while True:
        wait = fast_reads.wait_seconds()
        if wait is None or select.select([channel], [], [], wait)[0]:
            data = os.read(channel, 1 << 16)
            if not data:
                return
            *complete, received = (received + data).split(b"\n")
            yield from complete
        else:
            signal.setitimer(signal.ITIMER_REAL, limit_seconds)
            fast_reads.read()
            signal.setitimer(signal.ITIMER_REAL, 0)


def _answer(source: Source, now: float, fast_reads: FastReads) -> Reading | Problem | str:
    steps = fast_reads.take()
    try:
        reading = source.read(now)
    except Unavailable as error:
        return Problem(error.reason, error.message, error.fix)
    except Exception:  # noqa: BLE001 - the exporter logs it
        import traceback  # noqa: PLC0415 - rarely needed, and this process should stay small

        return traceback.format_exc()
    return replace(reading, steps=steps) if steps else reading


def main(arguments: Sequence[str]) -> None:
    """Read the cards of this machine. Arguments: version, procfs, sysfs, cgroupfs, limit in seconds."""
    version, procfs, sysfs, cgroupfs, limit = arguments
    if version != __version__:
        sys.exit(f"exporter {version} started the child of {__version__}: it was upgraded, restart it")
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        # A service manager may signal every process of the service: ending in the middle of a call can upset a card.
        signal.signal(number, signal.SIG_IGN)
    host = Host(procfs, sysfs, cgroupfs)
    source = NvmlSource(host)
    fast_reads = FastReads(source.counter_joules, host.clock)
    with open(_CHANNEL, "wb", closefd=False) as answers:
        serve(source, lines(_CHANNEL, fast_reads, float(limit)), answers, float(limit), fast_reads)


if __name__ == "__main__":
    main(sys.argv[1:])
