"""Names may come late: energy is attributed at once, exposed under one name only, and never lost or counted twice."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from exporter.accounting.attribution import Energy
from exporter.accounting.checkpoint import State, decode, encode
from exporter.accounting.containers import NAMING_SECONDS, OVERFLOW
from exporter.accounting.ledger import Ledger, Limits
from exporter.records import GroupKey, Model, Process, ProcessOwner, Workload
from exporter.snapshot import AccountRow
from exporter.workloads.protocol import Namer
from tests.support.ledger_bench import PACKAGE, Bench, group, process, use

A, B = group("a"), group("b")


class LateNames(Namer):
    """Returns the name that the test sets for a group, and until then only its path."""

    def __init__(self) -> None:
        self.names: dict[GroupKey, Workload] = {}
        self.models: dict[int, Model] = {}
        self.news: set[GroupKey] = set()
        self.remembered: set[GroupKey] = set()
        self.earlier: dict[str, Workload] = {}

    def tell(self, group: GroupKey, pod: str, *, container: str = "main", **more: Any) -> None:
        self.names[group] = Workload("team", pod, container, "kubernetes", _id(group), "", **more)
        self.news.add(group)

    def workload(self, group: GroupKey) -> Workload:
        self.remembered.add(group)
        by_path = Workload("", "uid", _id(group), "kubernetes", _id(group), provisional=True)
        return self.names.get(group, self.earlier.get(_id(group), by_path))

    def model(self, group: GroupKey | None, process: Process) -> Model | None:
        return self.models.get(process.key.pid)

    def renamed(self) -> set[GroupKey]:
        news, self.news = self.news, set()
        return news

    def remember(self, workload: Workload) -> None:
        self.earlier[workload.container_id] = workload

    def forget(self, group: GroupKey) -> None:
        self.remembered.discard(group)


def _id(group: GroupKey) -> str:
    return f"{group.path.rpartition('/')[2]}-{group.inode}"


def late(limits: Limits | None = None) -> tuple[Bench, LateNames]:
    names = LateNames()
    return Bench(limits, names), names


def burn(joules: float) -> list[Energy]:
    return [Energy(PACKAGE, joules, 0.0)]


def shown(ledger: Ledger) -> dict[tuple[str, str], float]:
    return {row.owner[1:3]: sum(row.joules) for row in ledger.containers() if isinstance(row.owner, Workload)}


def error(bench: Bench) -> float:
    """Relative difference between the device's joules and all that is published."""
    ledger = bench.ledger
    given = bench.node_joules["cpu"]
    exposed = sum(shown(ledger).values()) + ledger.unnamed().get("cpu", 0.0)
    exposed += ledger.retired["cpu"] + sum(ledger.unattributed.values())
    return abs(exposed - given) / (given or 1.0)


def test_a_late_name_makes_no_second_series_and_loses_nothing() -> None:
    bench, names = late()
    bench.tick([use(A, 1.0)], started=[A], energies=burn(10.0))
    assert shown(bench.ledger) == {}
    assert bench.ledger.unnamed() == {"cpu": 10.0}
    assert error(bench) < 1e-12
    names.tell(A, "llama-0")
    bench.tick([use(A, 1.0)], energies=burn(5.0))
    assert shown(bench.ledger) == {("llama-0", "main"): 15.0}
    assert bench.ledger.unnamed() == {}


class ByProcess(LateNames):
    """Learns the name of a group from a process in it."""

    def learn(self, group: GroupKey | None, process: Process) -> None:
        assert group is not None
        self.tell(group, process.comm)


def test_a_container_without_a_name_is_named_by_its_processes() -> None:
    bench = Bench(None, ByProcess())
    bench.tick([use(A, 1.0)], started=[A], energies=burn(10.0))
    bench.tick([use(A, 1.0, (process(1, "mine"), 0.5))], energies=burn(5.0))
    bench.tick([use(A, 1.0)], energies=burn(1.0))
    assert shown(bench.ledger) == {("mine", "main"): 16.0}


