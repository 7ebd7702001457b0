"""Accounts of regions: what is counted for which model, from when to when, and that no joule is counted twice."""

from __future__ import annotations

from collections.abc import Mapping
from random import Random

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from exporter.accounting.region_accounts import MAX_LEARNED, MAX_REGIONS, OTHER, Owner, RegionAccounts
from exporter.accounting.regions import HOLD_SECONDS
from exporter.records import Component, GroupKey, Process, ProcessKey
from exporter.records.regions import OUTSIDE_REGIONS, ProcessRegions, RegionPiece, RegionSpan, RegionUse

PROCESS = Process(ProcessKey(7, 70), "python")
GROUP = GroupKey("cgroup", 5)
MODEL: Owner = ("llama", "research")

Pieces = list[tuple[float, str]]


SHORTEST_TICK = 0.1
"""Seconds."""


class Bench:
    """Accounts, the boot time, and the joules of one process on the CPU."""

    def __init__(self, owner: Owner | None = MODEL) -> None:
        self.accounts = RegionAccounts()
        self.owner = owner
        self.now = 100.0
        self.joules: dict[Component, float] = {"cpu": 50.0}
        self._spans_until = 100.0

    def tick(
        self,
        seconds: float,
        joules: float,
        pieces: Pieces | None = None,
        *,
        runs: Mapping[str, int] | None = None,
        ended: bool = False,
        born: int | None = None,
    ) -> None:
        """Read the meter ``seconds`` later; the process reports ``pieces``, or is silent for None."""
        self.now += seconds
        self.joules["cpu"] += joules
        reported: list[ProcessRegions] = []
        if pieces is not None or ended:
            span = RegionSpan(
                self._spans_until, tuple([RegionPiece(length, ((name, length),)) for length, name in pieces or ()])
            )
            self._spans_until += sum(length for length, _ in pieces or ())
            uses = tuple([RegionUse(PROCESS, name, 0.0, None, count, {}) for name, count in (runs or {}).items()])
            spans = (span,) if pieces else ()
            reported = [ProcessRegions(PROCESS, GROUP, uses, spans, ended=ended)]
        self.accounts.post(reported, {"cpu": self.now}, lambda _: self.joules, lambda *_: self.owner, self.now, born)

    def counted(self, kind: str) -> dict[str, float]:
        """What is published of a kind, by region."""
        return {row.region: row.total for row in self.accounts.view().counts if row.kind == kind}


def test_joules_of_the_end_of_a_program_are_those_since_it_connected() -> None:
    bench = Bench()
    bench.tick(0.0, 0.0, [])
    for _ in range(5):
        bench.tick(1.0, 10.0, [(0.5, "a"), (0.25, "b"), (0.25, "a")])
    bench.tick(1.0, 0.0, ended=True)
    assert bench.counted("cpu") == pytest.approx({"a": 37.5, "b": 12.5})
    assert not bench.accounts.active


def test_joules_of_time_of_which_nothing_is_known_are_of_no_region() -> None:
    bench = Bench()
    bench.tick(0.0, 0.0, [])
    bench.tick(1.0, 10.0, [(0.5, "a")])
    bench.tick(1.0, 0.0, ended=True)
    assert bench.counted("cpu") == pytest.approx({"a": 5.0})


def test_a_program_whose_container_is_named_after_its_end() -> None:
    bench = Bench(owner=None)
    bench.tick(0.0, 0.0, [])
    bench.tick(1.0, 10.0, [(1.0, "a")], runs={"a": 3})
    bench.tick(1.0, 0.0, ended=True)
    assert bench.accounts.view().counts == ()
    bench.owner = MODEL
    bench.tick(1.0, 0.0)
    assert bench.counted("cpu") == pytest.approx({"a": 10.0})
    assert bench.counted("runs") == {"a": 3}
    assert not bench.accounts.active


def test_a_program_whose_container_never_has_a_name_is_of_no_model() -> None:
    bench = Bench(owner=None)
    bench.tick(0.0, 0.0, [])
    bench.tick(1.0, 10.0, [(1.0, "a")])
    bench.tick(1.0, 0.0, ended=True)
    bench.tick(HOLD_SECONDS, 0.0)
    assert {row.owner for row in bench.accounts.view().counts} == {("", "")}
    assert bench.counted("cpu") == pytest.approx({"a": 10.0})
    assert not bench.accounts.active


