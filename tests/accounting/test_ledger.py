"""Accounts only grow, survive their members, and together hold exactly what the devices gave."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from itertools import pairwise

import pytest

from exporter.accounting.attribution import Energy
from exporter.accounting.checkpoint import State, decode, encode
from exporter.accounting.ledger import Limits
from exporter.accounting.processes import ENDED_ON_GPU, ENDED_PER_TOP
from exporter.records import HOST, GpuUse, GroupKey, Model, Process, ProcessOwner, Workload
from tests.support.ledger_bench import DRAM, GPU, PACKAGE, Bench, PathNames, group, process, use

A, B = group("a"), group("b")


def owners(bench: Bench) -> set[str]:
    return {row.owner.container for row in bench.ledger.containers() if isinstance(row.owner, Workload)}


def comms(bench: Bench) -> set[str]:
    return {row.owner.comm for row in bench.ledger.processes() if isinstance(row.owner, ProcessOwner)}


def test_container_starts_at_zero_and_grows() -> None:
    bench = Bench()
    bench.tick(started=[A], energies=[Energy(PACKAGE, 0.0, 10.0)])
    bench.tick([use(A, 1.0)], energies=[Energy(PACKAGE, 30.0, 10.0)])
    first = bench.ledger.containers()[0]
    assert first.cells == (("cpu", "active"),)
    assert first.joules == (30.0,)
    assert (first.components, first.watts) == (("cpu",), (30.0,))
    assert (first.busy_components, first.ratios) == (("cpu",), (0.25,))
    bench.tick(energies=[Energy(PACKAGE, 0.0, 10.0)])
    second = bench.ledger.containers()[0]
    assert second.joules == (30.0,)
    assert second.watts == (0.0,)
    bench.tick(energies=[Energy(PACKAGE, 0.0, 10.0)])
    assert bench.ledger.containers()[0] is second, "an account that did not change keeps its row"


def test_weights_price_the_seconds_of_a_container_its_processes_and_its_model() -> None:
    """Utilisation stays what it was; the next tick is weighed anew."""
    bench = Bench()
    worker, other = process(7, "serve-llama"), process(8)
    bench.tick(started=[A, B])
    for _ in range(2):
        uses = [use(A, 1.0, (worker, 0.75)), use(B, 2.0, (other, 1.0))]
        energies = [Energy(PACKAGE, 70.0, 5.0), Energy(DRAM, 7.0, 0.0)]
        bench.tick(uses, energies=energies, kernel=1.0, cpu_weights={A: 2.0, B: 0.5})
    a, b = bench.ledger.containers()
    assert (*a.joules, *b.joules) == pytest.approx((70.0, 7.0, 35.0, 3.5))
    assert (*a.watts, *b.watts) == pytest.approx((35.0, 3.5, 17.5, 1.75))
    assert (a.ratios, b.ratios) == ((0.25,), (0.5,))
    assert [row.joules[0] for row in bench.ledger.processes()] == pytest.approx([52.5, 17.5])
    assert [row.joules[0] for row in bench.ledger.models()] == pytest.approx([70.0])
    assert bench.ledger.unattributed["cpu", "kernel"] == pytest.approx(35.0)
    assert bench.error_ratio() < 1e-12
    bench.tick([use(A, 1.0), use(B, 2.0)], energies=[Energy(PACKAGE, 30.0, 0.0)])
    assert [row.joules[0] for row in bench.ledger.containers()] == pytest.approx([80.0, 55.0])


def test_started_group_is_shown_at_zero() -> None:
    """Prometheus needs a first sample at 0, or it never counts what came before the second."""
    bench = Bench()
    bench.tick([use(B, 1.0)], started=[A, B], energies=[Energy(PACKAGE, 10.0, 0.0)])
    assert bench.container_joules() == {"a": 0.0, "b": 10.0}


def test_no_watts_without_a_meter() -> None:
    """Fault 17: busy seconds are known, joules are not: absent, not 0."""
    bench = Bench()
    bench.tick([use(A, 2.0)], started=[A])
    (row,) = bench.ledger.containers()
    assert (row.cells, row.watts, row.ratios) == ((), (), (0.5,))


def test_watts_vanish_with_the_meter_and_return() -> None:
    """Fault 8."""
    bench = Bench()
    bench.tick([use(A, 1.0)], started=[A], energies=[Energy(PACKAGE, 10.0, 0.0)])
    bench.tick([use(A, 1.0)])
    assert bench.ledger.containers()[0].watts == ()
    assert bench.ledger.containers()[0].joules == (10.0,)
    bench.tick([use(A, 1.0)], energies=[Energy(PACKAGE, 10.0, 0.0)])
    assert bench.ledger.containers()[0].watts == (10.0,)


def test_exited_processes_stay_with_the_container() -> None:
    """Fault 35."""
    bench = Bench()
    bench.tick([use(A, 1.0, (process(7), 0.25))], started=[A], energies=[Energy(PACKAGE, 40.0, 0.0)])
    assert bench.container_joules() == {"a": 40.0}
    assert bench.ledger.processes()[0].joules == (10.0,)


def test_ended_container_lingers_then_retires() -> None:
    """Fault 42: a ghost expires, and its joules are not lost."""
    bench = Bench(Limits(linger_seconds=300.0))
    bench.tick([use(A, 1.0)], started=[A, B], energies=[Energy(PACKAGE, 40.0, 0.0)])
    bench.tick(ended=[A], energies=[Energy(PACKAGE, 0.0, 5.0)])
    for _ in range(29):
        bench.tick(seconds=10.0, energies=[Energy(PACKAGE, 0.0, 50.0)])
    assert owners(bench) == {"a", "b"}
    for _ in range(2):
        bench.tick(seconds=10.0, energies=[Energy(PACKAGE, 0.0, 50.0)])
    assert owners(bench) == {"b"}
    assert bench.ledger.retired == {"cpu": 40.0}
    assert bench.error_ratio() < 1e-12


def test_restarted_container_goes_on() -> None:
    """Faults 39 and 40: the same labels are one series, never two, and it does not fall."""
    bench = Bench()
    bench.tick([use(A, 1.0)], started=[A], energies=[Energy(PACKAGE, 40.0, 0.0)])
    again = group("a", inode=2)
    bench.tick([use(again, 1.0)], started=[again], ended=[A], energies=[Energy(PACKAGE, 2.0, 0.0)])
    assert bench.container_joules() == {"a": 42.0}
    (row,) = bench.ledger.containers()
    assert isinstance(row.owner, Workload)
    assert row.owner.container_id == "a-2"


def test_pid_reuse_inherits_nothing() -> None:
    """Fault 34."""
    bench = Bench()
    bench.tick([use(A, 1.0, (process(7, "x", 1), 1.0))], started=[A], energies=[Energy(PACKAGE, 40.0, 0.0)])
    bench.tick(
        [use(A, 1.0, (process(7, "x", 99), 1.0))], exited=[process(7, "x", 1).key], energies=[Energy(PACKAGE, 3.0, 0.0)]
    )
    for _ in range(6):
        bench.tick(energies=[Energy(PACKAGE, 0.0, 1.0)])
    (row,) = bench.ledger.processes()
    assert row.joules == (3.0,)


def test_process_that_moves_starts_a_new_series() -> None:
    """Fault 41: no joule on both containers."""
    bench = Bench()
    worker = process(7)
    bench.tick([use(A, 1.0, (worker, 1.0))], started=[A, B], energies=[Energy(PACKAGE, 40.0, 0.0)])
    for _ in range(6):
        bench.tick([use(B, 1.0, (worker, 1.0))], energies=[Energy(PACKAGE, 10.0, 0.0)])
    (row,) = bench.ledger.processes()
    assert isinstance(row.owner, ProcessOwner)
    assert (row.owner.container, row.joules) == ("b", (60.0,))
    assert bench.container_joules() == {"a": 40.0, "b": 60.0}


def test_renamed_process_keeps_one_series() -> None:
    bench = Bench()
    bench.tick([use(A, 1.0, (process(7, "bash"), 1.0))], started=[A], energies=[Energy(PACKAGE, 4.0, 0.0)])
    for _ in range(6):
        bench.tick([use(A, 1.0, (process(7, "python"), 1.0))], energies=[Energy(PACKAGE, 4.0, 0.0)])
    assert comms(bench) == {"python"}


def test_top_processes_with_hysteresis() -> None:
    """Fault 37: N are shown; neighbours in the ranking do not push each other in and out."""
    bench = Bench(Limits(process_top=2))
    workers = [process(pid, f"p{pid}") for pid in range(1, 6)]
    order: list[set[str]] = []
    for tick in range(120):
        # p2 and p3 change places all the time; p4 and p5 are far below.
        shares = [0.4, 0.2 + 0.1 * (tick % 20 < 10), 0.2 + 0.1 * (tick % 20 >= 10), 0.01, 0.005]
        uses = [(worker, seconds) for worker, seconds in zip(workers, shares, strict=True)]
        bench.tick([use(A, sum(shares), *uses)], started=[A], energies=[Energy(PACKAGE, 100.0, 0.0)])
        order.append(comms(bench))
    assert {"p4", "p5"}.isdisjoint({comm for shown in order[10:] for comm in shown})
    assert all(len(shown) <= 3 for shown in order)
    changes = sum(before != after for before, after in pairwise(order[10:]))
    assert changes <= 2


def test_hidden_process_counts_its_whole_life_when_shown() -> None:
    bench = Bench(Limits(process_top=1))
    big, small = process(1, "big"), process(2, "small")
    for _ in range(10):
        bench.tick([use(A, 2.0, (big, 1.5), (small, 0.5))], started=[A], energies=[Energy(PACKAGE, 20.0, 0.0)])
    assert comms(bench) == {"big"}
    bench.tick(exited=[big.key])
    for _ in range(10):
        bench.tick([use(A, 0.5, (small, 0.5))], energies=[Energy(PACKAGE, 5.0, 0.0)])
    rows = {r.owner.comm: r for r in bench.ledger.processes() if isinstance(r.owner, ProcessOwner)}
    assert rows["small"].joules == (100.0,)
    assert rows["big"].joules == (150.0,), "an ended process stays on show until it expires"


def test_processes_that_come_and_go_do_not_pile_up_on_show() -> None:
    """Faults 36 and 43: each is the busiest while it runs; of those that ended only the last ones stay."""
    bench = Bench(Limits(process_top=2))
    last = process(0)
    for pid in range(1, 101):
        brief = process(pid, f"p{pid}")
        bench.tick([use(A, 1.0, (brief, 1.0))], started=[A], exited=[last.key], energies=[Energy(PACKAGE, 40.0, 0.0)])
        last = brief
    shown = sorted(int(comm.removeprefix("p")) for comm in comms(bench))
    assert ENDED_PER_TOP * 2 <= len(shown) <= ENDED_PER_TOP * 2 + 3, "and those that run, up to 1.5 times the top"
    assert shown[0] >= 50, "the oldest went first"


def gpu_use(worker: Process, seconds: float = 0.5) -> GpuUse:
    return GpuUse(GPU.id, A, worker, seconds)


@pytest.mark.parametrize("exits_reported", [True, False])
@pytest.mark.parametrize("top", [0, 5])
def test_gpu_processes_that_come_and_go_do_not_pile_up_on_show(top: int, exits_reported: bool) -> None:
    """Faults 36 and 43: a trainer forks short ones; active ones are all exposed, with or without reported exits."""
    bench = Bench(Limits(process_top=top))
    bench.tick(started=[A])
    trainers = [process(pid, "trainer") for pid in range(1, 31)]
    last: list[Process] = []
    for number in range(100):
        brief = [process(1_000 + 10 * number + n, f"b{number}") for n in range(10)]
        bench.tick(
            energies=[Energy(GPU, 200.0, 60.0)],
            gpu_uses=[gpu_use(worker) for worker in (*trainers, *brief)],
            exited=[worker.key for worker in last] if exits_reported else (),
            seconds=5.0,
        )
        last = brief
    pids = [row.owner.pid for row in bench.ledger.processes() if isinstance(row.owner, ProcessOwner)]
    assert {worker.key.pid for worker in (*trainers, *last)} <= set(pids)
    ended = sorted(set(pids) - {worker.key.pid for worker in (*trainers, *last)})
    unnoticed = 0 if exits_reported else 20  # in 10 s
    assert ENDED_ON_GPU <= len(ended) <= ENDED_ON_GPU + unnoticed
    assert ended == list(range(1_990 - len(ended), 1_990)), "the oldest went first"
    assert bench.container_joules() == {"a": pytest.approx(100 * 260.0)}
    assert bench.error_ratio() < 1e-12


def test_a_storm_of_processes_does_not_push_out_those_that_ended_on_a_gpu() -> None:
    """Fault 36: of a trainer's end the next scrape must still see the last joules; of memory's end too (fault 59)."""
    bench = Bench(Limits(process_top=2))
    trainer = process(1, "trainer")
    for _ in range(2):
        bench.tick(energies=[Energy(GPU, 100.0, 0.0)], gpu_uses=[gpu_use(trainer)], started=[A], seconds=5.0)
    last = trainer
    for pid in range(2, 40):
        bench.ledger.shed_processes = pid > 30
        brief = process(pid, "sh")
        bench.tick([use(A, 1.0, (brief, 1.0))], exited=[last.key], energies=[Energy(PACKAGE, 400.0, 0.0)], seconds=5.0)
        last = brief
    assert comms(bench) == {"trainer"}


def test_a_driver_that_names_nobody_ends_nobody() -> None:
    """Fault 23: while it hangs all its processes stay on show, however many they are."""
    bench = Bench()
    workers = [process(pid, "worker") for pid in range(1, ENDED_ON_GPU + 51)]
    for _ in range(2):
        bench.tick(
            energies=[Energy(GPU, 100.0, 0.0)],
            gpu_uses=[gpu_use(worker, 0.001) for worker in workers],
            started=[A],
            seconds=5.0,
        )
    for _ in range(20):
        bench.tick(energies=[Energy(GPU, 0.0, 0.0, 100.0)], seconds=5.0)
    assert len(bench.ledger.processes()) == len(workers)


def test_memory_shed_shows_no_processes() -> None:
    """Fault 59."""
    bench = Bench()
    bench.tick([use(A, 1.0, (process(7), 1.0))], started=[A], energies=[Energy(PACKAGE, 40.0, 0.0)])
    assert bench.ledger.processes()
    bench.ledger.shed_processes = True
    for _ in range(6):
        bench.tick([use(A, 1.0, (process(7), 1.0))], energies=[Energy(PACKAGE, 4.0, 0.0)])
    assert not bench.ledger.processes()
    assert bench.ledger.dropped()["process"] == 1


def test_series_budget_folds_into_other() -> None:
    """Fault 66: beyond the budget joules are folded, not lost."""
    bench = Bench(Limits(container_max=3))
    keys = [group(f"c{number}") for number in range(10)]
    bench.tick([use(key, 0.1) for key in keys], started=keys, energies=[Energy(PACKAGE, 10.0, 0.0)])
    joules = bench.container_joules()
    assert joules["other"] == pytest.approx(7.0)
    assert len(joules) == 4
    assert bench.ledger.dropped()["container"] >= 7
    assert bench.error_ratio() < 1e-12


def test_gpu_joules_reach_process_container_and_model() -> None:
    bench = Bench()
    bench.tick(started=[A, B])
    for _ in range(3):
        bench.tick(
            energies=[Energy(GPU, 200.0, 60.0)],
            gpu_uses=[
                GpuUse(GPU.id, A, process(1, "serve-llama"), 0.75),
                GpuUse(GPU.id, B, process(2, "serve-qwen"), 0.25),
            ],
        )
    models = {row.owner.model_name: row for row in bench.ledger.models() if isinstance(row.owner, Model)}
    llama = dict(zip(models["llama"].cells, models["llama"].joules, strict=True))
    assert llama == {("gpu", "active"): 450.0, ("gpu", "idle"): 90.0}
    assert models["llama"].ratios == (0.75,)
    assert bench.container_joules() == {"a": 540.0, "b": 240.0}
    assert {row.watts for row in bench.ledger.processes()} == {(180.0,), (80.0,)}
    assert bench.error_ratio() < 1e-12


def test_a_gpu_process_shown_late_shows_this_ticks_watts_not_the_sum_of_all_before() -> None:
    bench = Bench()
    bench.tick([use(A, 1.0, (process(9), 1.0))], started=[A], energies=[Energy(PACKAGE, 1.0, 0.0)])
    uses = [GpuUse(GPU.id, A, process(1), 0.5), GpuUse(GPU.id, A, process(2), 0.5)]
    for _ in range(7):
        bench.tick(energies=[Energy(GPU, 100.0, 0.0)], gpu_uses=uses)
        rows = [row for row in bench.ledger.processes() if "gpu" in row.components]
        assert all((row.watts, row.ratios) == ((50.0,), (0.5,)) for row in rows)
    assert len(rows) == 2


def test_gpu_process_in_no_known_group_is_nobodys() -> None:
    bench = Bench()
    bench.tick(energies=[Energy(GPU, 50.0, 20.0)], gpu_uses=[GpuUse(GPU.id, None, process(1), 0.5)])
    assert bench.container_joules() == {}
    assert bench.ledger.unattributed == {("gpu", "unknown"): 50.0, ("gpu", "idle"): 20.0}
    assert bench.error_ratio() == 0.0


def test_gpu_process_whose_group_was_seen_before_stays_there() -> None:
    """Its CPU time, or an earlier reading of the card, has shown its container."""
    bench = Bench()
    bench.tick([use(A, 1.0, (process(1), 1.0))], started=[A], energies=[Energy(PACKAGE, 1.0, 0.0)])
    bench.tick(energies=[Energy(GPU, 50.0, 0.0)], gpu_uses=[GpuUse(GPU.id, None, process(1), 0.5)])
    assert bench.container_joules() == {"a": 51.0}
    bench.tick(energies=[Energy(GPU, 9.0, 0.0)], gpu_uses=[GpuUse(GPU.id, None, process(1, start=2), 0.5)])
    assert bench.container_joules() == {"a": 51.0}, "another process has the pid"
    assert bench.ledger.unattributed == {("gpu", "unknown"): 9.0}


def test_model_outlives_its_pods_and_gets_what_exited_helpers_used() -> None:
    bench = Bench()
    server = process(1, "serve-llama")
    bench.tick([use(A, 2.0, (server, 0.5))], started=[A], energies=[Energy(PACKAGE, 20.0, 0.0), Energy(DRAM, 2.0, 0.0)])
    assert [row.joules for row in bench.ledger.models()] == [(20.0, 2.0)]
    assert list(bench.ledger.container_models().values()) == [Model("llama", "", "inference", "test")]
    bench.tick(exited=[server.key], ended=[A])
    bench.tick([use(B, 1.0, (process(2, "serve-llama"), 1.0))], started=[B], energies=[Energy(PACKAGE, 10.0, 0.0)])
    assert [row.joules[0] for row in bench.ledger.models()] == [30.0]


def test_each_published_process_has_its_own_model_and_no_other() -> None:
    bench = Bench()
    uses = [(process(1, "serve-x"), 0.5), (process(2, "serve-y"), 0.5), (process(3, "sh"), 0.5)]
    bench.tick([use(A, 2.0, *uses)], started=[A], energies=[Energy(PACKAGE, 20.0, 0.0)])

    def named() -> dict[str, str]:
        models = bench.ledger.process_models()
        owners = {row.serial: row.owner for row in bench.ledger.processes()}
        return {
            owner.comm: models[serial].model_name
            for serial, owner in owners.items()
            if isinstance(owner, ProcessOwner) and serial in models
        }

    assert named() == {"serve-x": "x", "serve-y": "y"}
    bench.tick(exited=[uses[0][0].key])
    assert named() == {"serve-y": "y"}


def test_two_models_in_one_container_leave_the_rest_with_it() -> None:
    bench = Bench()
    uses = [(process(1, "serve-x"), 0.5), (process(2, "serve-y"), 0.5)]
    for _ in range(2):
        bench.tick([use(A, 2.0, *uses)], started=[A], energies=[Energy(PACKAGE, 20.0, 0.0)])
    # In the first tick the first of them was alone for a moment, in no tick both get the rest.
    assert math.fsum(sum(row.joules) for row in bench.ledger.models()) == pytest.approx(20.0)
    assert not bench.ledger.container_models()


def test_churn_leaves_no_trace() -> None:
    """Fault 43: 1,000 containers a minute for an hour."""
    bench = Bench(Limits(linger_seconds=300.0))
    rows = []
    for tick in range(360):
        keys = [group(f"t{tick}-{number}") for number in range(170)]
        uses = [use(key, 0.01, (process(tick * 1000 + n, f"p{n}"), 0.01)) for n, key in enumerate(keys)]
        exited = [process(tick * 1000 + n, f"p{n}").key for n in range(170)]
        bench.tick(uses, started=keys, ended=keys, exited=exited, energies=[Energy(PACKAGE, 50.0, 10.0)], seconds=10.0)
        rows.append(len(bench.ledger.containers()) + len(bench.ledger.processes()))
    assert max(rows[60:]) <= max(rows[:60]) + 1
    assert max(rows) < 170 * 32 + 200
    assert bench.error_ratio() < 1e-9
    assert bench.ledger.retired["cpu"] > 0


def test_books_survive_a_restart_whole() -> None:
    """Fault 53: totals, what was retired, and every account on show; the equation holds from the first moment on."""
    bench = Bench(Limits(linger_seconds=10.0))
    bench.tick([use(A, 1.0)], started=[A, B], energies=[Energy(PACKAGE, 40.0, 5.0)])
    bench.tick(ended=[A], energies=[Energy(PACKAGE, 0.0, 5.0)])
    for _ in range(3):
        bench.tick([use(B, 1.0, (process(7), 0.5))], seconds=10.0, energies=[Energy(PACKAGE, 20.0, 50.0)])
    assert bench.ledger.retired == {"cpu": 40.0}
    again = Bench(Limits(linger_seconds=10.0))
    again.ledger.restore(bench.ledger.state(), 0.0, same_boot=True)
    again.node_joules.update(bench.node_joules)
    assert again.ledger.retired == bench.ledger.retired
    assert again.error_ratio() < 1e-12
    again.tick([use(B, 1.0, (process(7), 0.5))], started=[B], energies=[Energy(PACKAGE, 20.0, 5.0)])
    assert again.container_joules() == {"b": 80.0}
    assert {sum(row.joules) for row in again.ledger.processes()} == {40.0}
    assert again.error_ratio() < 1e-12


# --- a model beside strangers ----------------------------------------------------------------------------

LLAMA = Model("llama", "", "inference", "test")


class HostNames(PathNames):
    """``/host`` is the host's row, which collects unrelated work."""

    def workload(self, group: GroupKey) -> Workload:
        return HOST if group.path == "/docker/host" else super().workload(group)


