"""What a report consists of, read from a source whose counters are written here."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence

import pytest

from exporter.analysis.growth import PLACE, Coverage, Growth, Labels
from exporter.analysis.league import BETWEEN, collect, level
from exporter.analysis.lines import Period
from exporter.analysis.window import Window

WINDOW = Window(0.0, 3600.0)
WHERE = {"cluster": "", "instance": "n", "namespace": "chat", "pod": "p", "container": "c"}
GROWN: dict[str, list[tuple[dict[str, str], float]]] = {
    "energy_node_joules_total": [({"component": "gpu"}, 100.0)],
    "energy_unattributed_joules_total": [({"component": "gpu", "reason": "idle"}, 5.0)],
    "energy_container_joules_total": [(WHERE | {"component": "gpu", "mode": "active"}, 90.0)],
    "energy_container_gpu_unused_joules_total": [(WHERE, 7.0)],
    "energy_container_tokens_total": [(WHERE | {"kind": "output"}, 1000.0)],
}
"""Counters of a node of which 5 J are in none of a workload."""


class Counters:
    """A `Source` of them."""

    name = "written counters"

    def __init__(self) -> None:
        self.advance: Callable[[], None] = lambda: None

    def aligned(self, window: Window) -> Window:
        return window

    def of(self, metric: str, by: Sequence[str], window: Window, where: str = "") -> Growth:
        grown: defaultdict[Labels, float] = defaultdict(float)
        for labels, amount in GROWN.get(metric, []):
            grown[tuple(labels.get(name, "") for name in by)] += amount
        return grown

    def parts(self, window: Window) -> list[Window]:
        return [window]

    def coverage(self, window: Window) -> Coverage:
        return Coverage(window.start, window.seconds)

    def described(self, by: Sequence[str], window: Window) -> Mapping[Labels, Labels]:
        return {tuple(WHERE[name] for name in PLACE): tuple("" for _ in by)}

    def remarks(self, window: Window) -> Sequence[str]:
        return []

    def presence(self, window: Window) -> Mapping[Labels, Period]:
        return {}


@pytest.mark.parametrize("by", ["namespace", "workload", "model"])
def test_what_no_counter_of_a_workload_has_is_energy_only(by: str) -> None:
    """Tokens and joules of unused GPUs are counted of workloads, not of nodes, so none of them are missing."""
    shared = dict(collect(Counters(), level(by), WINDOW).shared)
    assert shared[BETWEEN].total_joules == pytest.approx(5.0)
    assert shared[BETWEEN].tokens is None
    assert shared[BETWEEN].unused is None
