"""Idle power of a GPU until its own is learned: that of the same product on this node, else a published one."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from statistics import median

from ..records import Device, GpuState
from .baseline import Baseline

_PUBLISHED: tuple[tuple[re.Pattern[str], float], ...] = tuple(
    (re.compile(rf"\b{name}\b"), watts)
    for name, watts in (
        ("A100-SXM4", 50.0),  # 49 and 52 W of 400 W: mrnorman/miniWeather#12
        ("A40", 30.0),  # of 300 W: NVIDIA/open-gpu-kernel-modules#874
        ("B200", 137.0),  # of 1000 W: ROCm/legacy-rocm-build#5219
        ("L40S", 33.0),  # of 350 W: gpustack/gpustack#301
        ("MI355X?", 238.0),  # of 1400 W: ROCm/legacy-rocm-build#5219
        ("RTX 3080", 22.0),  # of 320 W: NVIDIA/open-gpu-kernel-modules#314
        ("RTX 3090", 24.0),  # of 350 W: AUTOMATIC1111/stable-diffusion-webui#9810
        ("Quadro RTX 4000", 10.0),  # of 125 W: akash-network/provider-configs#12
    )
)
"""Product → watts at 0 % without a process, as its users or its maker report them."""

_OF_LIMIT = 0.1
"""Part of the power limit that a product which is not in the table is expected to need: the table's median."""


def expect_idle(known: Mapping[str, Device], baselines: Mapping[str, Baseline], gpus: Iterable[GpuState]) -> None:
    """Give each GPU whose idle power is not learned yet the one that it is expected to have."""
    guesses = [
        (known[key], baseline)
        for key, baseline in baselines.items()
        if baseline.is_guess and key in known and known[key].component == "gpu"
    ]
    if not guesses:
        return
    limits = {gpu.uuid: gpu.power_limit_watts for gpu in gpus if not gpu.gpu_instance}
    for device, guess in guesses:
        siblings = [
            baseline.idle.watts
            for key, baseline in baselines.items()
            if key in known and _same_product(known[key], device) and baseline.idle.method == "learned"
        ]
        watts = [sibling for sibling in siblings if sibling]
        guess.expect(median(watts) if watts else _of_product(device.name, limits.get(device.id), guess))


def _same_product(one: Device, other: Device) -> bool:
    return bool(one.name) and (one.component, one.source, one.name) == (other.component, other.source, other.name)


def _of_product(name: str, limit_watts: float | None, baseline: Baseline) -> float | None:
    for product, watts in _PUBLISHED:
        if product.search(name):
            return watts
    most = limit_watts or max((sample.watts for sample in baseline.samples()), default=0.0)
    return _OF_LIMIT * most or None
