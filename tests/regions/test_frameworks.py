"""Helpers for frameworks, against events that behave as CUDA's do."""

from __future__ import annotations

from time import monotonic_ns
from types import SimpleNamespace
from typing import Any

from exporter.regions import Client
from exporter.regions.frameworks import CudaRegions
from tests.support.patience import wait_for
from tests.support.region_server import RegionServer

_MS = 1_000_000


class Stream:
    """Work starts when it is launched or when earlier work has ended; ``now`` is how far the device is."""

    def __init__(self) -> None:
        self.busy_until = self.now = 0

    def launch(self, length: int) -> None:
        self.busy_until = max(self.busy_until, monotonic_ns()) + length


class Event:
    """As torch.cuda.Event with timing: times between events are known, not when they were."""

    def __init__(self, stream: Stream) -> None:
        self._stream = stream
        self._at = 0

    def record(self) -> None:
        self._at = max(self._stream.busy_until, monotonic_ns())

    def query(self) -> bool:
        return self._at <= self._stream.now

    def elapsed_time(self, later: Event) -> float:
        return (later._at - self._at) / _MS


def torch_with(stream: Stream) -> Any:
    return SimpleNamespace(cuda=SimpleNamespace(Event=lambda enable_timing: Event(stream)))


def test_device_time_of_kernels_that_run_after_their_launch(client: Client, server: RegionServer) -> None:
    stream = Stream()
    regions = CudaRegions(torch_with(stream), client)
    began = monotonic_ns()
    with regions.region("long"):
        stream.launch(30 * _MS)
    with regions.region("short"):
        stream.launch(5 * _MS)
    client.flush()
    assert server.totals().device == []  # the events have not passed, and nothing waited for them
    stream.now = stream.busy_until

    def device() -> list[tuple[str, int, int]]:
        client.flush()
        return server.totals().device

    wait_for(device)
    (first, start, long), (second, later, short) = server.totals().device
    assert (first, second) == ("long", "short")
    assert long >= 30 * _MS
    assert short >= 5 * _MS
    assert began <= start
    assert later >= start + long - 1000  # when the first kernel had ended, not when it was launched
