"""CPU use by cgroup and process in real cgroups with real processes."""

from __future__ import annotations

import itertools
import os
import random
import shutil
import signal
import subprocess
from pathlib import Path

import pytest

from exporter.host import Host
from tests.support.cgroups import TICK_SECONDS, Forest, Ticker, Worker

# --- how much ----------------------------------------------------------------------------------------------


def test_busy_seconds_of_a_worker_are_those_of_its_own_clock(forest: Forest, ticker: Ticker) -> None:
    forest.make("pod/app")
    worker = forest.worker("pod/app")
    base = forest.used()
    first = ticker.read()
    assert (first.window_seconds, first.busy_seconds, first.groups) == (0.0, 0.0, ())
    began = worker.spin(0)
    worker.spin(0.03)
    ticker.read()
    assert ticker.groups[forest.key("pod/app")] >= 0.03
    for _ in range(12):
        ended = worker.spin(0.025)
        ticker.read()
    assert ticker.processes[worker.key] == pytest.approx(ended - began, abs=TICK_SECONDS)
    assert ticker.groups[forest.key("pod/app")] == pytest.approx(forest.used("pod/app") - base, abs=TICK_SECONDS)
    assert ticker.busy == pytest.approx(forest.used() - base, abs=TICK_SECONDS)
    assert ended - began >= 0.3


def test_what_ran_before_the_first_read_is_not_counted(forest: Forest, ticker: Ticker) -> None:
    forest.make("old")
    worker = forest.worker("old")
    worker.spin(0.1)
    ticker.read()
    worker.spin(0.02)
    ticker.read()
    assert ticker.busy == pytest.approx(0.02, abs=TICK_SECONDS)
    assert sorted(ticker.started) == sorted([forest.key(""), forest.key("old")])


def test_every_used_second_is_reported_once_whatever_groups_and_processes_do(forest: Forest, ticker: Ticker) -> None:
    """Faults 35, 38, 39, 41: the sums equal the kernel's counter of the root, and lists of events are consistent."""
    dice = random.Random(7)
    ticker.read()
    base = forest.used()
    paths = ["a", "a/x", "a/y", "b", "b/x/deep"]
    workers: dict[str, Worker] = {}
    moved = forest.worker("")
    for step in range(60):
        path = dice.choice(paths)
        if path not in workers and not os.path.exists(forest.path(path)):
            forest.make(path)
        if path not in workers:
            workers[path] = forest.worker(path)
        workers[path].spin(dice.choice([0.0005, 0.003, 0.012]))
        if dice.random() < 0.3:
            moved.spin(0.004)
            forest.move(moved.pid, dice.choice([name for name in workers if os.path.exists(forest.path(name))]))
        if dice.random() < 0.3:
            workers.pop(path).stop()
            if not any(name.startswith(path + "/") and name in workers for name in paths):
                forest.move(moved.pid, "")
                shutil.rmtree(forest.path(path), ignore_errors=True)  # removes no files, they vanish with the group
                for directory, _, _ in list(os.walk(forest.path(path), topdown=False)):
                    forest.remove(os.path.relpath(directory, forest.root))
        ticker.full() if step % 9 == 8 else ticker.read()
    ticker.full()
    ticker.full()
    assert ticker.busy == pytest.approx(forest.used() - base, abs=TICK_SECONDS)
    assert ticker.busy > 0.1
    assert len(ticker.started) == len(set(ticker.started))
    assert len(ticker.ended) == len(set(ticker.ended))
    assert set(ticker.ended) <= set(ticker.started)
    alive = {key.inode for key in set(ticker.started) - set(ticker.ended)}
    assert alive == {os.stat(directory).st_ino for directory, _, _ in os.walk(forest.root)}
    assert len(ticker.exited) == len(set(ticker.exited))


def test_small_use_of_a_new_group_is_not_charged_to_its_parent_and_again_to_itself(
    forest: Forest, ticker: Ticker
) -> None:
    ticker.read()
    base = forest.used()
    forest.make("new")
    worker = forest.worker("new")
    for _ in range(12):
        worker.spin(0.001)
        ticker.read()
    ticker.full()
    assert ticker.busy == pytest.approx(forest.used() - base, abs=5e-4)
    assert forest.key("new") in ticker.started


