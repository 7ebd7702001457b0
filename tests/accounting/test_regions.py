"""Watts of regions: simulated programs whose watts are known, and the division of joules."""

from __future__ import annotations

from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.region_simulation import SECONDS, WATTS, Card, Meter, Run, simulate, simulate_card, steps
from exporter.accounting.region_lags import Moment
from exporter.accounting.region_times import OUTSIDE, RegionTimes
from exporter.accounting.regions import PARTICIPANTS, RegionEstimator, RegionWatts, divide

_SEEDS = 6

_LAG = 0.0523
"""Seconds: between two of the delays that are tried first."""


@pytest.fixture(scope="module")
def runs() -> list[Run]:
    """A minute at a meter that is read ten times a second and shows everything about 50 ms late."""
    return [simulate(Random(seed), Meter(0.1, lag=_LAG), 60.0) for seed in range(_SEEDS)]


class TestSteps:
    def test_watts_are_found_where_a_division_by_time_gives_every_region_the_mean(self, runs: list[Run]) -> None:
        for run in runs:
            assert run.time_share_error("load") > 0.9
            assert run.time_share_error("forward") < -0.1
            for region, watts in WATTS.items():
                assert abs(run.error(region, watts)) < 0.05

    def test_after_an_hour_at_one_read_a_second(self) -> None:
        run = simulate(Random(1), Meter(1.0, lag=_LAG), 3600.0)
        for region, watts in WATTS.items():
            assert abs(run.error(region, watts)) < 0.05

    def test_the_lag_is_found(self, runs: list[Run]) -> None:
        assert [run.estimator.lag for run in runs] == [pytest.approx(_LAG, abs=0.0005)] * _SEEDS

    def test_the_true_watts_are_within_nine_of_ten_intervals(self) -> None:
        runs = [simulate(Random(seed), Meter(0.1, lag=_LAG), 20.0) for seed in range(100)]
        for region, watts in WATTS.items():
            found = [run.estimator.watts[region] for run in runs]
            assert sum(each.low <= watts <= each.high for each in found) >= 85

    @pytest.mark.parametrize("seed", [0, 2])
    def test_a_lag_that_was_first_taken_for_the_one_beside(self, seed: int) -> None:
        """After few reads of a card 15 or 25 ms fit better than its 20 ms, and no delay around them is that one."""
        slow = {region: 4 * seconds for region, seconds in SECONDS.items()}
        run = simulate_card(Random(seed), Card(lag=0.02), 150.0, steps(Random(seed + 1000), seconds=slow))
        assert run.estimator.lag == pytest.approx(0.02, abs=0.001)
        for region, watts in WATTS.items():
            assert run.estimator.watts[region].low <= watts <= run.estimator.watts[region].high

    def test_nothing_is_lost(self, runs: list[Run]) -> None:
        for run in runs:
            assert sum(run.joules.values()) == pytest.approx(run.metered, rel=1e-12)

    def test_watts_do_not_depend_on_the_order_of_regions(self) -> None:
        turned = dict(reversed(list(SECONDS.items())))
        random = Random(3)
        run = simulate(random, Meter(0.1), 60.0, steps(random, seconds=turned))
        for region, watts in WATTS.items():
            assert abs(run.error(region, watts)) < 0.15

    def test_equal_steps_are_told_apart_because_reads_are_not_periodic(self) -> None:
        """Steps of 50 ms at a meter that is read each 100 ms: every interval has the same seconds of each region."""
        random = Random(4)
        seconds = {"forward": 0.030, "load": 0.012, "optimizer": 0.008}
        exact = Meter(0.1, jitter=0.0, clock_error=0.0)
        aliased = simulate(random, exact, 60.0, steps(random, seconds=seconds, jitter=0.0))
        assert "regression" not in {found.method for found in aliased.estimator.watts.values()}
        run = simulate(random, Meter(0.1), 60.0, steps(random, seconds=seconds, jitter=0.0))
        for region, watts in WATTS.items():
            assert abs(run.error(region, watts)) < 0.15
            assert run.estimator.watts[region].method == "regression"


@pytest.mark.parametrize(("longer", "found"), [(1, False), (40, True)])
def test_a_counter_that_steps_at_unknown_times_gives_no_watts_of_shorter_regions(longer: int, found: bool) -> None:
    """As GPUs do each 0.1 s. What the others do not explain is then mostly the error of the moments."""
    random = Random(6)
    slow = {region: longer * seconds for region, seconds in SECONDS.items()}
    run = simulate(random, Meter(1.0, clock_error=0.029), 600.0, steps(random, seconds=slow))
    for region, watts in WATTS.items():
        if found:
            assert abs(run.error(region, watts)) < 0.25
        else:
            assert run.estimator.watts[region].method == "not_identifiable"
            assert set(run.estimator.watts[region].together) == set(WATTS) - {region}
    assert sum(run.joules.values()) == pytest.approx(run.metered, rel=1e-12)


