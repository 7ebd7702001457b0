"""Traces of PyTorch's profiler: ``export_chrome_trace``, or what `tensorboard_trace_handler` writes.

Times are in µs, from ``baseTimeNanoseconds`` on where that is given. Work is kernels and copies of GPUs; a trace
without any is of the CPU, whose work is operators. Ranges are ``record_function``, layers the modules that
``with_modules`` or ``with_stack`` names.
"""

from __future__ import annotations

import gzip
import json
import zlib
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from .nesting import Enclosing, Interval, names, pieces
from .trace import Device, Trace, TraceError, Work

_ON_GPU = {"kernel", "gpu_memcpy", "gpu_memset"}
_LAUNCHES = {"cuda_runtime", "cuda_driver", "hip_runtime", "xpu_runtime"}
_KINDS = {"user_annotation": "range", "cpu_op": "operator", "python_function": "layer"}
_MODULE = "nn.Module: "
_PROFILER = "ProfilerStep#"
_BACKWARD = "autograd::engine::evaluate_function"
_CPU = "cpu"

Event = Mapping[str, Any]
_Thread = tuple[Any, Any]


def read(path: Path) -> Trace:
    """The trace of a ``.json`` or ``.json.gz``. Raises `TraceError`, OSError."""
    document = _load(path)
    events = [event for event in document.get("traceEvents") or () if _is_complete(event)]
    if not events:
        raise TraceError(f"{path}: no event with a time and a duration in traceEvents")
    base = int(document.get("baseTimeNanoseconds") or 0)
    return _Reader(document, events, base).trace(path)


def _load(path: Path) -> dict[str, Any]:
    data = path.read_bytes()
    try:
        if data[:2] == b"\x1f\x8b":
            data = gzip.decompress(data)
        document = json.loads(data)
    except (ValueError, EOFError, OSError, zlib.error) as error:  # OSError: of gzip
        raise TraceError(f"{path}: not JSON: {error}") from None
    if not isinstance(document, dict) or not isinstance(document.get("traceEvents"), list):
        raise TraceError(f"{path}: no trace of PyTorch's profiler: traceEvents is missing")
    return document


def _is_complete(event: Any) -> bool:
    return (
        isinstance(event, dict)
        and event.get("ph") == "X"
        and isinstance(event.get("ts"), (int, float))
        and isinstance(event.get("dur"), (int, float))
        and event["dur"] >= 0
    )


