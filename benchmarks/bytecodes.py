"""Bytecode instructions of a tick: a measure of its work that neither the load of the machine nor its caches change."""

from __future__ import annotations

import logging
import os
import sys
import threading
import time
from collections.abc import Callable
from types import FrameType
from typing import Any

from exporter.config.command_line import parse
from exporter.config.loading import load
from exporter.sampling.sampler import Sampler
from exporter.service.assembly import make_host, make_sampler

from .crowd import crowd
from .table import show

SIZES = ((200, 50), (2_000, 200))
VARIANTS = {
    "as installed": (),
    "grams and money": ("--impact.intensity=400", "--impact.price=0.3", "--impact.currency=EUR"),
    "learned watts": ("--attribution.cpu=learned",),
}
WARM_UP = 60
"""Ticks until the exporter has found the active processes and the first housekeeping is over."""

ROUNDS = 20

Trace = Callable[[FrameType, str, Any], Any]


class _Counter:
    """Counts the instructions of all Python code that this thread and those started from now on run."""

    def __init__(self) -> None:
        self.instructions = 0
        self._counting = False
        threading.settrace(self._enter)

    def count(self, call: Callable[[], object]) -> int:
        """Instructions of one call, with what other threads do meanwhile."""
        before, self._counting = self.instructions, True
        sys.settrace(self._enter)
        try:
            call()
        finally:
            sys.settrace(None)
            self._counting = False
        return self.instructions - before

    def _enter(self, frame: FrameType, _event: str, _argument: object) -> Trace | None:
        if not self._counting:
            return None
        frame.f_trace_opcodes, frame.f_trace_lines = True, False
        return self._step

    def _step(self, _frame: FrameType, event: str, _argument: object) -> Trace:
        self.instructions += event == "opcode"
        return self._step


def measure(processes: int, groups: int) -> dict[str, int]:
    """Instructions of a mean tick of each variant, all on the same real processes, in turns."""
    counter = _Counter()
    with crowd(processes, groups) as on:
        samplers = {name: _sampler([*on.flags, *flags]) for name, flags in VARIANTS.items()}
        total = dict.fromkeys(samplers, 0)
        for number in range(WARM_UP + processes // 400 + ROUNDS):
            for name, sampler in samplers.items():
                if number >= WARM_UP + processes // 400:
                    total[name] += counter.count(sampler.tick)
                else:
                    sampler.tick()
                time.sleep(0.1)
        for sampler in samplers.values():
            sampler.close()
    threading.settrace(None)
    return {name: number // ROUNDS for name, number in total.items()}


def _sampler(flags: list[str]) -> Sampler:
    settings = load(parse(flags).flags, os.environ)
    return make_sampler(settings, make_host(settings))


def main() -> None:
    """Print the table."""
    logging.disable(logging.CRITICAL)
    rows = []
    for processes, groups in SIZES:
        found = measure(processes, groups)
        plain = found["as installed"]
        rows += [
            (f"{processes:,}", f"{groups:,}", name, f"{number:,}", f"{number / plain - 1:+.1%}")
            for name, number in found.items()
        ]
    show(
        f"Bytecode instructions of a tick, mean of {ROUNDS}", ("processes", "cgroups", "", "instructions", "more"), rows
    )


if __name__ == "__main__":
    main()