def model_joules(bench: Bench) -> float:
    return sum(sum(row.joules) for row in bench.ledger.models())


def test_a_sleeping_model_owes_nothing_for_exited_strangers_on_its_host() -> None:
    """Reported: a training process that slept was charged 61 J of other people's compilers."""
    bench, host = Bench(namer=HostNames()), group("host")
    server = process(1, "serve-llama")
    bench.tick([use(host, 0.1, (server, 0.1))], started=[host], energies=[Energy(PACKAGE, 1.0, 0.0)])
    for _ in range(60):
        bench.tick([use(host, 1.0)], energies=[Energy(PACKAGE, 10.0, 0.0)])
    assert model_joules(bench) == pytest.approx(1.0)
    assert bench.container_joules() == pytest.approx({"host": 601.0})
    assert bench.ledger.container_models() == {}
    assert bench.error_ratio() < 1e-12


@pytest.mark.parametrize("stranger_seconds", [0.01, 0.2, 1.0])
def test_strangers_in_the_same_container_keep_the_rest_with_it(stranger_seconds: float) -> None:
    """A notebook pod or a shell in the container: the model is within 3 % of its own processes' joules."""
    bench = Bench()
    server, shell = process(1, "serve-llama"), process(2, "bash")
    for number in range(60):
        busy = use(A, 0.5 + stranger_seconds + 0.4, (server, 0.5), (shell, stranger_seconds))
        bench.tick([busy], started=[A] if number == 0 else [], energies=[Energy(PACKAGE, 10.0 * busy.seconds, 0.0)])
    assert model_joules(bench) == pytest.approx(60 * 0.5 * 10.0, rel=0.03)
    assert bench.ledger.container_models() == {}
    assert bench.error_ratio() < 1e-12


