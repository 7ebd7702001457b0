"""Everything at once: workloads come and go, one fault follows the other, and clients are rude; `benchmarks.soak`."""

from __future__ import annotations

import os
import subprocess
import threading
from collections.abc import Callable

import pytest

from benchmarks.soak.faults import FAULTS
from benchmarks.soak.figures import Figures, measure, trends
from benchmarks.soak.run import Outcome, Pace, soak
from tests.support.live import Scrape
from tests.support.patience import wait_for


def test_flat_and_every_end_is_clean() -> None:
    """Faults 1, 8, 12, 13, 22, 23, 38, 43, 49, 55, 58, 61 and 63, with SIGTERM and a new start during each of them.

    As long as every fault takes once; `make soak` is the same for an hour.
    """
    outcome = soak(Pace.compressed(0.0), lambda row, so_far: None)
    log = "".join(outcome.log)
    assert outcome.problems == [], log
    assert [trend for trend in outcome.trends if not trend.flat] == [], log
    assert all(trend.typical > 0 for trend in outcome.trends), outcome.trends  # each was measured
    assert outcome.faults == outcome.ends == len(FAULTS)
    assert outcome.scrapes > len(FAULTS)


def figures(count: int, change: Callable[[int], float]) -> list[Figures]:
    """Of a soak in which all but the descriptors stands still."""
    return [Figures(5.0 * n, 34.0, 18.0, 40.0 + change(n), 7.0, 400.0, 0.0) for n in range(1, count + 1)]


@pytest.mark.parametrize(
    ("change", "flat"),
    [
        pytest.param(lambda n: 0.0, True, id="still"),
        pytest.param(lambda n: 100.0 * (n % 10 == 0), True, id="spikes"),
        pytest.param(lambda n: min(n, 100) / 2, True, id="grows until it has what it needs"),
        pytest.param(lambda n: -n / 50, True, id="shrinks"),
        pytest.param(lambda n: -100.0 * (150 < n < 320), True, id="is taken away and given back"),
        pytest.param(lambda n: n / 50, False, id="leaks"),
        pytest.param(lambda n: n / 50 + 100.0 * (n % 10 == 0), False, id="leaks under spikes"),
        pytest.param(lambda n: max(0, n - 300) / 20 - 30.0 * (150 < n < 250), False, id="leaks after a fault"),
    ],
)
def test_what_is_called_flat(change: Callable[[int], float], flat: bool) -> None:
    found = trends(figures(400, change))
    assert {trend.name: trend.flat for trend in found} == {
        "resident_mib": True,
        "child_mib": True,
        "descriptors": flat,
        "threads": True,
        "series": True,
    }


def test_a_child_is_measured_whichever_thread_started_it() -> None:
    """Like the driver's, which is restarted by the thread that finds it hanging."""
    over = threading.Event()

    def work() -> None:
        with subprocess.Popen(["sleep", "60"]) as child:
            over.wait()
            child.kill()

    thread = threading.Thread(target=work)
    thread.start()
    try:
        wait_for(lambda: measure(0.0, os.getpid(), Scrape()).child_mib > 0, "the child")
    finally:
        over.set()
        thread.join()


def test_a_promise_that_is_not_kept_is_no_good() -> None:
    kept = Outcome(trends=trends(figures(400, lambda n: 0.0)))
    assert kept.good
    assert not Outcome(trends=kept.trends, problems=["a counter fell"]).good
    assert not Outcome(trends=trends(figures(400, float))).good
