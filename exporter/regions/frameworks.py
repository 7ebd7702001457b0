"""Regions where frameworks have hooks of their own: PyTorch, Hugging Face Transformers, Lightning and JAX.

Each function imports its framework when it is called. None of them waits for a device, except `jax_step`.
"""

from __future__ import annotations

import functools
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from time import monotonic_ns
from typing import Any, TypeVar, cast

from .client import Client, Region, default_client, region

Function = TypeVar("Function", bound=Callable[..., Any])

_ANCHOR_NS = 20_000_000_000
"""CUDA gives the time between two events as a 32-bit float of milliseconds: beyond 20 s its step is above 2 µs."""

_MAX_SPANS = 4000


class _Anchor:
    """An event, and the latest host time at which it can have passed, which is its time if the stream was ever idle."""

    __slots__ = ("at_ns", "event")

    def __init__(self, event: Any, at_ns: int) -> None:
        self.event = event
        self.at_ns = at_ns


class CudaRegions:
    """Regions with the time in which a CUDA or HIP stream worked for them, by events; nothing is synchronised.

    Events are read after they have passed. None passes before it was recorded, so the device's time is the host's plus
    the least delay between the two that was seen.
    """

    def __init__(self, torch: Any, client: Client | None = None) -> None:
        self._torch = torch
        self._spans: deque[tuple[Region, _Anchor, int, Any, Any]] = deque()
        self._anchor: _Anchor | None = None
        self._client = client or default_client()
        self._client.before_flush.append(self.collect)

    @contextmanager
    def region(self, name: str) -> Iterator[Region]:
        """The region of that name, on the current stream."""
        each = self._client.region(name)
        with each:
            begin, at = self._record()
            if self._anchor is None or at - self._anchor.at_ns > _ANCHOR_NS:
                self._anchor = _Anchor(begin, at)
            anchor = self._anchor
            try:
                yield each
            finally:
                end, _ = self._record()
                if len(self._spans) < _MAX_SPANS:
                    self._spans.append((each, anchor, at, begin, end))

    def collect(self) -> None:
        """Report the spans that have passed."""
        while self._spans and self._spans[0][4].query():
            each, anchor, at, begin, end = self._spans.popleft()
            since = 0 if begin is anchor.event else int(anchor.event.elapsed_time(begin) * 1e6)
            anchor.at_ns = max(anchor.at_ns, at - since)
            start = anchor.at_ns + since
            each.device_time(start, start + int(begin.elapsed_time(end) * 1e6))

    def _record(self) -> tuple[Any, int]:
        event = self._torch.cuda.Event(enable_timing=True)
        at = monotonic_ns()
        event.record()
        return event, at


def cuda_regions() -> CudaRegions:
    """Regions with device time for a PyTorch program; one object for the whole program."""
    import torch  # type: ignore[import-not-found, unused-ignore]  # noqa: PLC0415

    return CudaRegions(torch)


def layers(model: Any, depth: int = 1) -> list[Any]:
    """Make each module of a PyTorch model, down to ``depth`` below it, a region of its forward pass.

    Returns the handles, whose ``remove()`` undoes it. Modules that `torch.compile` or a CUDA graph replaced call no
    hooks and have no regions.
    """
    handles = []
    for name, module in model.named_modules():
        if name and name.count(".") < depth:
            each = region(name)
            handles.append(module.register_forward_pre_hook(functools.partial(_enter, each)))
            handles.append(module.register_forward_hook(functools.partial(_leave, each), always_call=True))
    return handles


def _enter(each: Region, *_: Any) -> None:
    each.__enter__()


def _leave(each: Region, *_: Any) -> None:
    each.__exit__()


def trainer_callback() -> Any:
    """A callback for the ``Trainer`` of Transformers: the region step, with its samples."""
    from transformers import (  # type: ignore[import-not-found, unused-ignore]  # noqa: PLC0415
        TrainerCallback,
    )

    class EnergyCallback(TrainerCallback):  # type: ignore[misc, unused-ignore]
        def on_step_begin(self, *_: Any, **__: Any) -> None:
            region("step").__enter__()

        def on_step_end(self, args: Any, *_: Any, **__: Any) -> None:
            region("step").add(samples=args.train_batch_size * args.gradient_accumulation_steps)
            region("step").__exit__()

    return EnergyCallback()


def lightning_callback() -> Any:
    """A callback for the ``Trainer`` of Lightning: the regions step and validation."""
    try:
        from lightning.pytorch import (  # type: ignore[import-not-found, unused-ignore]  # noqa: PLC0415
            Callback,
        )
    except ImportError:
        from pytorch_lightning import (  # type: ignore[import-not-found, unused-ignore]  # noqa: PLC0415
            Callback,
        )

    class EnergyCallback(Callback):  # type: ignore[misc, unused-ignore]
        def on_train_batch_start(self, *_: Any, **__: Any) -> None:
            region("step").__enter__()

        def on_train_batch_end(self, *_: Any, **__: Any) -> None:
            region("step").__exit__()

        def on_validation_batch_start(self, *_: Any, **__: Any) -> None:
            region("validation").__enter__()

        def on_validation_batch_end(self, *_: Any, **__: Any) -> None:
            region("validation").__exit__()

    return EnergyCallback()


def jax_step(name: str = "step") -> Callable[[Function], Function]:
    """Decorate a function of JAX arrays: a region that ends when its result is computed, for which it waits."""

    def decorate(function: Function) -> Function:
        @functools.wraps(function)
        def wrapper(*args: Any, **kwargs: Any) -> Any:
            import jax  # type: ignore[import-not-found, unused-ignore]  # noqa: PLC0415

            with region(name), jax.profiler.TraceAnnotation(name):
                return jax.block_until_ready(function(*args, **kwargs))

        return cast("Function", wrapper)

    return decorate