def test_an_entry_point_that_sleeps_does_not_share_the_container() -> None:
    """A shell that starts the server and waits used a few milliseconds once: exited helpers are the model's."""
    bench = Bench()
    shell, server = process(1, "sh"), process(2, "serve-llama")
    bench.tick([use(A, 1.003, (shell, 0.003), (server, 1.0))], started=[A], energies=[Energy(PACKAGE, 10.03, 0.0)])
    for _ in range(20):
        bench.tick([use(A, 1.5, (server, 1.0))], energies=[Energy(PACKAGE, 15.0, 0.0)])
    assert model_joules(bench) == pytest.approx(10.0 + 20 * 15.0)
    assert list(bench.ledger.container_models().values()) == [LLAMA]


def test_a_stranger_that_leaves_is_forgotten_in_time() -> None:
    bench = Bench()
    server, shell = process(1, "serve-llama"), process(2, "make")
    bench.tick([use(A, 1.5, (server, 1.0), (shell, 0.5))], started=[A], energies=[Energy(PACKAGE, 15.0, 0.0)])
    assert bench.ledger.container_models() == {}
    for _ in range(400):
        bench.tick([use(A, 10.0, (server, 10.0))], energies=[Energy(PACKAGE, 100.0, 0.0)], seconds=10.0)
    assert list(bench.ledger.container_models().values()) == [LLAMA]


