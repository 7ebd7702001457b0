"""One sampler as the command line makes it, ticked once per line on stdin; prints CPU and wall seconds of each tick.

Arguments are the exporter's own: ``python -m benchmarks.ticker --path.cgroupfs=…``
"""

from __future__ import annotations

import logging
import os
import sys
import time

from exporter.config.command_line import parse
from exporter.config.loading import load
from exporter.service.assembly import make_host, make_sampler


def main() -> None:
    """Tick until stdin ends."""
    logging.disable(logging.CRITICAL)
    settings = load(parse(sys.argv[1:]).flags, os.environ)
    sampler = make_sampler(settings, make_host(settings))
    for _ in sys.stdin:
        wall, cpu = time.perf_counter(), time.process_time()
        sampler.tick()
        cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
        sys.stdout.write(f"{cpu:.9f} {wall:.9f}\n")
        sys.stdout.flush()
    sampler.close()


if __name__ == "__main__":
    main()
