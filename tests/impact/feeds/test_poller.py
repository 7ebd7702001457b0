"""The thread that asks one server: it is polite, it goes on, and its last answer stays."""

from __future__ import annotations

import threading

import pytest

from exporter.impact.feeds.poller import LONGEST_WAIT_SECONDS, Poller
from exporter.network.http_client import HttpStatusError
from exporter.records import Unavailable
from tests.support.patience import patience, wait_for


class Answers:
    """A feed that gives one answer after the other, the last one again and again; an exception is raised."""

    name = "test-feed"
    poll_seconds = 0.01

    def __init__(self, *answers: object) -> None:
        self.left = list(answers)
        self.asked = 0
        self.interrupted = threading.Event()

    def read(self, now: float) -> object:
        self.asked += 1
        answer = self.left.pop(0) if len(self.left) > 1 else self.left[0]
        if isinstance(answer, Exception):
            raise answer
        return answer

    def interrupt(self) -> None:
        self.interrupted.set()


class Waits:
    """An event whose waits are written down, and end at once until there are ``most`` of them."""

    def __init__(self, most: int) -> None:
        self.seconds: list[float] = []
        self._most = most
        self._over = threading.Event()

    def wait(self, seconds: float) -> bool:
        self.seconds.append(seconds)
        if len(self.seconds) >= self._most:
            self._over.wait(patience(60))
        return False

    def set(self) -> None:
        self._over.set()

    def clear(self) -> None:
        """Never set by a test before its end."""


def waited(*answers: object, poll_seconds: float = 300.0) -> list[float]:
    """How long a poller waits after each of some answers."""
    feed = Answers(*answers, answers[-1])
    feed.poll_seconds = poll_seconds
    poller = Poller(feed)
    waits = Waits(len(answers))
    poller._retry = waits  # type: ignore[assignment]
    poller.start()
    try:
        wait_for(lambda: len(waits.seconds) == len(answers))
        return waits.seconds
    finally:
        poller.close()


def away(reason: str = "timeout") -> Unavailable:
    return Unavailable(reason, "http://feed: no response", "look")  # type: ignore[arg-type]


def test_the_last_answer_stays_while_the_server_is_away() -> None:
    feed = Answers("one", "two", away())
    poller = Poller(feed)
    poller.start()
    wait_for(lambda: poller.health().reason)
    assert (poller.latest, poller.revision) == ("two", 2)
    health = poller.health()
    assert (health.name, health.up, health.reason, health.fix) == ("test-feed", False, "timeout", "look")
    assert health.failures["timeout"] == 1
    poller.close()
    assert feed.interrupted.is_set()


def test_nothing_is_asked_before_the_start() -> None:
    feed = Answers("one")
    poller = Poller(feed)
    assert (poller.latest, poller.health().up) == (None, False)
    poller.close()
    poller.start()
    assert feed.asked == 0


def test_failures_are_retried_ever_later_and_never_more_often_than_the_service_wants() -> None:
    seconds = waited(*(away() for _ in range(9)), "back", away())
    pairs = zip(seconds, [30, 60, 120, 240, 480, 960, 1920, 3600, 3600, 300, 30], strict=True)
    assert all(least <= got <= 1.2 * least for got, least in pairs)


@pytest.mark.parametrize(("asked", "least"), [(5.0, 30.0), (600.0, 600.0), (1e6, LONGEST_WAIT_SECONDS)])
def test_retry_after_is_followed(asked: float, least: float) -> None:
    (seconds,) = waited(HttpStatusError(429, "http://feed: status 429", "ask less", asked))
    assert least <= seconds <= 1.2 * least


def test_an_error_of_its_own_does_not_end_the_thread() -> None:
    poller = Poller(Answers(ZeroDivisionError("x"), "one"), retry_seconds=(0.01, 0.01))
    poller.start()
    wait_for(lambda: poller.latest == "one")
    assert poller.health().up
    poller.close()


def test_a_retry_comes_at_once_if_it_is_down() -> None:
    feed = Answers(away(), "one")
    poller = Poller(feed)
    poller.retry()
    poller.start()
    wait_for(lambda: poller.health().reason)
    poller.retry()
    wait_for(lambda: poller.latest == "one")
    poller.close()
