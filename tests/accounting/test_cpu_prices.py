"""Which ticks teach what a container's CPU seconds cost, and whom the weights are for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from random import Random

import pytest

from exporter.accounting.accounts import Account
from exporter.accounting.attribution import Energy
from exporter.accounting.cpu_prices import CpuPrices
from exporter.accounting.measurement import Measured
from exporter.records import CpuUse, Device, GroupKey, GroupUse, Workload
from tests.support.ledger_bench import DRAM, PACKAGE, group

SECOND = replace(PACKAGE, id="package-1")
ESTIMATE = replace(PACKAGE, id="estimate", source="estimate", quality="estimated")
HUNGRY, FRUGAL, NESTED = group("hungry"), group("frugal"), group("frugal/nested", 2)


def accounts() -> dict[GroupKey, Account]:
    hungry, frugal = (Account(serial, Workload(container=name)) for serial, name in ((7, "hungry"), (8, "frugal")))
    return {HUNGRY: hungry, FRUGAL: frugal, NESTED: frugal}


def measured(*energies: Energy, unread: frozenset[Device] = frozenset()) -> Measured:
    watts = {energy.device.id: energy.joules for energy in energies if energy.device not in unread}
    return Measured({}, {}, energies, watts, {})


class Node:
    """Two containers of 30 and 10 W per busy CPU, one of them in two cgroups."""

    def __init__(self) -> None:
        self.prices = CpuPrices()
        self.accounts = accounts()
        self.dice = Random(1)
        self.weights: Mapping[GroupKey, float] = {}

    def run(self, ticks: int, *devices: Device, gap: float = 0.0, unread: frozenset[Device] = frozenset()) -> None:
        for _ in range(ticks):
            uses = [GroupUse(key, self.dice.uniform(0.0, 4.0), ()) for key in (HUNGRY, FRUGAL, NESTED)]
            joules = sum([use.seconds * (30.0 if use.group == HUNGRY else 10.0) for use in uses])
            cpu = CpuUse(1.0, 1.0, sum([use.seconds for use in uses]), tuple(uses))
            energies = [Energy(device, joules / len(devices), 20.0, gap) for device in devices]
            self.weights = self.prices.weights(measured(*energies, unread=unread), cpu, self.accounts)


def test_a_container_has_one_price_in_all_its_cgroups() -> None:
    node = Node()
    node.run(120, PACKAGE)
    assert node.weights[FRUGAL] == node.weights[NESTED]
    assert node.weights[HUNGRY] / node.weights[FRUGAL] == pytest.approx(3.0, rel=0.02)
    assert node.prices.by_serial() == pytest.approx({7: 30.0, 8: 10.0}, rel=0.02)


def test_a_cgroup_without_an_account_costs_the_mean() -> None:
    node = Node()
    del node.accounts[NESTED]
    node.run(120, PACKAGE)
    assert node.weights.keys() == {HUNGRY, FRUGAL}


def test_sockets_are_added_up_and_memory_is_not() -> None:
    node = Node()
    node.run(120, PACKAGE, SECOND, DRAM)
    assert node.prices.by_serial() == pytest.approx({7: 20.0, 8: 20.0 / 3}, rel=0.02)


def test_an_estimate_teaches_nothing() -> None:
    node = Node()
    node.run(120, ESTIMATE)
    assert not node.weights


def test_a_gap_teaches_nothing() -> None:
    node = Node()
    node.run(120, PACKAGE, gap=1.0)
    assert not node.weights


def test_a_meter_that_was_not_read_teaches_nothing() -> None:
    node = Node()
    node.run(120, PACKAGE, SECOND, unread=frozenset([SECOND]))
    node.run(120)
    assert not node.weights


def test_a_socket_that_comes_and_goes_teaches_nothing() -> None:
    node = Node()
    for _ in range(120):
        node.run(1, PACKAGE)
        node.run(1, PACKAGE, SECOND)
    assert not node.weights
