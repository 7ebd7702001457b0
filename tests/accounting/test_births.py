"""A new counter is published at 0 until every regular scraper has seen it; the equation holds meanwhile."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from exporter.accounting.attribution import Energy, share
from exporter.accounting.ledger import Ledger
from exporter.accounting.period import Period
from exporter.records import CpuUse, GpuUse, GroupKey, GroupUse, ProcessKey, Workload
from tests.support.ledger_bench import GPU, PACKAGE, PathNames, group, process, use

A, B = group("a"), group("b")


class Scraped:
    """A ledger, ticked once a second, and what one scraper recorded of it."""

    def __init__(self) -> None:
        self.ledger = Ledger(PathNames())
        self.sequence = 0
        self.received: int | None = 0
        self.given = 0.0
        self.first: dict[tuple[str, str, str], float] = {}
        self.last: dict[tuple[str, str, str], float] = {}

    def tick(
        self,
        *groups: GroupUse,
        watts: float = 10.0,
        started: tuple[GroupKey, ...] = (),
        ended: tuple[GroupKey, ...] = (),
        exited: tuple[ProcessKey, ...] = (),
        gpu_uses: tuple[GpuUse, ...] = (),
    ) -> None:
        self.sequence += 1
        now, busy = float(self.sequence), sum(each.seconds for each in groups)
        cpu = CpuUse(now, 1.0, busy, groups, 0.0, 0.0, started, ended, exited)
        energies = [Energy(PACKAGE, watts, 0.0), *([Energy(GPU, 100.0, 0.0)] if gpu_uses else [])]
        self.given += sum(energy.joules for energy in energies)
        shares = share(energies, cpu, gpu_uses)
        metered = frozenset(energy.device.component for energy in energies)
        zero = self.received is not None
        period = Period.of(now, 1.0, metered, {"cpu": 4.0, "gpu": 1.0}, shares.cpu, born_at_zero=zero)
        self.ledger.post(period, shares, cpu=cpu, gpu_uses=gpu_uses, sequence=self.sequence, scraped=self.received)
        published = sum(sum(row.joules) for row in self.ledger.containers())
        rest = sum(self.ledger.unattributed.values()) + sum(self.ledger.retired.values())
        assert published + rest + sum(self.ledger.unnamed().values()) == pytest.approx(self.given)

    def scrape(self) -> None:
        self.received = self.sequence
        for level in (self.ledger.containers(), self.ledger.models()):
            for row in level:
                name = row.owner.container if isinstance(row.owner, Workload) else str(row.owner[0])
                for (component, mode), joules in zip(row.cells, row.joules, strict=True):
                    self.first.setdefault((name, component, mode), joules)
                    self.last[name, component, mode] = joules

    def increase(self) -> dict[tuple[str, str, str], float]:
        return {key: joules - self.first[key] for key, joules in self.last.items()}


def test_a_container_younger_than_the_scrape_interval_loses_nothing() -> None:
    """Reported: a counter that first appears with 1,500 J gives ``increase()`` nothing of them."""
    node = Scraped()
    node.tick(use(A, 1.0, (process(1, "serve-llama"), 1.0)), started=(A,))
    for _ in range(14):
        node.tick(use(A, 1.0, (process(1, "serve-llama"), 1.0)))
    node.scrape()
    assert set(node.last.values()) == {0.0}
    node.tick(use(A, 1.0, (process(1, "serve-llama"), 1.0)), exited=(ProcessKey(1, 1),), ended=(A,))
    for _ in range(14):
        node.tick()
    node.scrape()
    assert node.increase() == pytest.approx({("a", "cpu", "active"): 160.0, ("llama", "cpu", "active"): 160.0})


def test_a_component_that_comes_later_is_born_at_zero_too() -> None:
    node = Scraped()
    node.tick(use(A, 1.0), started=(A,))
    node.scrape()
    node.tick(use(A, 1.0))
    node.scrape()
    for _ in range(3):
        node.tick(use(A, 1.0), gpu_uses=(GpuUse(GPU.id, A, process(7), 0.5),))
    node.scrape()
    assert (node.last["a", "cpu", "active"], node.last["a", "gpu", "active"]) == (50.0, 0.0)
    node.tick(use(A, 1.0))
    node.scrape()
    assert node.increase()["a", "gpu", "active"] == 300.0


def test_without_a_regular_scraper_counters_show_what_they_hold() -> None:
    node = Scraped()
    node.received = None
    node.tick(use(A, 1.0), started=(A,))
    (row,) = node.ledger.containers()
    assert row.joules == (10.0,)
    assert node.ledger.unnamed() == {}


def test_a_scraper_that_stays_away_holds_nothing_back() -> None:
    node = Scraped()
    node.tick(use(A, 1.0), started=(A,))
    node.received = None
    node.tick(use(A, 1.0))
    (row,) = node.ledger.containers()
    assert row.joules == (20.0,)


def test_a_restored_counter_goes_on_at_its_value() -> None:
    node = Scraped()
    node.tick(use(A, 1.0), started=(A,))
    node.tick(use(A, 1.0))
    again = Scraped()
    again.ledger.restore(node.ledger.state(), 0.0, same_boot=True)
    again.given = node.given
    again.tick(use(A, 1.0), started=(A,))
    (row,) = again.ledger.containers()
    assert row.joules == (30.0,)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 5), st.booleans(), st.booleans(), st.booleans()), min_size=1, max_size=60))
def test_whatever_comes_and_goes_increase_is_what_was_attributed(steps: list[tuple[int, bool, bool, bool]]) -> None:
    """Σ increase() over the scrapes = the ledger's joules of containers that were scraped at least twice."""
    node = Scraped()
    live: set[GroupKey] = set()
    for number, starts, ends, scrapes in steps:
        key = group(f"c{number}")
        started = (key,) if starts and key not in live else ()
        live |= {*started}
        ended = (key,) if ends and key in live else ()
        node.tick(*[use(each, 0.5) for each in sorted(live)], started=started, ended=ended)
        live -= {*ended}
        if scrapes:
            node.scrape()
    for _ in range(2):
        node.tick(*[use(each, 0.5) for each in sorted(live)])
        node.scrape()
    node.tick()
    node.scrape()
    owed = {
        account.owner.container: sum(account.joules.values())
        for account in node.ledger.state().accounts
        if isinstance(account.owner, Workload)
    }
    found = {name: joules for (name, _, _), joules in node.increase().items()}
    assert found == pytest.approx(owed)