def test_time_before_a_process_was_recognised_is_not_a_strangers() -> None:
    """A server's worker whose model becomes known later is no other process that worked beside it."""
    bench = Bench()
    server, worker = process(1, "serve-llama"), process(2, "worker")
    bench.tick([use(A, 2.0, (server, 1.0), (worker, 1.0))], started=[A], energies=[Energy(PACKAGE, 20.0, 0.0)])
    assert bench.ledger.container_models() == {}
    renamed = process(2, "serve-llama")
    bench.tick([use(A, 2.0, (server, 1.0), (renamed, 1.0))], energies=[Energy(PACKAGE, 20.0, 0.0)])
    for _ in range(200):
        bench.tick([use(A, 2.0, (server, 1.0), (renamed, 1.0))], energies=[Energy(PACKAGE, 20.0, 0.0)], seconds=5.0)
    assert list(bench.ledger.container_models().values()) == [LLAMA]


class LateModels(PathNames):
    """Process 2 is recognised as a worker of llama when ``recognised`` is set."""

    def __init__(self) -> None:
        self.recognised = False
        self._seen = False

    def model(self, group: GroupKey | None, process: Process) -> Model | None:
        return LLAMA if self.recognised and process.key.pid == 2 else super().model(group, process)

    def renamed(self) -> tuple[GroupKey, ...]:
        news = self.recognised and not self._seen
        self._seen = self.recognised
        return (A,) if news else ()