def observe(
    estimator: RegionEstimator, intervals: int, pieces: list[tuple[dict[str, float], float]], random: Random
) -> float:
    """Show an estimator intervals of 1 s with a random share of each piece, a mix of regions and its watts."""
    times, at, total, before = RegionTimes(), 0.0, 0.0, 0.0
    times.start(-1.0)
    times.add(1.0, ((OUTSIDE, 1.0),))
    for _ in range(intervals):
        weights = [random.random() for _ in pieces]
        joules = 0.0
        for (mix, watts), weight in zip(pieces, weights, strict=True):
            seconds = weight / sum(weights)
            times.add(seconds, [(region, seconds * part) for region, part in mix.items()])
            joules += seconds * watts
        if at:  # of what follows an interval some milliseconds are needed
            estimator.observe(times, Moment(at - 1.0), Moment(at), before)
        before = joules
        total += joules
        at += 1.0
    return total


class TestIdentifiability:
    def test_regions_in_one_proportion_are_estimated_together(self) -> None:
        estimator = RegionEstimator()
        observe(estimator, 120, [({"a": 0.6, "b": 0.4}, 300.0), ({"c": 1.0}, 100.0)], Random(1))
        a, b, c = (estimator.watts[name] for name in "abc")
        assert (a.method, b.method, c.method) == ("not_identifiable", "not_identifiable", "regression")
        assert (a.together, b.together, c.together) == (("b",), ("a",), ())
        assert a.watts == b.watts == pytest.approx(300.0, rel=0.01)
        assert c.watts == pytest.approx(100.0, rel=0.01)

    def test_nothing_is_said_before_there_are_enough_intervals(self) -> None:
        estimator = RegionEstimator()
        observe(estimator, 30, [({"a": 1.0}, 300.0), ({"c": 1.0}, 100.0)], Random(1))
        assert not estimator.watts

    def test_regions_longer_than_an_interval_are_measured_by_windows(self) -> None:
        estimator, times = RegionEstimator(), RegionTimes()
        times.start(-1.0)
        for second in range(200):
            region = "train" if second // 20 % 2 else "evaluate"
            times.add(1.0, ((region, 1.0),))
        for second in range(1, 198):
            region = "train" if (second + 1) // 20 % 2 else "evaluate"
            watts = 90.0 if region == "train" else 40.0
            estimator.observe(times, Moment(second), Moment(second + 1.0), watts)
        assert estimator.watts["train"].method == "window"
        assert estimator.watts["train"].watts == pytest.approx(90.0, rel=0.02)
        assert estimator.watts["evaluate"].watts == pytest.approx(40.0, rel=0.02)

    def test_the_power_outside_is_what_is_known_of_it_where_nothing_varies(self) -> None:
        anchored = RegionEstimator(outside_watts=60.0)
        observe(anchored, 120, [({"a": 0.5, OUTSIDE: 0.5}, 160.0)], Random(1))
        assert anchored.watts["a"].method == "not_identifiable"

    def test_watts_are_never_negative(self) -> None:
        estimator = RegionEstimator()
        observe(estimator, 200, [({"a": 1.0}, 100.0), ({"b": 1.0}, 0.0), ({OUTSIDE: 1.0}, 0.0)], Random(2))
        assert all(found.watts >= 0.0 for found in estimator.watts.values())
        assert estimator.watts["b"].watts == pytest.approx(0.0, abs=0.5)

    def test_more_regions_than_are_estimated(self) -> None:
        estimator = RegionEstimator()
        pieces = [({f"region {number}": 1.0}, 100.0 + number) for number in range(3 * PARTICIPANTS)]
        observe(estimator, 40, pieces, Random(5))
        assert set(estimator.watts) >= {f"region {number}" for number in range(3 * PARTICIPANTS)}


class TestTimes:
    @given(st.lists(st.tuples(st.floats(0.001, 2.0), st.sampled_from(["a", "b", OUTSIDE])), min_size=1, max_size=30))
    def test_intervals_add_up(self, pieces: list[tuple[float, str]]) -> None:
        times, end = RegionTimes(), 10.0
        times.start(end)
        for seconds, region in pieces:
            times.add(seconds, ((region, seconds),))
            end += seconds
        middle = (10.0 + end) / 2
        parts = (times.between(10.0, middle), times.between(middle, end))
        whole = times.between(10.0, end)
        for region in whole:
            assert sum(part.get(region, 0.0) for part in parts) == pytest.approx(whole[region])
        assert sum(whole.values()) == pytest.approx(end - 10.0)

    def test_what_is_forgotten_does_not_change_later_intervals(self) -> None:
        times = RegionTimes()
        times.start(0.0)
        for _ in range(10):
            times.add(1.0, (("a", 0.25), (OUTSIDE, 0.75)))
        before = times.between(6.5, 8.25)
        times.forget(6.5)
        assert times.between(6.5, 8.25) == before
        assert times.since == 6.0


class TestDivision:
    @given(
        st.floats(0.0, 1e6),
        st.dictionaries(st.sampled_from(["a", "b", "c", OUTSIDE]), st.floats(0.0, 100.0), min_size=1),
        st.dictionaries(st.sampled_from(["a", "b", "c", OUTSIDE]), st.floats(0.0, 1000.0)),
    )
    def test_the_shares_are_all_of_the_joules(
        self, joules: float, seconds: dict[str, float], watts: dict[str, float]
    ) -> None:
        known = {region: RegionWatts(value, value, value, "regression") for region, value in watts.items()}
        shares = divide(joules, seconds, known)
        assert sum(shares.values()) == pytest.approx(joules, rel=1e-14)
        assert all(share >= 0.0 for share in shares.values())
