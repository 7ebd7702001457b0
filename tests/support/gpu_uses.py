"""What tests read of GPU usage."""

from __future__ import annotations

from exporter.records import GpuUse, Process


def known(use: GpuUse) -> Process:
    """The process of a use, which must be known."""
    assert use.process is not None
    return use.process
