"""``ai-energy-exporter --once``: print one scrape and exit."""

from __future__ import annotations

import sys
import time

from ..config.settings import Settings
from ..exposition.metrics.collector import exporter_registry
from ..exposition.metrics.render import Renderer
from ..service.assembly import make_host, make_sampler


def run(settings: Settings) -> int:
    """Print the scrape after two ticks, because usage is the difference of two readings; no state file is used.

    Returns the exit status.
    """
    sampler = make_sampler(settings, make_host(settings))
    try:
        sampler.tick()
        time.sleep(settings.sample_interval)
        snapshot = sampler.tick()
    finally:
        sampler.close()
    sys.stdout.buffer.write(Renderer(exporter_registry()).body(snapshot))
    sys.stdout.flush()
    return 0