@pytest.mark.parametrize("on", ["cpu", "gpu"])
def test_what_a_worker_used_before_it_was_recognised_is_no_other_process_s(on: str) -> None:
    names = LateModels()
    bench = Bench(namer=names)
    server, worker = process(1, "serve-llama"), process(2, "worker")
    members = [(server, 0.5), (worker, 0.5)] if on == "cpu" else [(server, 0.5)]
    gpu_uses = [GpuUse(GPU.id, A, worker, 0.9)] if on == "gpu" else []

    def tick(*, first: bool = False) -> None:
        bench.tick(
            [use(A, 0.5 * len(members), *members)],
            started=[A] if first else [],
            energies=[Energy(PACKAGE, 10.0, 0.0), Energy(GPU, 100.0, 0.0)],
            gpu_uses=gpu_uses,
        )

    tick(first=True)
    for _ in range(30):
        tick()
    assert bench.ledger.container_models() == {}
    names.recognised = True
    tick()
    tick()
    assert list(bench.ledger.container_models().values()) == [LLAMA]
    assert bench.error_ratio() < 1e-12


def test_a_stranger_on_the_gpu_counts_as_one_that_worked() -> None:
    bench = Bench()
    server, other = process(1, "serve-llama"), process(2, "python")
    uses = [GpuUse(GPU.id, A, server, 0.5), GpuUse(GPU.id, A, other, 0.5)]
    for number in range(5):
        bench.tick(
            [use(A, 1.0, (server, 0.5))],
            started=[A] if number == 0 else [],
            energies=[Energy(PACKAGE, 10.0, 0.0), Energy(GPU, 100.0, 0.0)],
            gpu_uses=uses,
        )
    assert bench.ledger.container_models() == {}
    (row,) = bench.ledger.models()
    joules = dict(zip(row.cells, row.joules, strict=True))
    assert joules["gpu", "active"] == pytest.approx(250.0)
    # The rest of the first tick's CPU time was posted before the other process was seen on the card.
    assert joules["cpu", "active"] == pytest.approx(5 * 5.0 + 5.0)


