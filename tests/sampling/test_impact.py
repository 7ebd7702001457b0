"""Grams and money of a sampler whose factors change, age and come back, against the closed form."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from exporter.exposition.metrics.render import Renderer
from exporter.host import Host
from exporter.impact.feeds.poller import Poller
from exporter.impact.feeds.protocol import FeedOptions, Quantity, Series, Slot
from exporter.impact.live import LiveSeries
from exporter.impact.schedule import Schedule
from exporter.impact.values import JOULES_PER_KWH, Factors
from exporter.records import CpuUse, Device, EnergyReading, GroupKey, GroupUse, Model, Process, Reading, Workload
from exporter.sampling.sampler import Sampler
from exporter.sampling.state_file import StateStore
from exporter.workloads.protocol import Namer
from tests.support.inline_pool import Inline

WATTS = 1200.0
STEP = 2.0
"""Seconds between two ticks: a change takes effect with the next tick."""

HALF = 1800.0
START = 1_795_888_800.0
PACKAGE = Device("package-0", "cpu", "meter", "measured", "package-0", 4.0, max_watts=5000.0)
TABLE = Factors(380.0, None, 1.25, "EUR", "DE", "table", "Ember", "location", "lifecycle", "2024", True, True)


class Meter:
    """A machine at constant power, with one container."""

    name = "meter"

    def read(self, now: float) -> Reading:
        use = CpuUse(now, STEP, 1.0, (GroupUse(GroupKey("/a", 7), 1.0, ()),), 0.0, 0.0, (), (), ())
        return Reading((EnergyReading(PACKAGE, now, WATTS * now, None),), cpu=use)

    def close(self) -> None:
        """Nothing is open."""


class Names(Namer):
    def workload(self, group: GroupKey) -> Workload:
        return Workload(container=group.path.strip("/"), runtime="docker", container_id=str(group.inode))

    def model(self, group: GroupKey | None, process: Process) -> Model | None:
        return None


class Silent:
    """A feed that is never asked: the answers are given."""

    name = "feed"
    poll_seconds = 300.0

    def read(self, now: float) -> Series:
        raise AssertionError

    def interrupt(self) -> None:
        """Nothing is going on."""


def live(quantity: Quantity, *values: float) -> LiveSeries:
    """Values of half an hour each, and no further answer."""
    slots = [Slot(START + at * HALF, START + (at + 1) * HALF, value) for at, value in enumerate(values)]
    poller = Poller(Silent())
    poller.latest, poller.revision = Series(tuple(slots), "DE-LU", "Electricity Maps", "lifecycle"), 1
    poller.close()
    return LiveSeries(poller, FeedOptions("electricity-maps", quantity, "DE-LU", "https://feed"), HALF)


class Run:
    """An exporter whose clock a test moves; ``restart`` is one with the same state file."""

    def __init__(self, folder: Path) -> None:
        (folder / "sys/kernel/random").mkdir(parents=True)
        (folder / "sys/kernel/random/boot_id").write_text("boot-1\n")
        (folder / "stat").write_text("cpu 0 0 0 0\ncpu0 0 0 0 0\n")
        self._folder = folder
        self.now = 0.0
        self._renderer = Renderer()

    def start(self, schedule: Schedule) -> None:
        host = Host(procfs=str(self._folder), clock=lambda: self.now, wall=lambda: START + self.now)
        store = StateStore(str(self._folder / "state"))
        self.sampler = Sampler([Meter()], Names(), host, store=store, pools=Inline, factors=schedule)

    def until(self, seconds: float) -> None:
        while self.now < seconds:
            self.sampler.tick()
            self.now += STEP

    def values(self, name: str) -> dict[tuple[str, ...], float]:
        """The samples of a family, by their labels' values."""
        assert self.sampler.snapshot is not None
        families = text_string_to_metric_families(self._renderer.body(self.sampler.snapshot).decode())
        samples = [sample for family in families for sample in family.samples if sample.name == name]
        return {tuple(sample.labels.values()): sample.value for sample in samples}

    def value(self, name: str) -> float:
        return sum(self.values(name).values())