def test_a_name_that_does_not_come_is_not_waited_for_forever() -> None:
    bench, names = late()
    bench.tick([use(A, 1.0)], started=[A], energies=burn(10.0))
    bench.tick(seconds=NAMING_SECONDS + 1)
    assert shown(bench.ledger) == {("uid", "a-1"): 10.0}
    names.tell(A, "llama-0")
    bench.tick([use(A, 1.0)], energies=burn(5.0))
    assert shown(bench.ledger) == {("llama-0", "main"): 15.0}, "all joules go along: a sum over both stays right"
    assert error(bench) < 1e-12


def test_a_container_restarted_under_the_same_name_goes_on_in_its_series() -> None:
    """Fault 40."""
    bench, names = late()
    names.tell(A, "llama-0")
    bench.tick([use(A, 1.0)], started=[A], energies=burn(10.0))
    bench.tick([use(B, 1.0)], started=[B], ended=[A], energies=burn(7.0))
    assert shown(bench.ledger) == {("llama-0", "main"): 10.0}
    names.tell(B, "llama-0")
    bench.tick([use(B, 1.0)], energies=burn(1.0))
    assert shown(bench.ledger) == {("llama-0", "main"): 18.0}


def test_nested_groups_of_one_container_move_together() -> None:
    bench, names = late()
    inner = GroupKey("/docker/a", 2)
    for one in (A, inner):
        names.names[one] = Workload("", "uid", "a", "kubernetes", "a", provisional=True)
    bench.tick([use(A, 1.0), use(inner, 3.0)], started=[A, inner], energies=burn(40.0))
    names.tell(A, "llama-0")
    names.tell(inner, "llama-0")
    bench.tick([use(A, 1.0)], energies=burn(2.0))
    assert shown(bench.ledger) == {("llama-0", "main"): 42.0}
    bench.tick(ended=[A])
    bench.tick([use(inner, 1.0)], energies=burn(1.0))
    assert shown(bench.ledger) == {("llama-0", "main"): 43.0}


def test_a_container_that_ended_before_its_name_came_still_gets_it() -> None:
    """Fault 42: a pod of two seconds is a pod all the same."""
    bench, names = late()
    bench.tick([use(A, 1.0)], started=[A], energies=burn(10.0))
    bench.tick(ended=[A])
    assert A in names.remembered
    names.tell(A, "job-x")
    bench.tick()
    assert shown(bench.ledger) == {("job-x", "main"): 10.0}
    assert A not in names.remembered
    bench.tick(seconds=400)
    assert shown(bench.ledger) == {}
    assert error(bench) < 1e-12


def test_all_groups_of_a_container_that_ended_unnamed_go_together() -> None:
    """CRI-O with crun has two groups for each container; its name did not arrive before or in time after its end."""
    bench, names = late()
    inner = GroupKey("/docker/a/container", 2)
    for one in (A, inner):
        names.names[one] = Workload("", "uid", "a", "kubernetes", "a", provisional=True)
    bench.tick([use(A, 1.0), use(inner, 3.0)], started=[A, inner], energies=burn(40.0))
    names.remembered |= {A, inner}
    bench.tick(ended=[A, inner])
    bench.tick(seconds=NAMING_SECONDS + 1)
    assert shown(bench.ledger) == {("uid", "a"): 40.0}
    assert names.remembered == set()
    assert error(bench) < 1e-12


def test_what_moved_to_its_name_is_saved_once() -> None:
    """Fault 53: killed before the next full checkpoint, nothing is attributed twice."""
    bench, names = late()
    bench.tick([use(A, 1.0)], started=[A], energies=burn(10.0))
    saved = encode(State("b", 0.0, ledger=bench.ledger.state()), whole=True)
    bench.ledger.take_closed()
    for tell in (False, True, False):
        if tell:
            names.tell(A, "llama-0")
        changed = bench.tick([use(A, 1.0)], energies=burn(5.0))
        state = bench.ledger.totals()
        state.accounts = [account.saved() for account in changed]
        saved += encode(State("b", bench.now, ledger=state, closed=bench.ledger.take_closed()), whole=False)
    again = Bench(None, LateNames())
    again.ledger.restore(decode(saved).ledger, 0.0, same_boot=True)
    again.node_joules.update(bench.node_joules)
    assert again.error_ratio() < 1e-12