def test_what_exited_processes_used_stays_with_their_group(forest: Forest, ticker: Ticker) -> None:
    """Fault 35: each process lives and dies between two reads."""
    directory = forest.make("batch")
    ticker.read()
    script = f"echo 0 > {directory}/cgroup.procs; i=0; while [ $i -lt 200 ]; do (:); i=$((i+1)); done"
    for _ in range(3):
        subprocess.run(["sh", "-c", script], check=True)
        ticker.read()
    used = forest.used("batch")
    assert used > 0.01
    assert ticker.groups[forest.key("batch")] == pytest.approx(used, abs=TICK_SECONDS)
    assert sum(ticker.processes.values()) <= used


def test_a_new_group_is_found_although_the_members_of_its_parent_are_not_scanned_again_yet(forest: Forest) -> None:
    """A scan that cost much is put off, for a thousand times as long in the root group; a stat of it is not."""
    spent = itertools.count(0.0, 1.0)
    ticker = Ticker(Host(cgroupfs=forest.root, work=lambda: next(spent)))
    ticker.read()
    for name in ("first", "second"):
        forest.make(name)
        forest.worker(name).spin(0.03)
        ticker.read()
    for name in ("first", "second"):
        assert ticker.groups[forest.key(name)] == pytest.approx(forest.used(name), abs=TICK_SECONDS)
    ticker.source.close()


def test_a_group_idle_beside_a_busy_one_is_reported_in_the_tick_it_becomes_active(
    forest: Forest, ticker: Ticker
) -> None:
    """A group that stands still is not read any more; its parent's counter gives away the first thing it does."""
    for name in ("pod", "pod/busy", "pod/sleepy"):
        forest.make(name)
    busy, sleepy = forest.worker("pod/busy"), forest.worker("pod/sleepy")
    ticker.read()
    for _ in range(8):
        busy.spin(0.005)
        ticker.read()
    before = ticker.groups[forest.key("pod/sleepy")], forest.used("pod/sleepy")
    sleepy.spin(0.002)
    busy.spin(0.005)
    ticker.read()
    told = ticker.groups[forest.key("pod/sleepy")] - before[0]
    assert told == pytest.approx(forest.used("pod/sleepy") - before[1], abs=1e-5)
    assert told >= 0.002


def test_the_end_of_a_group_is_reported_at_once_although_others_are_idle(forest: Forest, ticker: Ticker) -> None:
    for name in ("busy", "brief", "sleepy"):
        forest.make(f"pod/{name}")
    forest.make("other")
    worker, busy, brief = forest.worker("pod/brief"), forest.worker("pod/busy"), forest.key("pod/brief")
    ticker.read()
    for _ in range(5):
        worker.spin(0.001)
        busy.spin(0.001)
        ticker.read()
    forest.move(worker.pid, "other")
    ticker.read()
    forest.remove("pod/brief")
    busy.spin(0.001)
    ticker.read()
    assert ticker.ended == [brief]


# --- who comes and goes ------------------------------------------------------------------------------------


def test_a_deleted_group_gets_its_last_seconds_and_ends_once(forest: Forest, ticker: Ticker) -> None:
    """Fault 38: what it used after the last read shows only in its parent's counter."""
    forest.make("pod/app")
    worker = forest.worker("pod/app")
    key, pod = forest.key("pod/app"), forest.key("pod")
    ticker.read()
    worker.spin(0.03)
    ticker.read()
    worker.spin(0.05)
    used = forest.used("pod/app")
    worker.stop()
    forest.remove("pod/app")
    ticker.read()
    assert ticker.groups[key] == pytest.approx(used, abs=TICK_SECONDS)
    assert ticker.groups[pod] < TICK_SECONDS
    assert ticker.ended == [key]
    ticker.full()
    assert ticker.ended == [key]
    assert worker.pid in [process.pid for process in ticker.exited]


def test_a_pod_deleted_with_its_containers_leaves_the_rest_to_these(forest: Forest, ticker: Ticker) -> None:
    """Fault 38: both levels went between two reads."""
    forest.make("pod/app")
    worker = forest.worker("pod/app")
    app, pod = forest.key("pod/app"), forest.key("pod")
    ticker.read()
    worker.spin(0.05)
    worker.stop()
    forest.remove("pod/app")
    forest.remove("pod")
    use = ticker.read()
    assert [group.group for group in use.groups] == [app]
    assert use.busy_seconds >= 0.05
    assert set(ticker.ended) == {app, pod}


