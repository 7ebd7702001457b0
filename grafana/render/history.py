"""Days of the simulated node as Prometheus would have stored them: scrapes with timestamps, in OpenMetrics text."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from exporter.config.settings import Settings
from exporter.exposition.metrics.collector import exporter_registry
from exporter.exposition.metrics.render import Renderer
from exporter.host import Host
from exporter.impact.build import build
from exporter.sampling.sampler import Sampler, SamplerOptions
from exporter.sources.demo.servers import Servers
from exporter.sources.demo.source import DemoSource

NODE = "gpu-node-1"
END = 1_767_963_600.0
"""Friday 2026-01-09 13:00 UTC: a fixed time, so that pictures only change when dashboards or the demo do."""

_BLOCK_SECONDS = 7200.0
"""Prometheus' smallest block: one file each keeps promtool's memory small."""


class Stretch(NamedTuple):
    """A time without a restart of the exporter; ``kept`` are the metrics that are stored, as a regular expression."""

    hours: float
    sample_seconds: float
    scrape_seconds: float
    kept: str = ".*"


_OF_A_WEEK = (
    r"energy_(node|container|model|unattributed)_(joules|carbon_grams|cost)_total|energy_container_info"
    r"|energy_model_activity_joules_total|energy_container_gpu_unused_joules_total"
    r"|energy_(model|container)_(tokens|requests)_total|energy_samples_total|energy_exporter_build_info|up"
    r"|(vllm|sglang|tgi).*"
)
WEEK = Stretch(168, 17, 60, _OF_A_WEEK)
"""Before the day: what days are compared by. Its samples are in no step with the periods of the demo's loads."""
DAY = (WEEK, Stretch(20, 5, 60), Stretch(4, 5, 30))
MINUTES = (Stretch(5 / 60, 1, 15),)


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


def _labelled(text: str, labels: str, timestamp: float, kept: re.Pattern[str]) -> Iterator[str]:
    """Lines of a scrape with the labels of its target and the time of its samples."""
    for line in text.splitlines():
        if line and line[0] != "#":
            series, _, value = line.rpartition(" ")
            name, brace, rest = series.partition("{")
            if kept.fullmatch(name):
                yield f"{name}{{{labels}{',' + rest if brace else '}'} {value} {timestamp:.0f}\n"


def _scrapes(stretch: Stretch, began: float) -> Iterator[tuple[float, str]]:
    """Time and lines of each scrape."""
    clock = _Clock()
    demo = DemoSource(stretch.sample_seconds)
    host = Host(clock=clock, wall=lambda: began + clock())
    options, factors = SamplerOptions(interval_seconds=stretch.sample_seconds), build(Settings(demo=True))
    sampler = Sampler([demo], demo, host, options, demo=True, factors=factors)
    servers, renderer = Servers(clock), Renderer(exporter_registry())
    own, kept = f'instance="{NODE}",job="energy"', re.compile(stretch.kept)
    due = 0.0
    while clock.simulated <= stretch.hours * 3600:
        snapshot = sampler.tick()
        if clock.simulated >= due:
            now = began + clock.simulated
            due += stretch.scrape_seconds
            lines = list(_labelled(renderer.body(snapshot).decode(), own, now, kept))
            lines += _labelled(f"up 1\nscrape_samples_scraped {len(lines)}", own, now, kept)
            lines += _labelled(servers.metrics(), f'instance="{NODE}:9500",job="model-servers"', now, kept)
            yield now, "".join(lines)
        clock.step(stretch.sample_seconds)
    sampler.close()


def write(folder: Path, stretches: Sequence[Stretch]) -> list[Path]:
    """Write stretches, the last of which ends at `END`, into files of two hours each."""
    files: dict[int, Path] = {}
    began = END - sum(stretch.hours for stretch in stretches) * 3600
    last = 0.0
    for stretch in stretches:
        for now, lines in _scrapes(stretch, began):
            if now <= last:
                continue  # the last scrape before a restart
            last = now
            block = int(now // _BLOCK_SECONDS)
            path = files.setdefault(block, folder / f"{block}.om")
            with path.open("a", encoding="utf-8") as file:
                file.write(lines)
        began += stretch.hours * 3600
    for path in files.values():
        with path.open("a", encoding="utf-8") as file:
            file.write("# EOF\n")
    return list(files.values())
