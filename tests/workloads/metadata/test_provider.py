"""The background thread of a provider: it retries with backoff and reports its health."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from exporter.host import Host
from exporter.records import Unavailable, Workload
from exporter.workloads.metadata.cache import MetadataCache
from exporter.workloads.metadata.container_metadata import ContainerMetadata
from exporter.workloads.metadata.provider import BackgroundProvider, OnProgress
from tests.support.patience import patience, wait_for

Step = Callable[[MetadataCache, OnProgress], None]


class ScriptedFeed:
    """Runs one step of the script each time it is watched, then blocks."""

    name = "kubernetes"

    def __init__(self, *script: Step) -> None:
        self.script = list(script)
        self.watched: list[float] = []
        self.ended = threading.Event()

    def watch(self, cache: MetadataCache, on_progress: OnProgress, stop: threading.Event) -> None:
        self.watched.append(time.monotonic())
        if self.script:
            self.script.pop(0)(cache, on_progress)
        else:
            self.ended.wait(patience(30))

    def interrupt(self) -> None:
        self.ended.set()


def learn(**metadata: str) -> Step:
    def step(cache: MetadataCache, on_progress: OnProgress) -> None:
        cache.put("owner", {key: ContainerMetadata(container=name) for key, name in metadata.items()})
        on_progress(0.25)

    return step


def make_progress(_: MetadataCache, on_progress: OnProgress) -> None:
    on_progress(0.25)
    on_progress(0.5)


def fail(error: Exception) -> Step:
    def step(cache: MetadataCache, on_progress: OnProgress) -> None:
        raise error

    return step


@contextmanager
def provider_of(
    *script: Callable[[MetadataCache, OnProgress], None],
) -> Iterator[tuple[BackgroundProvider, ScriptedFeed]]:
    feed = ScriptedFeed(*script)
    provider = BackgroundProvider(feed, Host(wall=lambda: 1234.0), retry_first_seconds=0.01)
    yield provider, feed
    provider.close()


def test_it_starts_on_the_first_call_of_any_method() -> None:
    pod = Workload(runtime="kubernetes", pod_uid="u")
    calls: list[Callable[[BackgroundProvider], object]] = [
        lambda provider: provider.find(pod),
        lambda provider: provider.expects(pod),
        lambda provider: provider.changed(),
        lambda provider: provider.health(),
    ]
    for call in calls:
        with provider_of(learn(u="x")) as (provider, feed):
            time.sleep(0.01)
            assert feed.watched == []
            call(provider)
            wait_for(lambda feed=feed: feed.watched)  # type: ignore[misc]


def test_a_container_comes_before_its_pod() -> None:
    with provider_of(learn(uid="the pod", id="the container")) as (provider, _):
        wait_for(lambda: provider.health().up)
        both = Workload(runtime="kubernetes", container_id="id", pod_uid="uid")
        for workload, name in ((both, "the container"), (both._replace(container_id="sandbox"), "the pod")):
            metadata = provider.find(workload)
            assert metadata is not None
            assert metadata.container == name
        assert not provider.expects(both)
        assert not provider.expects(both._replace(container_id=""))
        assert provider.expects(both._replace(container_id="sandbox"))


def test_health_before_during_and_after_a_failure(caplog: pytest.LogCaptureFixture) -> None:
    """Fault 49: one log line when the failure starts and one when it ends, whatever happens in between."""
    caplog.set_level(logging.INFO)
    down = fail(Unavailable("timeout", "slow", "wait"))
    with provider_of(down, down, down, make_progress) as (provider, _):
        assert not provider.health().up
        assert provider.health().last_success == 0.0
        wait_for(lambda: provider.health().reason == "timeout")
        assert (provider.health().message, provider.health().fix) == ("slow", "wait")
        wait_for(lambda: provider.health().up)
        health = provider.health()
        assert (health.reason, health.message, health.fix) == (None, "", "")
        assert (health.failures["timeout"], health.failures["error"]) == (3, 0)
        assert health.last_success == 1234.0
        wait_for(lambda: provider.health().read_seconds == 0.75)
    assert [record.message for record in caplog.records] == [
        "metadata provider is not available",
        "metadata provider is back",
    ]
    assert vars(caplog.records[0])["fix"] == "wait"


def test_an_unexpected_exception_does_not_end_it(caplog: pytest.LogCaptureFixture) -> None:
    with provider_of(fail(KeyError("x")), learn(a="x")) as (provider, _):
        wait_for(lambda: provider.health().up)
        assert provider.health().failures["error"] == 1
    assert caplog.records[0].exc_info is not None


def test_it_retries_with_growing_pauses() -> None:
    with provider_of(*[fail(Unavailable("error", "no"))] * 6) as (provider, feed):
        provider.health()
        wait_for(lambda: len(feed.watched) == 7)
        pauses = [after - before for before, after in zip(feed.watched, feed.watched[1:], strict=False)]
        # 10, 20, 40, 80, 160, 320 ms, each at least half as long; a busy machine only makes them longer
        assert all(pause >= 0.5 * 0.01 * 2**number for number, pause in enumerate(pauses))


def test_metadata_stays_during_a_failure() -> None:
    with provider_of(learn(a="x"), fail(Unavailable("error", "no"))) as (provider, _):
        wait_for(lambda: provider.health().failures["error"])
        metadata = provider.find(Workload(runtime="kubernetes", container_id="a"))
        assert metadata is not None
        assert metadata.container == "x"


def test_closed_before_the_first_call_it_never_starts() -> None:
    with provider_of(learn(a="x")) as (provider, feed):
        provider.close()
        assert provider.changed() == set()
        time.sleep(0.02)
        assert feed.watched == []


def test_calls_are_cheap() -> None:
    """The tick calls it for each new cgroup: as cheap as a dictionary, and never blocking."""
    with provider_of(learn(a="x")) as (provider, _):
        wait_for(lambda: provider.health().up)
        pod = Workload(runtime="kubernetes", container_id="a")
        began = time.process_time()
        for _ in range(10_000):
            provider.find(pod)
            provider.changed()
        assert time.process_time() - began < 2.0
