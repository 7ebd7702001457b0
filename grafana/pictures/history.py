"""A day of the simulated node as Prometheus would have stored it: scrapes with timestamps, in OpenMetrics text."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

from exporter.exposition.metrics.collector import exporter_registry
from exporter.exposition.metrics.render import Renderer
from exporter.host import Host
from exporter.sampling.sampler import Sampler, SamplerOptions
from exporter.sources.demo.servers import Servers
from exporter.sources.demo.source import DemoSource

NODE = "gpu-node-1"
END = 1_767_963_600.0
"""Friday 2026-01-09 13:00 UTC: a fixed time, so that pictures only change when dashboards or the demo do."""

HOURS, FINE_HOURS = 24, 4
SAMPLE_SECONDS, SCRAPE_SECONDS, FINE_SCRAPE_SECONDS = 5.0, 60.0, 30.0
_BLOCK_SECONDS = 7200.0
"""Prometheus' smallest block: one file each keeps promtool's memory small."""


class _Clock:
    """Simulated time, plus what the work of this moment really took."""

    def __init__(self) -> None:
        self.simulated = 0.0
        self._began = time.perf_counter()

    def step(self, seconds: float) -> None:
        self.simulated += seconds
        self._began = time.perf_counter()

    def __call__(self) -> float:
        return self.simulated + time.perf_counter() - self._began


def _labelled(text: str, labels: str, timestamp: float) -> Iterator[str]:
    """Lines of a scrape with the labels of its target and the time of its samples."""
    for line in text.splitlines():
        if line and line[0] != "#":
            series, _, value = line.rpartition(" ")
            name, brace, rest = series.partition("{")
            yield f"{name}{{{labels}{',' + rest if brace else '}'} {value} {timestamp:.0f}\n"


def _scrapes() -> Iterator[tuple[float, str]]:
    """Time and lines of each scrape, from the beginning of the history to `END`."""
    clock = _Clock()
    began = END - HOURS * 3600
    demo = DemoSource(SAMPLE_SECONDS)
    host = Host(clock=clock, wall=lambda: began + clock())
    sampler = Sampler([demo], demo, host, SamplerOptions(interval_seconds=SAMPLE_SECONDS), demo=True)
    servers, renderer = Servers(clock), Renderer(exporter_registry())
    own = f'instance="{NODE}",job="energy"'
    due = 0.0
    while clock.simulated <= HOURS * 3600:
        snapshot = sampler.tick()
        if clock.simulated >= due:
            now = began + clock.simulated
            due += SCRAPE_SECONDS if clock.simulated < (HOURS - FINE_HOURS) * 3600 else FINE_SCRAPE_SECONDS
            lines = list(_labelled(renderer.body(snapshot).decode(), own, now))
            lines += _labelled(f"up 1\nscrape_samples_scraped {len(lines)}", own, now)
            lines += _labelled(servers.metrics(), f'instance="{NODE}:9500",job="model-servers"', now)
            yield now, "".join(lines)
        clock.step(SAMPLE_SECONDS)
    sampler.close()


def write(folder: Path) -> list[Path]:
    """Write the history into files of two hours each."""
    files: dict[int, Path] = {}
    for now, lines in _scrapes():
        block = int(now // _BLOCK_SECONDS)
        path = files.setdefault(block, folder / f"{block}.om")
        with path.open("a", encoding="utf-8") as file:
            file.write(lines)
    for path in files.values():
        with path.open("a", encoding="utf-8") as file:
            file.write("# EOF\n")
    return list(files.values())