def test_processes_are_shown_under_the_containers_name_only() -> None:
    bench, names = late()
    for _ in range(8):
        bench.tick([use(A, 1.0, (process(7), 1.0))], started=[A], energies=burn(10.0))
        assert not bench.ledger.processes()
    names.tell(A, "llama-0")
    for _ in range(6):
        bench.tick([use(A, 1.0, (process(7), 1.0))], energies=burn(10.0))
    (row,) = bench.ledger.processes()
    assert row.owner == ProcessOwner(7, "worker", "team", "llama-0", "main")
    assert row.joules == (140.0,)


def test_a_process_on_show_takes_the_new_name_with_its_joules() -> None:
    bench, names = late()
    names.tell(A, "old")
    bench.tick([use(A, 1.0, (process(7), 1.0))], started=[A], energies=burn(10.0))
    names.tell(A, "new")
    bench.tick([use(A, 1.0, (process(7), 1.0))], energies=burn(10.0))
    (row,) = bench.ledger.processes()
    assert isinstance(row.owner, ProcessOwner)
    assert (row.owner.pod, row.joules) == ("new", (20.0,))
    assert shown(bench.ledger) == {("new", "main"): 20.0}


def models(ledger: Ledger) -> dict[str, float]:
    return {row.owner.model_name: sum(row.joules) for row in ledger.models() if isinstance(row.owner, Model)}


def test_a_late_model_is_charged_with_what_its_process_used_before() -> None:
    bench, names = late()
    names.tell(A, "llama-0")
    bench.tick([use(A, 1.0, (process(7), 1.0))], started=[A], energies=burn(10.0))
    assert models(bench.ledger) == {}
    names.models[7] = Model("llama", "team", "inference", "server")
    names.news.add(A)
    bench.tick([use(A, 1.0, (process(7), 1.0))], energies=burn(5.0))
    assert models(bench.ledger) == {"llama": 15.0}


def test_a_model_waits_for_the_name_of_its_container() -> None:
    """Its namespace is the container's: exposed too early it would be a separate series without a namespace."""
    bench, names = late()
    names.models[7] = Model("llama", "", "inference", "command")
    bench.tick([use(A, 1.0, (process(7), 1.0))], started=[A], energies=burn(10.0))
    assert models(bench.ledger) == {}
    names.models[7] = Model("llama", "team", "inference", "command")
    names.tell(A, "llama-0")
    bench.tick([use(A, 1.0, (process(7), 1.0))], energies=burn(5.0))
    (row,) = bench.ledger.models()
    assert (row.owner, row.joules) == (names.models[7], (15.0,))


def test_a_model_that_changes_keeps_what_it_was_charged_with() -> None:
    bench, names = late()
    names.tell(A, "llama-0")
    names.models[7] = Model("llama", "team", "inference", "command")
    bench.tick([use(A, 1.0, (process(7), 1.0))], started=[A], energies=burn(10.0))
    names.models[7] = Model("mistral", "team", "inference", "label")
    names.news.add(A)
    bench.tick([use(A, 1.0, (process(7), 1.0))], energies=burn(5.0))
    assert models(bench.ledger) == {"llama": 10.0, "mistral": 5.0}
    assert len(bench.ledger.container_models()) == 1


def test_a_restart_knows_the_names_of_containers_that_were_known() -> None:
    """While the API is down, containers that were named before keep their series."""
    bench, names = late()
    names.tell(A, "llama-0", labels=(("app", "llama"),))
    bench.tick([use(A, 1.0)], started=[A], energies=burn(10.0))
    again = Bench(None, LateNames())
    again.ledger.restore(bench.ledger.state(), 0.0, same_boot=True)
    again.node_joules.update(bench.node_joules)
    again.tick([use(A, 1.0)], started=[A], energies=burn(2.0))
    assert shown(again.ledger) == {("llama-0", "main"): 12.0}


