"""Cgroups that ``ai-energy-exporter run`` makes for its commands: ``ai-energy-run.NAME.PID``."""

from __future__ import annotations

import re

from ...records import Workload
from .systemd import printable

_RUN = re.compile(r"/ai-energy-run\.([^/]+)\.[0-9]+(?=/|\Z)")


def resolve(path: str) -> Workload | None:
    """One row per name of a run: a command that is run every night has one series, not one for each night."""
    match = _RUN.search(path)
    return None if match is None else Workload(container=printable(match[1]), runtime="run")
