"""All levers; a new one is a file and a line here."""

from __future__ import annotations

from . import (
    batch_limit,
    checkpoint,
    clock_lock,
    consolidate,
    data_loader,
    free_gpus,
    host_cpu,
    mig,
    mixed_precision,
    move_in_region,
    move_in_time,
    power_cap,
    precision,
    prefix_cache,
    right_size,
    stop_idle,
    straggler,
    tensor_parallel,
)
from .lever import Lever

LEVERS: tuple[Lever, ...] = (
    stop_idle.LEVER,
    free_gpus.LEVER,
    consolidate.LEVER,
    batch_limit.LEVER,
    power_cap.LEVER,
    clock_lock.LEVER,
    precision.LEVER,
    tensor_parallel.LEVER,
    prefix_cache.LEVER,
    mig.LEVER,
    right_size.LEVER,
    host_cpu.LEVER,
    data_loader.LEVER,
    checkpoint.LEVER,
    straggler.LEVER,
    mixed_precision.LEVER,
    move_in_time.LEVER,
    move_in_region.LEVER,
)
"""In the order in which levers of the same rank are listed."""