def test_a_restart_goes_on_waiting_for_a_name() -> None:
    bench, _ = late()
    bench.tick([use(A, 1.0)], started=[A], energies=burn(10.0))
    names = LateNames()
    again = Bench(None, names)
    again.ledger.restore(bench.ledger.state(), 0.0, same_boot=True)
    again.node_joules.update(bench.node_joules)
    again.tick([use(A, 1.0)], started=[A], energies=burn(2.0))
    assert shown(again.ledger) == {}
    names.tell(A, "llama-0")
    again.tick([use(A, 1.0)], energies=burn(1.0))
    assert shown(again.ledger) == {("llama-0", "main"): 13.0}
    assert error(again) < 1e-12


def test_an_unnamed_container_gone_at_the_restart_is_retired() -> None:
    bench, _ = late()
    bench.tick([use(A, 1.0)], started=[A], energies=burn(10.0))
    again = Bench(None, LateNames())
    again.ledger.restore(bench.ledger.state(), 0.0, same_boot=True)
    again.node_joules.update(bench.node_joules)
    again.tick(seconds=400)
    again.tick(seconds=10)
    assert again.ledger.retired["cpu"] == 10.0
    assert error(again) < 1e-12


def test_names_beyond_the_budget_share_one_row() -> None:
    """Fault 66."""
    bench, names = late(Limits(container_max=1))
    bench.tick([use(A, 1.0), use(B, 1.0)], started=[A, B], energies=burn(10.0))
    names.tell(A, "one")
    names.tell(B, "two")
    bench.tick([use(B, 1.0)], energies=burn(10.0))
    assert sum(shown(bench.ledger).values()) == 20.0
    assert (OVERFLOW.pod, OVERFLOW.container) in shown(bench.ledger)
    assert error(bench) < 1e-12


class Naming(RuleBasedStateMachine):
    """Containers come, burn, end and are named in any order, several under one name."""

    groups = st.integers(0, 5)

    def __init__(self) -> None:
        super().__init__()
        self.bench, self.names = late(Limits(linger_seconds=60.0, container_max=4))
        self.alive: set[GroupKey] = set()
        self.inode = 0
        self.rows: dict[tuple[str, ...], AccountRow] = {}
        self.ever: defaultdict[str, set[str]] = defaultdict(set)

    @rule(number=groups)
    def come(self, number: int) -> None:
        self.inode += 1
        new = group(f"c{number}", self.inode)
        self.alive.add(new)
        self.bench.tick(started=[new], energies=burn(1.0))

    @rule(number=groups)
    def end(self, number: int) -> None:
        gone = {one for one in self.alive if one.path.endswith(f"c{number}")}
        self.alive -= gone
        self.bench.tick(ended=gone, energies=burn(1.0))

    @rule(seconds=st.sampled_from((1.0, 7.0, NAMING_SECONDS + 1, 90.0)), work=st.floats(0.01, 4.0))
    def burn(self, seconds: float, work: float) -> None:
        uses = [use(one, work, (process(one.inode), work / 2)) for one in self.alive]
        self.bench.tick(uses, energies=burn(100.0 * work), seconds=seconds)

    @rule(number=groups, pod=st.sampled_from(("p", "q", "r")))
    def name(self, number: int, pod: str) -> None:
        for one in [one for one in self.names.remembered if one.path.endswith(f"c{number}")]:
            if one not in self.names.names:
                self.names.tell(one, pod)
        self.bench.tick(energies=burn(1.0))

    @invariant()
    def everything_is_there_once(self) -> None:
        assert error(self.bench) < 1e-9

    @invariant()
    def counters_do_not_fall(self) -> None:
        rows: dict[tuple[str, ...], AccountRow] = {
            row.owner[:4]: row for row in self.bench.ledger.containers() if isinstance(row.owner, Workload)
        }
        assert len(rows) == len(self.bench.ledger.containers())
        for key, row in rows.items():
            before = self.rows.get(key)
            if before is not None and before.serial == row.serial:
                assert sum(row.joules) >= sum(before.joules) - 1e-9
        self.rows = rows

    @invariant()
    def nothing_is_remembered_of_what_is_gone(self) -> None:
        if not self.bench.ledger.unnamed():
            assert self.names.remembered <= self.alive


TestNaming = Naming.TestCase
TestNaming.settings = settings(max_examples=60, stateful_step_count=25, deadline=None)
