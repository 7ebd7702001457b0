"""Metadata by id: replaced atomically, kept for a while after its owner was removed, limited in number."""

from __future__ import annotations

from exporter.workloads.metadata.cache import MetadataCache
from exporter.workloads.metadata.container_metadata import ContainerMetadata


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def metadata(name: str) -> ContainerMetadata:
    return ContainerMetadata(container=name)


def test_an_entry_is_found_and_reported_as_changed_once() -> None:
    cache = MetadataCache(Clock())
    cache.put("pod", {"a": metadata("x"), "b": metadata("y")})
    assert cache.find("a") == metadata("x")
    assert cache.find("c") is None
    assert cache.changed() == {"a", "b"}
    assert cache.changed() == set()


def test_only_different_entries_have_changed() -> None:
    cache = MetadataCache(Clock())
    cache.put("pod", {"a": metadata("x"), "b": metadata("y")})
    cache.changed()
    cache.put("pod", {"a": metadata("x"), "b": metadata("z"), "c": metadata("w")})
    assert cache.changed() == {"b", "c"}


def test_a_removed_owner_lingers_for_two_minutes() -> None:
    """Fault 42: it expires; until then its cgroup may still be attributed energy."""
    clock = Clock()
    cache = MetadataCache(clock)
    cache.put("pod", {"a": metadata("x")})
    cache.remove("pod")
    clock.now = 119.0
    cache.expire()
    assert cache.find("a") == metadata("x")
    clock.now = 121.0
    cache.expire()
    assert cache.find("a") is None
    assert len(cache) == 0


def test_an_id_that_its_owner_no_longer_has_lingers_too() -> None:
    """Fault 40: a container restarts under the same pod."""
    clock = Clock()
    cache = MetadataCache(clock)
    cache.put("pod", {"old": metadata("x"), "uid": metadata("")})
    clock.now = 10.0
    cache.put("pod", {"new": metadata("x"), "uid": metadata("")})
    assert cache.find("old") == metadata("x")
    clock.now = 131.0
    cache.expire()
    assert cache.find("old") is None
    assert cache.find("new") == metadata("x")


def test_an_owner_that_returns_stays() -> None:
    clock = Clock()
    cache = MetadataCache(clock)
    cache.put("pod", {"a": metadata("x")})
    cache.remove("pod")
    clock.now = 100.0
    cache.put("pod", {"a": metadata("x")})
    clock.now = 1000.0
    cache.expire()
    assert cache.find("a") == metadata("x")


def test_retain_removes_all_others() -> None:
    clock = Clock()
    cache = MetadataCache(clock)
    for owner in "pqr":
        cache.put(owner, {owner: metadata(owner)})
    cache.retain({"q"})
    clock.now = 121.0
    cache.expire()
    assert [cache.find(owner) is not None for owner in "pqr"] == [False, True, False]
    assert "q" in cache
    assert "p" not in cache


def test_churn_is_bounded_by_time() -> None:
    """Fault 43: 1,000 containers a minute for an hour, of which those of the last two minutes are held."""
    clock = Clock()
    cache = MetadataCache(clock)
    for number in range(60_000):
        clock.now += 0.06
        cache.put(f"pod-{number}", {f"id-{number}": metadata("job"), f"uid-{number}": metadata("")})
        cache.remove(f"pod-{number}")
        cache.expire()
        if number % 17 == 0:
            cache.changed()
    assert len(cache) <= 2 * 2001
    assert cache.find("id-59999") is not None


def test_churn_is_bounded_by_number() -> None:
    """Fault 43: whatever the rate, entries removed first are evicted first, and current ones never."""
    cache = MetadataCache(Clock(), max_ids=100)
    cache.put("stays", {"here": metadata("x")})
    for number in range(1000):
        cache.put(f"pod-{number}", {f"id-{number}": metadata("job")})
        cache.remove(f"pod-{number}")
    assert len(cache) <= 101
    assert cache.find("here") is not None
    assert cache.find("id-999") is not None
    assert cache.find("id-0") is None


def test_unread_changes_are_bounded() -> None:
    cache = MetadataCache(Clock(), max_ids=10)
    for number in range(1000):
        cache.put("pod", {f"id-{number}": metadata("x")})
    assert len(cache.changed()) == 40