def test_at_the_end_of_the_exporter_what_waits_for_a_name_is_of_no_model() -> None:
    bench = Bench(owner=None)
    bench.tick(0.0, 0.0, [])
    bench.tick(1.0, 10.0, [(1.0, "a")], runs={"a": 3})
    bench.tick(1.0, 0.0, [(1.0, "a")])
    bench.accounts.settle()
    saved = bench.accounts.saved(whole=True)
    assert saved is not None
    assert saved.cells[("a", ("", ""), "runs")] == 3
    assert saved.cells[("a", ("", ""), "cpu")] == pytest.approx(10.0)


def test_a_counter_is_at_0_until_it_was_scraped() -> None:
    bench = Bench()
    bench.tick(1.0, 10.0, [(1.0, "a")], runs={"a": 3}, born=8)
    assert bench.counted("runs") == {"a": 0}
    bench.accounts.release(7)
    assert bench.counted("runs") == {"a": 0}
    bench.accounts.release(8)
    assert bench.counted("runs") == {"a": 3}


def test_further_names_of_a_model_are_one_region() -> None:
    bench = Bench()
    for number in range(3 * MAX_REGIONS):
        bench.tick(0.0, 0.0, [], runs={f"name {number}": 1})
    counted = bench.counted("runs")
    assert len(counted) <= MAX_REGIONS + 1
    assert counted[OTHER] == 2 * MAX_REGIONS
    assert sum(counted.values()) == 3 * MAX_REGIONS


def test_counters_are_kept_while_used_and_for_a_while_and_across_a_restart() -> None:
    bench = Bench()
    bench.tick(1.0, 10.0, [(1.0, "a")], runs={"a": 3})
    saved = bench.accounts.saved(whole=True)
    assert saved is not None
    assert bench.accounts.saved(whole=False) is None
    again = Bench()
    again.accounts.restore(saved, again.now)
    again.tick(1.0, 0.0, [(1.0, "a")], runs={"a": 2})
    assert again.counted("runs") == {"a": 5}
    again.accounts.keep(again.now)
    assert again.counted("runs") == {"a": 5}
    again.accounts.keep(again.now + 1.0)
    assert again.accounts.view().counts == ()


def test_watts_of_so_many_programs_are_learned_and_joules_of_all_are_divided() -> None:
    accounts, random, now = RegionAccounts(), Random(1), 100.0
    programs = [Process(ProcessKey(pid, 1), "python") for pid in range(MAX_LEARNED + 3)]
    for _ in range(40):
        busy = random.uniform(0.2, 0.8)
        span = RegionSpan(now, (RegionPiece(busy, (("a", busy),)), RegionPiece(1.0 - busy, (("b", 1.0 - busy),))))
        now += 1.0
        joules: dict[Component, float] = {"gpu": 300.0 * (now - 100.0)}
        accounts.post(
            [ProcessRegions(program, GROUP, (), (span,)) for program in programs],
            {"gpu": now},
            {program.key: joules for program in programs}.get,
            lambda process, _: (str(process.key.pid), ""),
            now,
            None,
        )
    view = accounts.view()
    assert len({row.owner for row in view.watts}) == MAX_LEARNED
    by_owner = {
        owner: sum(row.total for row in view.counts if row.owner == owner and row.kind == "gpu")
        for owner in {row.owner for row in view.counts}
    }
    for program in programs[MAX_LEARNED:]:
        assert by_owner[str(program.key.pid), ""] == pytest.approx(300.0 * 38.0, rel=0.05), "at once, by time"


@example([(1.0, [(0.0625, "a")])])
@given(
    st.lists(
        st.tuples(
            st.floats(0.0, 500.0),
            st.lists(st.tuples(st.floats(0.001, 2.0), st.sampled_from(["a", "b", OUTSIDE_REGIONS])), max_size=4),
        ),
        max_size=50,
    )
)
def test_regions_never_have_more_than_their_process(ticks: list[tuple[float, Pieces]]) -> None:
    bench = Bench()
    bench.tick(0.0, 0.0, [])
    before = 0.0
    for joules, pieces in ticks:
        bench.tick(max(SHORTEST_TICK, sum(length for length, _ in pieces)), joules, pieces)
        counted = sum(bench.counted("cpu").values())
        assert counted >= before
        before = counted
    bench.tick(1.0, 0.0, ended=True)
    whole = sum(joules for joules, _ in ticks)
    counted = sum(bench.counted("cpu").values())
    assert before <= counted <= whole * (1 + 1e-12)
    if all(
        sum(length for length, _ in pieces) >= SHORTEST_TICK and OUTSIDE_REGIONS not in {name for _, name in pieces}
        for _, pieces in ticks
    ):  # regions fill all ticks
        assert counted == pytest.approx(whole, rel=1e-6)
