"""History: bounded, evenly spaced, and consistent for concurrent readers."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise

from exporter.exposition.status.history import TOP, History, Holder, Use
from exporter.records import Model, Workload
from exporter.snapshot import AccountRow, CardRow, NodeEnergy, NodeRow, Snapshot


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
    assert {serial: use.watts for serial, use in point.accounts.items()} == {
        i: i + 1.0 for i in range(40 - 2 * TOP, 40)
    }


CELLS = (("gpu", "active"), ("gpu", "idle"))


def observed(
    row: Callable[..., AccountRow], *joules: tuple[float, ...], cells: tuple[object, ...] = CELLS
) -> list[Use]:
    """What is known of one account that has these joules, every ten seconds."""
    history, owner = History(), Model("m")
    for tick, amounts in enumerate(joules):
        account = row(7, owner, dict(zip(cells[: len(amounts)], amounts, strict=True)), {"gpu": 100.0})
        energy = NodeEnergy(nodes=(NodeRow("gpu", 1.0, 100.0),), models=(account,))
        history.observe(Snapshot(tick, 0.0, 10.0 * tick, 1.0, energy=energy))
    return [point.accounts[7] for point in history.points()]


def test_watts_are_idle_as_joules_grew(row: Callable[..., AccountRow]) -> None:
    uses = observed(row, (500.0, 100.0), (800.0, 800.0), (800.0, 1800.0))
    assert uses == [Use(100.0, None), Use(100.0, 70.0), Use(100.0, 100.0)]


def test_a_new_counter_says_nothing_yet(row: Callable[..., AccountRow]) -> None:
    """It may have been published at 0 until it was scraped, and then show a longer time at once."""
    uses = observed(row, (500.0,), (600.0, 0.0), (700.0, 5000.0), (800.0, 5100.0))
    assert [use.idle_watts for use in uses] == [None, None, None, 50.0]


def test_who_holds_a_card_and_how() -> None:
    history, pod, other = History(), Workload("team", "pod", "c", "kubernetes"), Workload(container="gone")

    def observe(at: float, *cards: CardRow) -> None:
        energy = NodeEnergy(nodes=(NodeRow("gpu", 1.0, 5.0),), container_cards=cards)
        history.observe(Snapshot(1, 0.0, at, 1.0, energy=energy))

    def cards(active: float, idle: float) -> tuple[CardRow, ...]:
        kept = CardRow(other, "GPU-1", "active", 9.0)
        return (CardRow(pod, "GPU-0", "active", active), CardRow(pod, "GPU-0", "idle", idle), kept)

    observe(0.0, *cards(100.0, 50.0))
    observe(10.0, *cards(100.0, 750.0))
    assert history.holders() == {"GPU-0": (Holder(pod, 0.0, 70.0),)}
    observe(20.0, *cards(400.0, 1450.0))
    assert history.holders() == {"GPU-0": (Holder(pod, 30.0, 70.0),)}
    observe(30.0, *cards(400.0, 1450.0), CardRow(pod, "GPU-1", "idle", 4000.0))
    assert history.holders() == {"GPU-1": (Holder(pod, 0.0, None),)}, "a new counter may be of a longer time"


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