def test_the_last_seconds_of_a_pod_are_not_charged_to_idle_containers(forest: Forest, ticker: Ticker) -> None:
    """Fault 38: every pod has a container that does nothing but wait."""
    for name in ("app", "pause", "gone"):
        forest.make(f"pod/{name}")
    worker, app, pause = forest.worker("pod/app"), forest.key("pod/app"), forest.worker("pod/pause")
    ticker.read()
    for _ in range(5):
        worker.spin(0.002)
        ticker.read()
    forest.remove("pod/gone")  # nobody notices, for it slept
    worker.spin(0.002)
    ticker.read()
    assert ticker.ended == []
    told, used = ticker.groups[app], forest.used("pod/app")
    worker.spin(0.05)
    used = forest.used("pod/app") - used
    for each in (worker, pause):
        each.stop()
    for name in ("app", "pause"):
        forest.remove(f"pod/{name}")
    ticker.read()
    assert ticker.groups[app] - told == pytest.approx(used, abs=TICK_SECONDS)
    assert used >= 0.05
    assert len(ticker.ended) == 3


def test_a_group_recreated_at_the_same_path_is_another_and_inherits_nothing(forest: Forest, ticker: Ticker) -> None:
    """Fault 39."""
    forest.make("app")
    old_worker, old = forest.worker("app"), forest.key("app")
    ticker.read()
    old_worker.spin(0.05)
    ticker.read()
    old_worker.stop()
    forest.remove("app")
    forest.make("app")
    new_worker, new = forest.worker("app"), forest.key("app")
    new_worker.spin(0.02)
    ticker.read()
    ticker.read()
    assert new != old
    assert (ticker.ended, ticker.started[-1]) == ([old], new)
    assert ticker.groups[new] == pytest.approx(forest.used("app"), abs=TICK_SECONDS)


def test_a_removed_group_ends_although_no_counter_changes(forest: Forest, ticker: Ticker) -> None:
    """Fault 42: an idle group is deleted; no counter shows it, so the full walk must."""
    forest.make("ghost")
    key = forest.key("ghost")
    ticker.read()
    forest.remove("ghost")
    assert ticker.read().ended == ()
    assert ticker.full().ended == (key,)
    assert ticker.full().ended == ()


def test_a_process_that_moves_is_charged_once(forest: Forest, ticker: Ticker) -> None:
    """Fault 41: and each group is charged for what was used in it."""
    forest.make("a")
    forest.make("b")
    worker = forest.worker("a")
    ticker.read()
    began, base = worker.spin(0), {name: forest.used(name) for name in "ab"}
    for name in "abab":
        forest.move(worker.pid, name)
        worker.spin(0.03)
        ticker.read()
        ended = worker.spin(0.03)
        ticker.read()
    for name in "ab":
        assert ticker.groups[forest.key(name)] == pytest.approx(forest.used(name) - base[name], abs=TICK_SECONDS)
    assert ticker.processes[worker.key] <= ended - began + 0.003
    assert ticker.processes[worker.key] == pytest.approx(ended - began, abs=0.12)


def test_a_process_that_exits_is_reported_once(forest: Forest, ticker: Ticker) -> None:
    forest.make("app")
    worker = forest.worker("app")
    key = worker.key
    ticker.read()
    for _ in range(2):
        worker.spin(0.03)
        ticker.read()
    assert key in ticker.processes
    worker.stop()
    for _ in range(3):
        ticker.full()
    assert ticker.exited == [key]


def test_a_zombie_has_exited(forest: Forest, ticker: Ticker) -> None:
    """Its parent may not have reaped it yet, but it uses nothing any more; it is not found again and again."""
    forest.make("app")
    child = subprocess.Popen(["sleep", "60"])
    try:
        forest.move(child.pid, "app")
        worker = forest.worker("app")
        ticker.read()
        worker.spin(0.03)
        ticker.read()
        os.kill(child.pid, signal.SIGKILL)
        for _ in range(4):
            worker.spin(0.02)
            ticker.full()
        assert [key.pid for key in ticker.exited] == [child.pid]
    finally:
        child.kill()
        child.wait()


def test_a_counter_that_is_reset_continues(forest: Forest, ticker: Ticker) -> None:
    """Only v1 lets ``echo 0 > cpuacct.usage``; the group is the same one."""
    forest.make("app")
    counter = Path(forest.path("app"), "cpuacct.usage")
    if not counter.exists():
        pytest.skip("v2 counters cannot be reset")
    worker = forest.worker("app")
    ticker.read()
    worker.spin(0.05)
    ticker.read()
    base = forest.used()
    before = ticker.busy
    counter.write_text("0")
    for _ in range(3):
        worker.spin(0.03)
        ticker.read()
    assert ticker.ended == []
    assert ticker.busy - before == pytest.approx(forest.used() - base, abs=TICK_SECONDS)
    assert ticker.groups[forest.key("app")] >= 0.1
