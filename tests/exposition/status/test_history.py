"""History: bounded, evenly spaced, and consistent for concurrent readers."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise

from exporter.exposition.status.history import TOP, History
from exporter.records import Workload
from exporter.snapshot import AccountRow, NodeEnergy, NodeRow, Snapshot


def test_it_keeps_the_window_and_no_more() -> None:
    history = History(points=60, window_seconds=600.0)
    for second in range(4000):
        history.observe(
            Snapshot(second, 0.0, float(second), 1.0, energy=NodeEnergy(nodes=(NodeRow("cpu", 0.0, float(second)),)))
        )
    points = history.points()
    assert len(points) == 60
    assert points[-1].at - points[0].at >= 500
    assert {round(b.at - a.at) for a, b in pairwise(points)} == {9}
    assert points[-1].nodes == {"cpu": points[-1].at}


def test_it_keeps_the_top_accounts_and_no_unknown_watts(row: Callable[..., AccountRow]) -> None:
    history = History()
    rows = tuple(row(i, Workload(container=f"c{i}"), {}, {"cpu": float(i), "gpu": 1.0}) for i in range(40))
    snapshot = Snapshot(
        1,
        0.0,
        1.0,
        1.0,
        energy=NodeEnergy(nodes=(NodeRow("cpu", 1.0, None), NodeRow("gpu", 1.0, 5.0)), containers=rows),
    )
    history.observe(snapshot)
    (point,) = history.points()
    assert point.nodes == {"gpu": 5.0}
    assert point.containers == {i: i + 1.0 for i in range(40 - TOP, 40)}


def test_a_snapshot_without_power_adds_no_point() -> None:
    """The first sample only sets baselines: a point of 0 W would be wrong."""
    history = History()
    history.observe(Snapshot(1, 0.0, 0.0, 1.0, energy=NodeEnergy(nodes=(NodeRow("cpu", 0.0, None),))))
    assert history.points() == []


def test_a_concurrent_reader_sees_ordered_points() -> None:
    history = History(points=300, window_seconds=0.001)
    done = threading.Event()

    def write() -> None:
        snapshot = Snapshot(1, 0.0, 0.0, 1.0, energy=NodeEnergy(nodes=(NodeRow("cpu", 1.0, 5.0),)))
        for second in range(20_000):
            history.observe(replace(snapshot, monotonic_at=float(second)))
        done.set()

    writer = threading.Thread(target=write)
    writer.start()
    while not done.is_set():
        ats = [point.at for point in history.points()]
        assert ats == sorted(ats)
    writer.join()