def kwh(seconds: float) -> float:
    return WATTS * seconds / JOULES_PER_KWH


def test_factors_that_change_and_age_match_the_closed_form(tmp_path: Path) -> None:
    """100 g, then 500 g for half an hour and, held, for another; the service stays away, and the table follows."""
    run = Run(tmp_path)
    run.start(Schedule(TABLE, lives=[live("intensity", 100.0, 500.0)]))
    seen = []
    for halves, expected, provider in (
        (1, 100, "electricity-maps"),
        (2, 600, "electricity-maps"),
        (3, 1100, "electricity-maps"),
        (4, 1480, "table"),
        (5, 1860, "table"),
    ):
        run.until(halves * HALF)
        grams = run.value("energy_node_carbon_grams_total")
        assert grams == pytest.approx(1.25 * kwh(HALF) * expected, rel=0.002 if halves == 1 else 0.001)
        assert run.value("energy_node_joules_total") == pytest.approx(WATTS * halves * HALF, rel=0.002)
        assert provider in next(iter(run.values("energy_impact_info")))
        seen.append(grams)
    assert all(before < after for before, after in pairwise(seen))
    parts = sum(
        run.value(f"energy_{part}")
        for part in ("container_carbon_grams_total", "unattributed_carbon_grams_total", "unnamed_carbon_grams")
    )
    assert parts == pytest.approx(seen[-1], rel=1e-9)
    assert run.values("energy_impact_factor_timestamp_seconds") == {("intensity",): START + HALF}
    run.sampler.close()


def test_a_negative_price_is_a_credit_and_charges_minus_credits_are_the_bill(tmp_path: Path) -> None:
    run = Run(tmp_path)
    run.start(Schedule(TABLE, lives=[live("price", 0.3, -0.1, 0.2)]))
    seen = []
    for halves in (1, 2, 3):
        run.until(halves * HALF)
        seen.append((run.value("energy_node_cost_total"), run.value("energy_node_credit_total")))
    charges, credited = seen[-1]
    assert charges - credited == pytest.approx(1.25 * kwh(HALF) * 0.4, rel=0.002)
    assert credited == pytest.approx(1.25 * kwh(HALF) * 0.1, rel=0.002)
    assert all(a <= b for before, after in pairwise(seen) for a, b in zip(before, after, strict=True))
    run.sampler.close()


def test_a_restart_within_an_hour_counts_nothing_twice_and_a_new_region_has_its_own_labels(tmp_path: Path) -> None:
    run = Run(tmp_path)
    run.start(Schedule(TABLE, lives=[live("intensity", 100.0, 500.0)]))
    run.until(1.5 * HALF)
    before = run.value("energy_node_carbon_grams_total")
    run.sampler.close()
    run.start(Schedule(Factors(44.0, pue=1.25, zone="FR", provider="table", basis="location")))
    run.until(run.now + STEP)
    after = run.value("energy_node_carbon_grams_total")
    assert before < after <= before + 1.25 * 3 * STEP * WATTS / JOULES_PER_KWH * 500
    run.until(2.5 * HALF)
    expected = 100 + 0.5 * 500 + 44
    assert run.value("energy_node_carbon_grams_total") == pytest.approx(1.25 * kwh(HALF) * expected, rel=0.002)
    (info,) = run.values("energy_impact_info")
    assert info[:2] == ("FR", "table")
    run.sampler.close()


def test_another_currency_starts_at_0(tmp_path: Path) -> None:
    """Euros and dollars have no sum; grams have."""
    run = Run(tmp_path)
    for currency in ("EUR", "EUR", "USD"):
        run.start(Schedule(Factors(100.0, 0.3, currency=currency)))
        run.until(run.now + 600.0)
        grams, cost = run.value("energy_node_carbon_grams_total"), run.values("energy_node_cost_total")
        run.sampler.close()
    assert grams == pytest.approx(kwh(1800.0) * 100, rel=0.01)
    assert cost == {("USD",): pytest.approx(kwh(600.0) * 0.3, rel=0.01)}