class _Reader:
    def __init__(self, document: Mapping[str, Any], events: Sequence[Event], base: int) -> None:
        self._document, self._events, self._base = document, events, base
        self._notes: list[str] = []

    def trace(self, path: Path) -> Trace:
        work = list(self._gpu_work()) or list(self._cpu_work())
        if not work:
            raise TraceError(f"{path}: neither kernels of a GPU nor operators of the CPU")
        if not self._base and min(one.start for one in work) < 1e18:  # before 2001
            raise TraceError(f"{path}: its times are of no clock: baseTimeNanoseconds is missing")
        return Trace(
            tuple(self._devices({one.device for one in work})),
            work,
            min(one.start for one in work),
            max(one.end for one in work),
            notes=tuple(self._notes),
        )

    def _span(self, event: Event) -> tuple[int, int]:
        start = self._base + round(event["ts"] * 1000)
        return start, start + round(event["dur"] * 1000)

    def _intervals(self) -> dict[_Thread, list[Interval]]:
        """Ranges, operators and layers of the CPU's threads; what runs backward has the layers that ran forward."""
        found: defaultdict[_Thread, list[Interval]] = defaultdict(list)
        for event in self._events:
            kind, name = _KINDS.get(event.get("cat", "")), str(event.get("name", ""))
            if kind is None or (kind == "layer" and not name.startswith(_MODULE)):
                continue
            found[_thread(event)].append(Interval(*self._span(event), name.removeprefix(_MODULE), kind))
        forward = self._layers_of_forward(found)
        for event in self._events:
            if event.get("cat") == "cpu_op" and str(event.get("name", "")).startswith(_BACKWARD):
                for layer in forward.get((event.get("args") or {}).get("Sequence number", -1), ()):
                    found[_thread(event)].append(Interval(*self._span(event), layer, "layer"))
        return found

    def _layers_of_forward(self, intervals: Mapping[_Thread, Sequence[Interval]]) -> dict[int, tuple[str, ...]]:
        """The layers around an operator of the forward pass, by the number that its backward operator has as well."""
        around = {thread: Enclosing(one for one in found if one.kind == "layer") for thread, found in intervals.items()}
        layers: dict[int, tuple[str, ...]] = {}
        for event in self._events:
            args = event.get("args") or {}
            number = args.get("Sequence number")
            if event.get("cat") == "cpu_op" and number is not None and not args.get("Fwd thread id"):
                found = names(around[_thread(event)].at(self._span(event)[0]), "layer")
                if found:
                    layers[number] = found  # the last with a number is the one that runs backward
        return layers

    def _gpu_work(self) -> Iterator[Work]:
        launches = {
            event["args"]["correlation"]: event
            for event in self._events
            if event.get("cat") in _LAUNCHES and "correlation" in (event.get("args") or {})
        }
        on_gpu: defaultdict[tuple[str, str], list[Interval]] = defaultdict(list)
        for event in self._events:
            if event.get("cat") == "gpu_user_annotation":
                interval = Interval(*self._span(event), str(event.get("name", "")), "range")
                on_gpu[_device(event), _stream(event)].append(interval)
        around = {key: Enclosing(found) for key, found in on_gpu.items()}
        threads = {key: Enclosing(found) for key, found in self._intervals().items()}
        alone = 0
        for event in self._events:
            if event.get("cat") not in _ON_GPU:
                continue
            start, end = self._span(event)
            device, stream = _device(event), _stream(event)
            launch = launches.get((event.get("args") or {}).get("correlation"))
            by = () if launch is None else self._around_launch(threads, launch)
            ranges = names(by, "range")
            if not ranges and (device, stream) in around:
                ranges = names(around[device, stream].at(start), "range")
            alone += launch is None
            yield Work(
                device, stream, str(event.get("name", "")), start, end, _without_steps(ranges), names(by, "layer")
            )
        if alone:
            self._notes.append(f"{alone} kernels have no launch in the file, and so no range of the CPU.")

    def _around_launch(self, threads: Mapping[_Thread, Enclosing], launch: Event) -> tuple[Interval, ...]:
        thread = threads.get(_thread(launch))
        return () if thread is None else thread.at(self._span(launch)[0])

    def _cpu_work(self) -> Iterator[Work]:
        for (_, thread), intervals in self._intervals().items():
            for piece in pieces(intervals):
                operators = names(piece.open, "operator")
                if operators:
                    ranges, layers = _without_steps(names(piece.open, "range")), names(piece.open, "layer")
                    yield Work(_CPU, str(thread), operators[-1], piece.start, piece.end, ranges, layers)

    def _devices(self, keys: set[str]) -> Iterator[Device]:
        known = {str(found.get("id")): found for found in self._document.get("deviceProperties") or ()}
        for key in sorted(keys):
            if key == _CPU:
                yield Device(_CPU, "CPU", pid=self._pid())
                continue
            found = known.get(key, {})
            yield Device(key, str(found.get("name", "")), str(found.get("uuid", "")), key)

    def _pid(self) -> int | None:
        pids = {event.get("pid") for event in self._events if event.get("cat") == "cpu_op"}
        (pid,) = pids if len(pids) == 1 else (None,)
        return pid if isinstance(pid, int) else None


def _thread(event: Event) -> _Thread:
    return event.get("pid"), event.get("tid")


def _device(event: Event) -> str:
    return str((event.get("args") or {}).get("device", event.get("pid", "")))


def _stream(event: Event) -> str:
    return str((event.get("args") or {}).get("stream", event.get("tid", "")))


def _without_steps(ranges: tuple[str, ...]) -> tuple[str, ...]:
    """The profiler numbers its steps: all of them are one range."""
    return tuple([_PROFILER.rstrip("#") if name.startswith(_PROFILER) else name for name in ranges])
