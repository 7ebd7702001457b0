"""Who holds a GPU, and for how long: by claims on its idle joules, whatever these are."""

from __future__ import annotations

import pytest

from exporter.accounting.accounts import Account
from exporter.accounting.attribution import Energy, share
from exporter.accounting.held_time import HeldSeconds, HeldTime
from exporter.records import Allocation, GpuUse, GroupKey, Workload
from tests.support.ledger_bench import GPU, PACKAGE, group, process

A, B = group("a"), group("b")
ENERGIES = [Energy(GPU, 0.0, 0.0), Energy(PACKAGE, 50.0, 10.0)]
"""The card draws nothing: it is held nevertheless."""


def workload(name: str) -> Workload:
    return Workload(namespace="team", pod=name, container="c", runtime="kubernetes")


def accounts(*names: str) -> dict[GroupKey, Account]:
    return {group(name): Account(number, workload(name)) for number, name in enumerate(names)}


def use(pid: int, of: GroupKey, seconds: float = 0.0) -> GpuUse:
    return GpuUse(GPU.id, of, process(pid), seconds)


def test_processes_that_hold_a_card_share_its_time_busy_or_not() -> None:
    held = HeldTime()
    by_group = accounts("a", "b")
    for seconds in (1.0, 2.0):
        held.add(seconds, ENERGIES, share(ENERGIES, None, [use(1, A, 0.9), use(2, B)]), by_group, {})
    assert held.seconds.node == 3.0
    assert held.seconds.containers == {workload("a").key: 1.5, workload("b").key: 1.5}


def test_a_card_that_is_allocated_is_held_by_its_container_without_a_process() -> None:
    held = HeldTime()
    owner = workload("a")
    shares = share(ENERGIES, None, [], allocations=[Allocation(GPU.id, *owner.place, 1.0)], owners={})
    held.add(10.0, ENERGIES, shares, {}, {owner.place: owner})
    assert held.seconds.containers == {owner.key: 10.0}


def test_a_card_that_is_held_by_none_is_only_the_node_s() -> None:
    held = HeldTime()
    held.add(10.0, ENERGIES, share(ENERGIES, None, []), {}, {})
    assert held.seconds == HeldSeconds(10.0)


def test_a_container_whose_name_comes_late_loses_no_time_and_one_that_ends_keeps_it() -> None:
    held = HeldTime()
    by_group = accounts("a")
    by_group[A].held_until = 30.0
    shares = share(ENERGIES, None, [use(1, A)])
    held.add(5.0, ENERGIES, shares, by_group, {})
    assert held.seconds.containers == {}
    by_group[A].held_until = None
    held.add(1.0, ENERGIES, shares, by_group, {})
    assert held.seconds.containers == {workload("a").key: 6.0}
    held.end({workload("a").key})
    assert held.seconds.ended == 0.0
    held.end(set())
    assert (held.seconds.containers, held.seconds.ended, held.seconds.node) == ({}, 6.0, 6.0)


def test_a_container_that_ends_without_a_name_is_not_lost() -> None:
    held = HeldTime()
    by_group = accounts("a")
    by_group[A].held_until = 30.0
    held.add(5.0, ENERGIES, share(ENERGIES, None, [use(1, A)]), by_group, {})
    held.add(1.0, ENERGIES, share(ENERGIES, None, []), {}, {})
    assert held.seconds == HeldSeconds(6.0, {}, 5.0)


@pytest.mark.parametrize("count", [1, 2, 3])
def test_all_time_of_a_held_card_is_held(count: int) -> None:
    held = HeldTime()
    names = [f"x{number}" for number in range(count)]
    uses = [use(number + 1, group(name)) for number, name in enumerate(names)]
    held.add(7.0, ENERGIES, share(ENERGIES, None, uses), accounts(*names), {})
    assert sum(held.seconds.containers.values()) == pytest.approx(held.seconds.node) == pytest.approx(7.0)
