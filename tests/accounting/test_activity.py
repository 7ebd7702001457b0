"""What a card did is decided by facts, in one order; where they do not decide, it is unknown."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from exporter.accounting.activity import CardFacts, classify, is_unused
from exporter.accounting.attribution import Energy, share
from exporter.accounting.card_watch import CardWatch
from exporter.accounting.checkpoint import State, decode, encode
from exporter.accounting.ledger import Ledger
from exporter.accounting.period import Period
from exporter.records import (
    Allocation,
    Component,
    CpuUse,
    GpuState,
    GpuUse,
    GroupKey,
    GroupUse,
    Model,
    Process,
    Workload,
)
from exporter.snapshot import AccountRow
from tests.support.ledger_bench import GPU, PACKAGE, PathNames, group, process, use

A = group("a")
STATE = GpuState(GPU.id, "0", throttle_seconds=(("sw_power_cap", 5.0), ("hw_slowdown", 1.0)))


@pytest.mark.parametrize(
    ("card", "cores", "activity"),
    [
        (CardFacts(0.2, 0.9, 0.8, 0.7, 0.1), 0.1, "throttled"),
        (CardFacts(0.1, 0.9, 0.8, 0.7, 0.1), 0.1, "compute_bound"),
        (CardFacts(0.0, 1.0, 0.2, 0.2, 0.2), 0.1, "underused"),
        (CardFacts(0.0, 1.0, 0.2, 0.2, 0.2), 1.1, "host_bound"),
        (CardFacts(0.0, 1.0, 0.2, 0.2, 0.2), None, "underused"),
        (CardFacts(0.0, 1.0, 0.8, 0.5, 0.6), 1.1, "memory_bound"),
        (CardFacts(0.0, 1.0, 0.8, 0.1, 0.1), 1.1, "mixed"),
        (CardFacts(0.0, 1.0, 0.8, 0.1, None), 1.1, "unknown"),
        (CardFacts(0.0, 0.29), 0.1, "underused"),
        (CardFacts(0.0, 0.29), 0.9, "host_bound"),
        (CardFacts(0.0, 0.31), 0.9, "unknown"),
        (CardFacts(0.5), None, "throttled"),
        (CardFacts(), 2.0, "unknown"),
    ],
)
def test_the_first_that_applies(card: CardFacts, cores: float | None, activity: str) -> None:
    assert classify(card, cores) == activity


def test_a_holder_without_use_is_idle_only_where_that_is_known() -> None:
    assert is_unused(CardFacts(), 0.0, 0.0, reported=True)
    assert not is_unused(CardFacts(utilization=0.4), 0.0, 30.0, reported=True)  # all active joules are a sole holder's
    assert not is_unused(CardFacts(), 0.0, 0.0, reported=False)
    assert is_unused(CardFacts(utilization=0.0), 0.0, 0.3, reported=False)
    assert not is_unused(CardFacts(utilization=0.0), 0.01, 0.0, reported=True)


def test_throttled_is_the_longest_reason_over_the_time_since_the_last_reading() -> None:
    watch = CardWatch()
    watch.update([STATE], 1.0)
    assert watch.facts(GPU.id).throttled is None  # the first reading says nothing about the time before it
    watch.update([], 1.0)  # a read that came late
    later = replace(STATE, throttle_seconds=(("sw_power_cap", 5.1), ("hw_slowdown", 2.0)), window_seconds=2.0)
    watch.update([later, replace(STATE, gpu_instance="3", sm_active_ratio=0.4)], 1.0)
    assert watch.facts(GPU.id).throttled == pytest.approx(0.5)
    assert watch.facts(GPU.id, "3").sm == 0.4
    assert watch.facts(GPU.id, "3").throttled == pytest.approx(0.5)
    assert watch.facts("GPU-2") == CardFacts()


class Late(PathNames):
    """Models are recognised when the test says so."""

    def __init__(self) -> None:
        self.known = False
        self.news: list[GroupKey] = []

    def model(self, group: GroupKey | None, process: Process) -> Model | None:
        return super().model(group, process) if self.known else None

    def recognise(self) -> None:
        self.known = True
        self.news = [A]

    def renamed(self) -> list[GroupKey]:
        news, self.news = self.news, []
        return news


class Node:
    """A ledger with one card, ticked once a second."""

    def __init__(self, namer: PathNames | None = None) -> None:
        self.namer = namer or PathNames()
        self.ledger = Ledger(self.namer)
        self.cards = CardWatch()
        self.sequence = 0
        self.scraped: int | None = None
        self.throttled = 0.0

    def tick(
        self,
        *uses: GpuUse,
        groups: tuple[GroupUse, ...] = (),
        card: tuple[float | None, ...] = (None, None, None),
        throttled: float = 0.0,
        utilization: float | None = None,
        idle: float = 70.0,
        active: float = 300.0,
        allocations: tuple[Allocation, ...] = (),
        started: tuple[GroupKey, ...] = (),
    ) -> None:
        self.sequence += 1
        self.throttled += throttled
        now = float(self.sequence)
        busy = sum(each.seconds for each in groups)
        cpu = CpuUse(now, 1.0, busy, groups, started=started)
        sm, tensor, dram = card
        states = [
            GpuState(
                GPU.id,
                "0",
                instance,
                utilization_ratio=utilization,
                sm_active_ratio=sm,
                tensor_active_ratio=tensor,
                dram_active_ratio=dram,
                throttle_seconds=() if instance else (("sw_power_cap", self.throttled),),
            )
            for instance in ("", "1", "2")
        ]
        self.cards.update(states, 1.0)
        owners = self.ledger.owners([each.group for each in uses if each.group is not None])
        shares = share([Energy(PACKAGE, 10.0, 0.0), Energy(GPU, active, idle)], cpu, uses, "node", allocations, owners)
        metered: frozenset[Component] = frozenset(("cpu", "gpu"))
        zero = self.scraped is not None
        period = Period.of(now, 1.0, metered, {"cpu": 4.0, "gpu": 1.0}, shares.cpu, born_at_zero=zero)
        self.ledger.post(
            period,
            shares,
            cpu=cpu,
            gpu_uses=uses,
            allocations=allocations,
            cards=self.cards,
            sequence=self.sequence,
            scraped=self.scraped,
        )
        self.check()

    def check(self) -> None:
        for row in self.ledger.models():
            assert sum(row.activities.values()) == pytest.approx(_gpu(row), rel=1e-12, abs=1e-9)
        for row in self.ledger.containers():
            assert row.activities.keys() <= {"idle"}
            assert sum(row.activities.values()) <= _gpu(row) * (1 + 1e-12)

    def activities(self, model: str = "llama") -> dict[str, float]:
        found = {row.owner[0]: row.activities for row in self.ledger.models()}
        return {name: joules for name, joules in found[model].items() if joules}

    def unused(self, container: str = "a") -> float:
        found = {row.owner.container: row for row in self.ledger.containers() if isinstance(row.owner, Workload)}
        return found[container].activities.get("idle", 0.0)


def _gpu(row: AccountRow) -> float:
    return sum(joules for (component, _), joules in zip(row.cells, row.joules, strict=True) if component == "gpu")


def held(key: GroupKey, pid: int, model: str, seconds: float, instance: str = "") -> GpuUse:
    return GpuUse(GPU.id, key, process(pid, f"serve-{model}"), seconds, gpu_instance=instance)


def test_a_tick_is_of_one_activity_whatever_its_mode() -> None:
    node = Node()
    node.tick(held(A, 1, "llama", 0.9), card=(0.9, 0.8, 0.1))
    node.tick(held(A, 1, "llama", 0.9), card=(0.9, 0.8, 0.1), throttled=0.6)
    node.tick(held(A, 1, "llama", 0.0), card=(0.0, 0.0, 0.0), active=0.0)
    assert node.activities() == {"compute_bound": 370.0, "throttled": 370.0, "idle": 70.0}
    assert node.unused() == 70.0


def test_a_holder_that_rests_beside_one_that_works_is_idle() -> None:
    node = Node()
    node.tick(held(A, 1, "llama", 0.9), held(group("b"), 2, "qwen", 0.0), card=(0.9, 0.1, 0.8))
    assert node.activities("llama") == {"memory_bound": 335.0}
    assert node.activities("qwen") == {"idle": 35.0}
    assert (node.unused("a"), node.unused("b")) == (0.0, 35.0)


def test_processes_of_one_model_on_one_card_are_judged_together() -> None:
    node = Node()
    node.tick(held(A, 1, "llama", 0.9), held(A, 2, "llama", 0.0), card=(0.9, 0.8, 0.1))
    assert node.activities() == {"compute_bound": 370.0}
    assert node.unused() == 0.0


def test_each_mig_instance_for_itself() -> None:
    node = Node()
    node.tick(held(A, 1, "llama", 0.3, "1"), held(A, 1, "llama", 0.0, "2"), card=(0.9, 0.8, 0.1), active=100.0)
    assert node.activities() == {"compute_bound": 135.0, "idle": 35.0}


def test_a_busy_core_for_each_gpu_makes_the_host_the_cause() -> None:
    for cores, activity in ((1.0, "host_bound"), (0.5, "underused")):
        node = Node()
        node.tick(groups=(use(A, cores, (process(1, "serve-llama"), cores)),), started=(A,))
        node.tick(
            held(A, 1, "llama", 0.2),
            groups=(use(A, cores, (process(1, "serve-llama"), cores)),),
            card=(0.1, 0.1, 0.1),
        )
        assert node.activities() == {activity: 370.0}


def test_a_card_that_is_allocated_and_not_opened_is_unused() -> None:
    node = Node()
    given_to = Allocation(GPU.id, "ns", "pod", "c")
    node.tick(allocations=(given_to,), active=0.0)
    assert node.unused("c") == 70.0
    node.tick(GpuUse(GPU.id, None, None, 0.5), allocations=(given_to,))  # a process that this /proc does not show
    assert node.unused("c") == 70.0


def test_the_meters_noise_above_idle_power_is_no_use_of_a_card_without_a_kernel() -> None:
    node = Node()
    given_to = Allocation(GPU.id, "ns", "pod", "c")
    node.tick(allocations=(given_to,), active=0.5, utilization=0.0)
    assert node.unused("c") == 70.5
    node.tick(allocations=(given_to,), active=0.5, utilization=0.01)
    assert node.unused("c") == 70.5


def test_what_a_process_did_before_its_model_was_recognised_is_the_models() -> None:
    namer = Late()
    node = Node(namer)
    node.tick(held(A, 1, "llama", 0.9), card=(0.9, 0.8, 0.1), started=(A,))
    assert node.ledger.models() == ()
    namer.recognise()
    node.tick(held(A, 1, "llama", 0.9), card=(0.9, 0.1, 0.8))
    assert node.activities() == {"compute_bound": 370.0, "memory_bound": 370.0}


def test_it_is_kept_across_restarts_and_what_an_older_file_lacks_is_unknown() -> None:
    node = Node()
    node.tick(held(A, 1, "llama", 0.9), card=(0.9, 0.8, 0.1))
    node.tick(held(A, 1, "llama", 0.0), active=0.0)
    saved = decode(encode(State("", 1.0, ledger=node.ledger.state()), whole=True)).ledger
    again = Node()
    again.ledger.restore(saved, 0.0, same_boot=True)
    again.tick(held(A, 1, "llama", 0.9), card=(0.9, 0.1, 0.8))
    assert again.activities() == {"compute_bound": 370.0, "idle": 70.0, "memory_bound": 370.0}
    assert again.unused() == 70.0
    old = Node()
    saved.accounts = [account._replace(activities={}) for account in saved.accounts]
    old.ledger.restore(saved, 0.0, same_boot=True)
    old.tick(held(A, 1, "llama", 0.9), card=(0.9, 0.1, 0.8))
    assert old.activities() == {"unknown": 440.0, "memory_bound": 370.0}
    assert old.unused() == 0.0


STEP = st.tuples(
    st.lists(
        st.tuples(
            st.sampled_from("abc"), st.integers(1, 4), st.sampled_from((0.0, 0.3)), st.sampled_from(("", "1", "2"))
        ),
        max_size=4,
        unique_by=lambda one: (one[1], one[3]),
    ),
    st.tuples(*[st.none() | st.sampled_from((0.0, 0.2, 0.6, 0.9))] * 3),
    st.sampled_from((0.0, 0.0, 0.7)),
    st.sampled_from((0.0, 300.0)),
    st.booleans(),
    st.sampled_from(("tick", "tick", "scrape", "restart", "old restart", "recognise")),
)


@settings(max_examples=80, deadline=None)
@given(st.lists(STEP, max_size=25))
def test_activities_of_a_model_are_its_gpu_joules_in_every_tick(steps: list[Any]) -> None:
    """Whatever comes and goes, is scraped for the first time, restarts, or is recognised late: `Node.check`."""
    namer = Late()
    node = Node(namer)
    for holders, card, throttled, active, is_given, what in steps:
        if what == "scrape":
            node.scraped = node.sequence
        elif what == "recognise":
            namer.known, namer.news = True, [group(name) for name in "abc"]
        elif what.endswith("restart"):
            state = decode(encode(State("", 1.0, ledger=node.ledger.state()), whole=True)).ledger
            if what == "old restart":
                state.accounts = [account._replace(activities={}) for account in state.accounts]
            node.ledger = Ledger(namer)
            node.ledger.restore(state, float(node.sequence), same_boot=True)
        node.tick(
            *[held(group(name), pid, f"m{pid % 2}", seconds, instance) for name, pid, seconds, instance in holders],
            groups=tuple(use(group(name), 1.0) for name in sorted({name for name, *_ in holders})),
            card=card,
            throttled=throttled,
            active=active,
            allocations=(Allocation(GPU.id, "ns", "pod", "c"),) if is_given else (),
            started=tuple(group(name) for name in "abc") if node.sequence == 0 else (),
        )