def test_an_ended_container_keeps_its_model_until_its_row_goes() -> None:
    """Reported with Docker and Podman: the row stays for five minutes, its model was lost at once."""
    bench = Bench(Limits(linger_seconds=60.0))
    server = process(1, "serve-llama")
    bench.tick([use(A, 1.0, (server, 1.0))], started=[A], energies=[Energy(PACKAGE, 10.0, 0.0)])
    bench.tick(exited=[server.key])
    bench.tick(ended=[A])
    for _ in range(5):
        bench.tick(seconds=10.0)
        assert list(bench.ledger.container_models().values()) == [LLAMA]
    bench.tick(seconds=30.0)
    assert bench.ledger.container_models() == {}
    assert bench.ledger.containers() == ()


def test_a_container_that_runs_on_without_its_model_is_not_its_any_more() -> None:
    bench = Bench()
    server, shell = process(1, "serve-llama"), process(2, "bash")
    bench.tick([use(A, 1.0, (server, 1.0))], started=[A], energies=[Energy(PACKAGE, 10.0, 0.0)])
    bench.tick([use(A, 0.5, (shell, 0.5))], exited=[server.key], energies=[Energy(PACKAGE, 5.0, 0.0)])
    assert bench.ledger.container_models() == {}


# --- GPU joules by card ----------------------------------------------------------------------------------

