"""Facts by id: seen whole, kept for a while after their owner is gone, and never too many."""

from __future__ import annotations

from exporter.workloads.metadata.cache import FactBook
from exporter.workloads.metadata.container_metadata import Facts


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def facts(name: str) -> Facts:
    return Facts(container=name)


def test_what_is_put_is_found_and_told_once() -> None:
    book = FactBook(Clock())
    book.put("pod", {"a": facts("x"), "b": facts("y")})
    assert book.find("a") == facts("x")
    assert book.find("c") is None
    assert book.changed() == {"a", "b"}
    assert book.changed() == set()


def test_only_what_differs_has_changed() -> None:
    book = FactBook(Clock())
    book.put("pod", {"a": facts("x"), "b": facts("y")})
    book.changed()
    book.put("pod", {"a": facts("x"), "b": facts("z"), "c": facts("w")})
    assert book.changed() == {"b", "c"}


def test_what_is_gone_lingers_for_two_minutes() -> None:
    """Fault 42: it expires; until then its cgroup may still be booked."""
    clock = Clock()
    book = FactBook(clock)
    book.put("pod", {"a": facts("x")})
    book.drop("pod")
    clock.now = 119.0
    book.expire()
    assert book.find("a") == facts("x")
    clock.now = 121.0
    book.expire()
    assert book.find("a") is None
    assert len(book) == 0


def test_an_id_that_its_owner_no_longer_goes_by_lingers_too() -> None:
    """Fault 40: a container restarts under the same pod."""
    clock = Clock()
    book = FactBook(clock)
    book.put("pod", {"old": facts("x"), "uid": facts("")})
    clock.now = 10.0
    book.put("pod", {"new": facts("x"), "uid": facts("")})
    assert book.find("old") == facts("x")
    clock.now = 131.0
    book.expire()
    assert book.find("old") is None
    assert book.find("new") == facts("x")


def test_one_that_comes_back_stays() -> None:
    clock = Clock()
    book = FactBook(clock)
    book.put("pod", {"a": facts("x")})
    book.drop("pod")
    clock.now = 100.0
    book.put("pod", {"a": facts("x")})
    clock.now = 1000.0
    book.expire()
    assert book.find("a") == facts("x")


def test_keep_drops_all_others() -> None:
    clock = Clock()
    book = FactBook(clock)
    for owner in "pqr":
        book.put(owner, {owner: facts(owner)})
    book.keep({"q"})
    clock.now = 121.0
    book.expire()
    assert [book.find(owner) is not None for owner in "pqr"] == [False, True, False]
    assert "q" in book
    assert "p" not in book


def test_churn_is_bounded_by_time() -> None:
    """Fault 43: 1,000 containers a minute for an hour, of which those of the last two are known."""
    clock = Clock()
    book = FactBook(clock)
    for number in range(60_000):
        clock.now += 0.06
        book.put(f"pod-{number}", {f"id-{number}": facts("job"), f"uid-{number}": facts("")})
        book.drop(f"pod-{number}")
        book.expire()
        if number % 17 == 0:
            book.changed()
    assert len(book) <= 2 * 2001
    assert book.find("id-59999") is not None


def test_churn_is_bounded_by_number() -> None:
    """Fault 43: whatever the rate, the longest gone are forgotten first, and what is there never."""
    book = FactBook(Clock(), most=100)
    book.put("stays", {"here": facts("x")})
    for number in range(1000):
        book.put(f"pod-{number}", {f"id-{number}": facts("job")})
        book.drop(f"pod-{number}")
    assert len(book) <= 101
    assert book.find("here") is not None
    assert book.find("id-999") is not None
    assert book.find("id-0") is None


def test_changes_nobody_asks_for_do_not_add_up() -> None:
    book = FactBook(Clock(), most=10)
    for number in range(1000):
        book.put("pod", {f"id-{number}": facts("x")})
    assert len(book.changed()) == 40
