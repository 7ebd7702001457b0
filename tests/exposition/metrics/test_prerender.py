"""Bodies prepared ahead: busy scrapers never wait for a render, rare ones always get the newest."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest

from exporter.exposition.metrics.prerender import Prepared
from exporter.snapshot import Snapshot
from tests.support.patience import patience, wait_for


class Renders:
    """Renders a snapshot to its number, as slowly as the test likes."""

    def __init__(self) -> None:
        self.go = threading.Event()
        self.go.set()
        self.done: list[int] = []

    def __call__(self, snapshot: Snapshot, *, openmetrics: bool, gzipped: bool) -> bytes:
        assert self.go.wait(patience())
        self.done.append(snapshot.sequence)
        return b"%d %d %d" % (snapshot.sequence, openmetrics, gzipped)


def snapshot(sequence: int) -> Snapshot:
    return Snapshot(sequence, 0.0, 0.0, 1.0)


@pytest.fixture
def renders() -> Renders:
    return Renders()


@pytest.fixture
def prepared(renders: Renders) -> Iterator[Prepared]:
    prepared = Prepared(renders)
    yield prepared
    renders.go.set()
    prepared.stop()


def ask(prepared: Prepared, of: Snapshot, times: int = 1, *, gzipped: bool = False) -> bytes:
    return [prepared(of, openmetrics=False, gzipped=gzipped) for _ in range(times)][-1]


def test_rare_scraper_gets_the_newest(prepared: Prepared, renders: Renders) -> None:
    for sequence in range(5):
        newest = snapshot(sequence)
        prepared.observe(newest)
        assert ask(prepared, newest) == b"%d 0 0" % sequence
    assert renders.done == [0, 1, 2, 3, 4]


def test_each_form_of_a_snapshot_is_rendered_once(prepared: Prepared, renders: Renders) -> None:
    first = snapshot(1)
    assert ask(prepared, first, 9) == b"1 0 0"
    assert ask(prepared, first, 9, gzipped=True) == b"1 0 1"
    assert renders.done == [1, 1]


def test_busy_scrapers_get_the_last_body_while_the_next_is_rendered(prepared: Prepared, renders: Renders) -> None:
    first, second = snapshot(1), snapshot(2)
    ask(prepared, first, 3)
    renders.go.clear()
    prepared.observe(second)
    assert ask(prepared, second) == b"1 0 0"
    renders.go.set()
    wait_for(lambda: ask(prepared, second) == b"2 0 0")
    assert renders.done == [1, 2]


def test_never_older_than_the_snapshot_before(prepared: Prepared, renders: Renders) -> None:
    ask(prepared, snapshot(1), 3)
    renders.go.clear()
    prepared.observe(snapshot(2))
    third = snapshot(3)
    prepared.observe(third)
    threading.Timer(0.05, renders.go.set).start()
    assert ask(prepared, third) == b"3 0 0"