GPU_2 = replace(GPU, id="GPU-2")


def on_two_cards() -> Bench:
    """A container that used two cards."""
    bench = Bench(Limits(linger_seconds=10.0))
    worker = process(7)
    uses = [GpuUse(card.id, A, worker, 0.5) for card in (GPU, GPU_2)]
    bench.tick(started=[A], gpu_uses=uses, energies=[Energy(GPU, 300.0, 70.0), Energy(GPU_2, 100.0, 60.0)])
    return bench


def cards(bench: Bench) -> dict[tuple[str, str], float]:
    return {(row.device, row.mode): row.joules for row in bench.ledger.container_cards()}


TWO_CARDS = {
    ("GPU-1", "active"): 300.0,
    ("GPU-1", "idle"): 70.0,
    ("GPU-2", "active"): 100.0,
    ("GPU-2", "idle"): 60.0,
}


@pytest.mark.parametrize("whole", [True, False], ids=["checkpoint", "journal"])
def test_gpu_joules_by_card_survive_a_restart(whole: bool) -> None:
    bench = on_two_cards()
    assert cards(bench) == TWO_CARDS
    saved = encode(State("boot", 1.0, ledger=bench.ledger.state()), whole=True)
    if not whole:
        line = State("", 1.0, ledger=bench.ledger.state())
        saved = encode(State("boot", 0.0), whole=True) + encode(line, whole=False)
    again = Bench(Limits(linger_seconds=10.0))
    again.ledger.restore(decode(saved).ledger, 0.0, same_boot=True)
    again.tick()
    assert cards(again) == TWO_CARDS
    again.tick(seconds=20.0)
    assert cards(again) == {}, "it ends with the container's account"


def test_gpu_joules_of_a_version_that_kept_no_cards_have_no_card() -> None:
    bench = on_two_cards()
    state = bench.ledger.state()
    state.accounts = [account._replace(cards={}) for account in state.accounts]
    again = Bench()
    again.ledger.restore(state, 0.0, same_boot=True)
    uses = [GpuUse(GPU.id, A, process(7), 0.5)]
    again.tick(started=[A], gpu_uses=uses, energies=[Energy(GPU, 30.0, 7.0)])
    assert cards(again) == {
        ("", "active"): 400.0,
        ("", "idle"): 130.0,
        ("GPU-1", "active"): 30.0,
        ("GPU-1", "idle"): 7.0,
    }


def test_an_older_version_reads_a_state_file_with_cards() -> None:
    """It ignores what it does not know: an account still has four fields."""
    line = encode(State("boot", 1.0, ledger=on_two_cards().ledger.state()), whole=True)
    content = json.loads(line.split(b" ", 1)[1])
    assert content["version"] == 1
    assert {len(account) for account in content["accounts"]} == {4}
