"""Groups that come and go between two reads, beside others that end: real cgroups, and what inotify says of them."""

from __future__ import annotations

import ctypes
from collections import Counter

import pytest

from exporter.host import Host
from exporter.sources.usage.cgroups import CgroupSource
from tests.support.cgroups import TICK_SECONDS, Forest, Ticker


class Unseen:
    """A pod with a container that ends, and the CPU time of groups that come and go unseen beside it."""

    def __init__(self, forest: Forest, ticker: Ticker, pod: str = "pod/") -> None:
        self.forest, self.ticker, self.pod = forest, ticker, pod
        forest.make(f"{pod}app")
        self.worker = forest.worker(f"{pod}app")
        self.app = forest.key(f"{pod}app")
        ticker.read()
        self.worker.spin(0.03)
        ticker.read()

    def end(self) -> None:
        """The container uses some more and ends."""
        self.worker.spin(0.03)
        self.worker.stop()
        self.forest.remove(f"{self.pod}app")

    def come_and_go(self, name: str) -> None:
        """A group that uses 50 ms."""
        self.forest.make(name)
        worker = self.forest.worker(name)
        worker.spin(0.05)
        worker.stop()
        self.forest.remove(name)


def test_a_container_that_ends_is_not_charged_for_one_that_came_and_went(forest: Forest, ticker: Ticker) -> None:
    """How much of what the pod counted each of them used is known of neither: it stays with the pod."""
    unseen = Unseen(forest, ticker)
    before = ticker.groups[unseen.app]
    unseen.come_and_go("pod/brief")
    unseen.end()
    ticker.read()
    assert ticker.groups[unseen.app] == pytest.approx(before)
    assert ticker.groups[forest.key("pod")] >= 0.08
    assert ticker.ended == [unseen.app]


def test_nor_if_it_came_after_it_with_the_same_name(forest: Forest, ticker: Ticker) -> None:
    unseen = Unseen(forest, ticker)
    before = ticker.groups[unseen.app]
    unseen.end()
    unseen.come_and_go("pod/app")
    ticker.read()
    assert ticker.groups[unseen.app] == pytest.approx(before)
    assert ticker.groups[forest.key("pod")] >= 0.08


def test_a_pod_that_ends_with_its_containers_keeps_what_one_used_that_nobody_saw(
    forest: Forest, ticker: Ticker
) -> None:
    unseen = Unseen(forest, ticker)
    before, pod = ticker.groups[unseen.app], forest.key("pod")
    unseen.come_and_go("pod/brief")
    unseen.end()
    forest.remove("pod")
    ticker.read()
    assert ticker.groups[unseen.app] == pytest.approx(before)
    assert ticker.groups[pod] >= 0.08


def test_at_the_top_it_is_unattributed(forest: Forest, ticker: Ticker) -> None:
    """The root has no workload of its own."""
    unseen = Unseen(forest, ticker, "")
    before = ticker.groups[unseen.app]
    unseen.come_and_go("brief")
    unseen.end()
    use = ticker.read()
    assert ticker.groups[unseen.app] == pytest.approx(before)
    assert use.exited_seconds >= 0.08
    assert use.busy_seconds == pytest.approx(
        use.exited_seconds + use.kernel_seconds + sum(g.seconds for g in use.groups)
    )


def test_one_that_came_and_went_in_an_earlier_tick_takes_nothing(forest: Forest, ticker: Ticker) -> None:
    unseen = Unseen(forest, ticker)
    unseen.come_and_go("pod/brief")
    ticker.read()
    pod = ticker.groups[forest.key("pod")]
    assert pod >= 0.05
    used = forest.used("pod/app")
    unseen.end()
    ticker.read()
    assert ticker.groups[unseen.app] >= used + 0.03 - TICK_SECONDS
    assert ticker.groups[forest.key("pod")] - pod < TICK_SECONDS


def test_groups_that_were_seen_are_never_taken_for_unseen_ones(forest: Forest, ticker: Ticker) -> None:
    """A new group in each tick, while others end: all they used is theirs, to the last."""
    forest.make("pod/stays")
    ticker.read()
    used, keys = Counter[object](), []
    for number in range(6):
        name = f"pod/g{number % 2}"
        forest.make(name)
        worker = forest.worker(name)
        key = forest.key(name)
        worker.spin(0.01)
        ticker.read()
        worker.spin(0.02)
        used[key] = forest.used(name)  # type: ignore[assignment]
        keys.append(key)
        worker.stop()
        forest.remove(name)
    ticker.read()
    for key in keys:
        assert ticker.groups[key] == pytest.approx(used[key], abs=TICK_SECONDS)
    assert ticker.groups[forest.key("pod")] < TICK_SECONDS


def test_without_inotify_the_rest_goes_to_those_that_ended(forest: Forest, monkeypatch: pytest.MonkeyPatch) -> None:
    """fs.inotify.max_user_instances is reached, or the C library has no such call."""
    monkeypatch.setattr(ctypes, "CDLL", lambda name: object())
    ticker = Ticker(Host(cgroupfs=forest.root))
    unseen = Unseen(forest, ticker)
    unseen.come_and_go("pod/brief")
    unseen.end()
    ticker.read()
    assert ticker.groups[unseen.app] >= 0.11
    assert isinstance(ticker.source, CgroupSource)
    ticker.source.close()
