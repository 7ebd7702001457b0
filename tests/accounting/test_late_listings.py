"""The remainder of a container whose list of processes is late or partial: only what is known is its model's."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from exporter.accounting.attribution import Energy
from exporter.records import GroupUse, Listing, ProcessKey, ProcessUse
from tests.support.ledger_bench import PACKAGE, Bench, group, process, use

A, B = group("a"), group("b")
SERVER, STRANGER = process(1, "serve-llama"), process(2, "envoy")
WATTS = 10.0


def tick(bench: Bench, *uses: GroupUse, exited: tuple[ProcessKey, ...] = ()) -> None:
    """A second in which a busy second costs 10 J."""
    joules = WATTS * sum(use.seconds for use in uses)
    bench.tick(uses, energies=[Energy(PACKAGE, joules, 0.0)], exited=exited)
    assert bench.error_ratio() < 1e-12


def started() -> Bench:
    """A container that is its model's alone, with 10 J each."""
    bench = Bench()
    bench.tick(started=[A, B])
    tick(bench, use(A, 1.0, (SERVER, 1.0)))
    return bench


def model_joules(bench: Bench) -> float:
    return sum(sum(row.joules) for row in bench.ledger.models())


def test_the_model_gets_the_remainder_once_a_complete_list_shows_nobody_else() -> None:
    """Workers of the model that came and went while the scan was put off."""
    bench = started()
    for _ in range(3):
        tick(bench, use(A, 1.5, (SERVER, 1.0), listing="late"))
        assert bench.container_joules()["a"] - model_joules(bench) > 0
    tick(bench, use(A, 1.5, (SERVER, 1.0)))
    assert model_joules(bench) == pytest.approx(WATTS * (1.0 + 4 * 1.5))
    tick(bench, use(A, 1.5, (SERVER, 1.0)))  # and only once
    assert model_joules(bench) == pytest.approx(WATTS * (1.0 + 5 * 1.5))


def test_a_tick_without_remainder_decides_as_well() -> None:
    bench = started()
    tick(bench, use(A, 1.5, (SERVER, 1.0), listing="late"))
    tick(bench, use(A, 1.0, (SERVER, 1.0)))
    assert model_joules(bench) == pytest.approx(WATTS * (1.0 + 1.5 + 1.0))


@pytest.mark.parametrize("seconds", [2.0, 0.0], ids=["at work", "that has stopped"])
def test_a_stranger_found_late_keeps_what_it_used_meanwhile(seconds: float) -> None:
    """Seen at a load average of 25: a sidecar at work was read with the next scan, its model charged 161 % too much."""
    bench = started()
    for _ in range(3):
        tick(bench, use(A, 3.0, (SERVER, 1.0), listing="late"))
    tick(bench, use(A, 1.0 + seconds, (SERVER, 1.0), (STRANGER, seconds)))
    assert model_joules(bench) == pytest.approx(WATTS * 5.0)
    assert bench.container_joules()["a"] == pytest.approx(WATTS * (1.0 + 3 * 3.0 + 1.0 + seconds))


def test_a_stranger_that_is_known_and_was_at_rest_keeps_what_it_used() -> None:
    """It was read last when it used too little to count as one that worked."""
    bench = Bench()
    bench.tick(started=[A])
    tick(bench, use(A, 1.003, (SERVER, 1.0), (STRANGER, 0.003)))
    for _ in range(3):
        tick(bench, use(A, 3.0, (SERVER, 1.0), listing="late"))
    tick(bench, use(A, 1.0, (SERVER, 0.4), (STRANGER, 0.6)))  # scaled to what the group used in this tick
    assert model_joules(bench) == pytest.approx(WATTS * 4.4, rel=0.001)


def test_what_some_process_used_that_cannot_be_seen_is_no_models() -> None:
    """A member of another user's behind hidepid may have used it, before and after the others are known."""
    bench = started()
    tick(bench, use(A, 3.0, (SERVER, 1.0), listing="late"))
    tick(bench, use(A, 3.0, (SERVER, 1.0), listing="partial"))
    tick(bench, use(A, 1.0, (SERVER, 1.0)))
    assert model_joules(bench) == pytest.approx(WATTS * 4.0)


def test_a_stranger_that_ends_may_have_used_the_remainder() -> None:
    """What it used after it was last read is in the remainder of the tick in which it exits, and in no other."""
    bench = Bench()
    bench.tick(started=[A])
    tick(bench, use(A, 1.003, (SERVER, 1.0), (STRANGER, 0.003)))
    tick(bench, use(A, 1.9, (SERVER, 1.0)), exited=(STRANGER.key,))
    tick(bench, use(A, 1.5, (SERVER, 1.0)))
    assert model_joules(bench) == pytest.approx(WATTS * (1.0 + 1.0 + 1.5))


