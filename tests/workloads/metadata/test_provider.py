"""The thread behind a directory: it tries again, ever more rarely, and says how it is doing."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from exporter.host import Host
from exporter.records import Unavailable, Workload
from exporter.workloads.metadata.cache import FactBook
from exporter.workloads.metadata.container_metadata import Facts
from exporter.workloads.metadata.provider import FeedDirectory, Heard
from tests.support.patience import patience, wait_for


class ScriptedFeed:
    """Does one step of the script each time it is followed, then waits."""

    name = "kubernetes"

    def __init__(self, *script: Callable[[FactBook, Heard], None]) -> None:
        self.script = list(script)
        self.followed: list[float] = []
        self.ended = threading.Event()

    def follow(self, book: FactBook, heard: Heard, stop: threading.Event) -> None:
        self.followed.append(time.monotonic())
        if self.script:
            self.script.pop(0)(book, heard)
        else:
            self.ended.wait(patience(30))

    def interrupt(self) -> None:
        self.ended.set()


def tell(**facts: str) -> Callable[[FactBook, Heard], None]:
    def step(book: FactBook, heard: Heard) -> None:
        book.put("owner", {key: Facts(container=name) for key, name in facts.items()})
        heard(0.25)

    return step


def say_more(_: FactBook, heard: Heard) -> None:
    heard(0.25)
    heard(0.5)


def fail(error: Exception) -> Callable[[FactBook, Heard], None]:
    def step(book: FactBook, heard: Heard) -> None:
        raise error

    return step


@contextmanager
def directory_of(*script: Callable[[FactBook, Heard], None]) -> Iterator[tuple[FeedDirectory, ScriptedFeed]]:
    feed = ScriptedFeed(*script)
    directory = FeedDirectory(feed, Host(wall=lambda: 1234.0), retry_first_seconds=0.01)
    yield directory, feed
    directory.close()


def test_it_starts_with_the_first_question_of_any_kind() -> None:
    pod = Workload(runtime="kubernetes", pod_uid="u")
    questions: list[Callable[[FeedDirectory], object]] = [
        lambda directory: directory.find(pod),
        lambda directory: directory.expects(pod),
        lambda directory: directory.changed(),
        lambda directory: directory.health(),
    ]
    for question in questions:
        with directory_of(tell(u="x")) as (directory, feed):
            time.sleep(0.01)
            assert feed.followed == []
            question(directory)
            wait_for(lambda feed=feed: feed.followed)  # type: ignore[misc]


def test_a_container_comes_before_its_pod() -> None:
    with directory_of(tell(uid="the pod", id="the container")) as (directory, _):
        wait_for(lambda: directory.health().up)
        both = Workload(runtime="kubernetes", container_id="id", pod_uid="uid")
        for workload, name in ((both, "the container"), (both._replace(container_id="sandbox"), "the pod")):
            facts = directory.find(workload)
            assert facts is not None
            assert facts.container == name
        assert not directory.expects(both)
        assert not directory.expects(both._replace(container_id=""))
        assert directory.expects(both._replace(container_id="sandbox"))


def test_health_before_during_and_after_a_failure(caplog: pytest.LogCaptureFixture) -> None:
    """Fault 49: one line when it starts, one when it ends, whatever happens in between."""
    caplog.set_level(logging.INFO)
    down = fail(Unavailable("timeout", "slow", "wait"))
    with directory_of(down, down, down, say_more) as (directory, _):
        assert not directory.health().up
        assert directory.health().last_success == 0.0
        wait_for(lambda: directory.health().reason == "timeout")
        assert (directory.health().message, directory.health().fix) == ("slow", "wait")
        wait_for(lambda: directory.health().up)
        health = directory.health()
        assert (health.reason, health.message, health.fix) == (None, "", "")
        assert (health.failures["timeout"], health.failures["error"]) == (3, 0)
        assert health.last_success == 1234.0
        wait_for(lambda: directory.health().read_seconds == 0.75)
    assert [record.message for record in caplog.records] == ["names are not available", "names are back"]
    assert vars(caplog.records[0])["fix"] == "wait"


def test_what_nobody_thought_of_does_not_end_it(caplog: pytest.LogCaptureFixture) -> None:
    with directory_of(fail(KeyError("x")), tell(a="x")) as (directory, _):
        wait_for(lambda: directory.health().up)
        assert directory.health().failures["error"] == 1
    assert caplog.records[0].exc_info is not None


def test_it_tries_again_ever_more_rarely() -> None:
    with directory_of(*[fail(Unavailable("error", "no"))] * 6) as (directory, feed):
        directory.health()
        wait_for(lambda: len(feed.followed) == 7)
        pauses = [after - before for before, after in zip(feed.followed, feed.followed[1:], strict=False)]
        # 10, 20, 40, 80, 160, 320 ms, each at least half as long; a busy machine only makes them longer
        assert all(pause >= 0.5 * 0.01 * 2**number for number, pause in enumerate(pauses))


def test_a_retry_ends_the_wait_after_a_failure() -> None:
    feed = ScriptedFeed(*[fail(Unavailable("permission", "no"))] * 2, tell(a="x"))
    directory = FeedDirectory(feed, Host(), retry_first_seconds=3600.0)
    for failures in (1, 2):
        wait_for(lambda number=failures: directory.health().failures["permission"] == number)  # type: ignore[misc]
        directory.retry()
    wait_for(lambda: directory.health().up)
    assert len(feed.followed) == 3
    directory.close()


def test_a_retry_during_an_attempt_is_one_more_attempt_and_only_if_it_fails() -> None:
    attempts = [threading.Event() for _ in range(3)]
    outcomes = iter(attempts)

    def fail_when_told(book: FactBook, heard: Heard) -> None:
        next(outcomes).wait(patience(60))
        raise Unavailable("permission", "no")

    def succeed_when_told(book: FactBook, heard: Heard) -> None:
        next(outcomes).wait(patience(60))
        heard(0.25)

    feed = ScriptedFeed(fail_when_told, fail_when_told, succeed_when_told)
    directory = FeedDirectory(feed, Host(), retry_first_seconds=3600.0)
    directory.health()
    directory.retry()  # it is not down yet
    attempts[0].set()
    wait_for(lambda: directory.health().failures["permission"] == 1)
    directory.retry()
    wait_for(lambda: len(feed.followed) == 2)
    directory.retry()
    attempts[1].set()
    wait_for(lambda: len(feed.followed) == 3)
    directory.retry()
    attempts[2].set()
    wait_for(lambda: directory.health().up)
    directory.retry()  # it is up
    time.sleep(0.05)
    assert len(feed.followed) == 3
    directory.close()


def test_what_is_known_stays_known() -> None:
    with directory_of(tell(a="x"), fail(Unavailable("error", "no"))) as (directory, _):
        wait_for(lambda: directory.health().failures["error"])
        facts = directory.find(Workload(runtime="kubernetes", container_id="a"))
        assert facts is not None
        assert facts.container == "x"


def test_closed_before_it_was_asked_it_never_starts() -> None:
    with directory_of(tell(a="x")) as (directory, feed):
        directory.close()
        assert directory.changed() == set()
        time.sleep(0.02)
        assert feed.followed == []


def test_questions_are_cheap() -> None:
    """Asked for each new cgroup from the tick: a dictionary's price, never a wait."""
    with directory_of(tell(a="x")) as (directory, _):
        wait_for(lambda: directory.health().up)
        pod = Workload(runtime="kubernetes", container_id="a")
        began = time.process_time()
        for _ in range(10_000):
            directory.find(pod)
            directory.changed()
        assert time.process_time() - began < 2.0