def test_a_worker_of_the_model_that_ends_keeps_nothing_from_it() -> None:
    bench, worker = started(), process(3, "serve-llama")
    tick(bench, use(A, 2.0, (SERVER, 1.0), (worker, 1.0)))
    tick(bench, use(A, 1.9, (SERVER, 1.0)), exited=(worker.key,))
    assert model_joules(bench) == pytest.approx(WATTS * 4.9)


def test_the_list_of_one_group_says_nothing_about_another_of_the_same_container() -> None:
    """Groups below a container's have its name."""
    bench, below = Bench(), group("a", 2)
    bench.tick(started=[A, below])
    tick(bench, use(A, 1.0, (SERVER, 1.0)))
    tick(bench, use(A, 1.0, (SERVER, 1.0)), use(below, 2.0, listing="late"))
    tick(bench, use(A, 1.5, (SERVER, 1.0)))
    assert model_joules(bench) == pytest.approx(WATTS * 3.5)
    tick(bench, use(below, 2.0, (STRANGER, 2.0)))
    assert model_joules(bench) == pytest.approx(WATTS * 3.5)


def test_a_model_that_comes_later_gets_nothing_of_what_waited_for_another() -> None:
    bench, other = started(), process(4, "serve-qwen")
    tick(bench, use(A, 2.0, (SERVER, 1.0), listing="late"))
    tick(bench, exited=(SERVER.key,))
    tick(bench, use(A, 1.0, (other, 1.0)))
    assert model_joules(bench) == pytest.approx(WATTS * 3.0)


SECONDS = st.floats(0.0, 2.0)
TICKS = st.lists(st.tuples(SECONDS, SECONDS, SECONDS, st.booleans()), min_size=1, max_size=20)


@given(TICKS)
def test_a_model_has_no_more_than_its_processes_used_if_strangers_are_found_in_the_end(
    ticks: list[tuple[float, float, float, bool]],
) -> None:
    """Whatever its server, its workers and a stranger use, the last of which is seen only by complete lists."""
    bench, true, unread = started(), 1.0, 0.0
    for server, workers, stranger, late in [*ticks, (1.0, 0.0, 1.0, False)]:
        true += server + workers
        unread += stranger
        busy = server + workers + stranger
        seen = [(SERVER, server)] if late else [(SERVER, server), (STRANGER, unread)]
        if busy > 1e-6:
            scale = min(1.0, busy / (sum(seconds for _, seconds in seen) or 1.0))
            listed = [(one, seconds * scale) for one, seconds in seen if seconds > 0]
            tick(bench, use(A, busy, *listed, listing="late" if late else "complete"))
            unread = unread if late else 0.0
    assert model_joules(bench) <= WATTS * true * 1.005 + 1e-6


def test_what_children_of_a_model_used_is_its_own_beside_strangers() -> None:
    """Short-lived workers that its server waited for; those of the stranger stay with the container."""
    bench = started()
    for _ in range(5):
        seen = use(A, 3.0, (SERVER, 0.5), (STRANGER, 0.5))
        tick(bench, seen._replace(reaped=(ProcessUse(SERVER, 0.75), ProcessUse(STRANGER, 0.25))))
    assert model_joules(bench) == pytest.approx(WATTS * (1.0 + 5 * 1.25))
    assert bench.container_joules()["a"] == pytest.approx(WATTS * 16.0)


@pytest.mark.parametrize("listing", ["complete", "late", "partial"])
def test_what_children_used_counts_once_in_a_container_of_the_model_alone(listing: Listing) -> None:
    bench = started()
    for _ in range(3):
        seen = use(A, 3.0, (SERVER, 0.5), listing=listing)
        tick(bench, seen._replace(reaped=(ProcessUse(SERVER, 0.75),)))
    tick(bench, use(A, 1.0, (SERVER, 1.0)))
    known = 3.0 if listing != "partial" else 1.25
    assert model_joules(bench) == pytest.approx(WATTS * (1.0 + 3 * known + 1.0))


def test_what_children_of_a_stranger_used_is_no_models_even_if_it_used_next_to_nothing_itself() -> None:
    """A make that waits: nothing else says that another program worked in the model's container."""
    bench = started()
    for _ in range(5):
        seen = use(A, 2.0, (SERVER, 1.0), (STRANGER, 0.001))
        tick(bench, seen._replace(reaped=(ProcessUse(STRANGER, 0.75),)))
    assert model_joules(bench) == pytest.approx(WATTS * (1.0 + 5 * 1.249))


def test_a_shell_that_waits_for_servers_keeps_nothing_of_their_last_use() -> None:
    """A script that starts one after the other: what it waited for is what they used since they were read."""
    bench, shell = started(), process(5, "sh")
    seen = use(A, 1.5, (SERVER, 1.0), (shell, 0.001))
    tick(bench, seen._replace(reaped=(ProcessUse(shell, 0.4),)), exited=(SERVER.key,))
    assert model_joules(bench) == pytest.approx(WATTS * (1.0 + 1.499))
