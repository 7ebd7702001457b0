"""CPU time of exited children, by the process that waited for them: never more than they used unseen, and once."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from exporter.host import FdBudget, Host
from exporter.sources.usage.process_clock import ProcessTable, parse_family
from exporter.sources.usage.reaped import ReapedChildren
from tests.support.cgroups import TICK_SECONDS, Forest, Ticker

HERTZ = os.sysconf("SC_CLK_TCK")
GROUP = "/app"
ROUNDING = 2 / HERTZ


class Family:
    """A process and its descendants in a written /proc; ``wait`` adds what a child used to its parent, as Linux does.

    All times are in seconds.
    """

    def __init__(self, root: Path, namespace: str = "NSpid:\t{0}\t{0}") -> None:
        (root / "proc").mkdir()
        self.proc, self.namespace = root / "proc", namespace
        self.table = ProcessTable(Host(str(self.proc), fds=FdBudget(0)))
        self.reaped = ReapedChildren(self.table._host, self.table)
        self.parent: dict[int, int] = {}
        self.own: dict[int, float] = {}
        self.waited: dict[int, float] = {}
        self.known: dict[int, float] = {}
        self.pids = 100
        self.born(0)

    def born(self, parent: int) -> int:
        self.pids += 1
        self.parent[self.pids], self.own[self.pids], self.waited[self.pids] = parent, 0.0, 0.0
        self._write(self.pids)
        return self.pids

    def run(self, pid: int, ticks: int) -> None:
        self.own[pid] += ticks / HERTZ
        self._write(pid)

    def wait(self, pid: int) -> None:
        """It exits, its children become those of init, and its parent waits for it."""
        parent = self.parent.pop(pid)
        for child in [child for child, other in self.parent.items() if other == pid]:
            self.parent[child] = 1
            self._write(child)
        used = self.own.pop(pid) + self.waited.pop(pid)
        if parent != 1:
            self.waited[parent] += used
            self._write(parent)
        for name in ("stat", "status"):
            (self.proc / str(pid) / name).unlink()
        (self.proc / str(pid)).rmdir()

    def _write(self, pid: int) -> None:
        (self.proc / str(pid)).mkdir(exist_ok=True)
        tail = [
            "S",
            str(self.parent[pid]),
            "1",
            "1",
            "0",
            "-1",
            "0",
            *["0"] * 4,
            str(round(self.own[pid] * HERTZ)),
            "0",
        ]
        tail += [str(round(self.waited[pid] * HERTZ)), "0", *["0"] * 4, "5000", "0", "0"]
        (self.proc / str(pid) / "stat").write_text(f"{pid} (sh) {' '.join(tail)}\n")
        (self.proc / str(pid) / "status").write_text(f"Name:\tsh\n{self.namespace.format(pid)}\n")

    def look(self, pids: list[int]) -> None:
        """A tick that finds all processes and reads these, then the exits, as `Members` does."""
        for pid in sorted(self.parent, key=lambda pid: (pid not in pids, pids.index(pid) if pid in pids else pid)):
            new = self.table.find(pid) is None
            tracked = self.table.find(pid) or self.table.follow(pid, 10.0)
            if tracked is not None and (new or pid in pids):
                tracked.group = GROUP
                self.table.used(tracked)
                self.known[pid] = tracked.seconds
        for pid in self.parent:
            if (tracked := self.table.find(pid)) is not None:
                self.reaped.place(tracked)
        for pid in pids:
            if (tracked := self.table.find(pid)) is not None:
                self.reaped.read(tracked)
        self.exits()

    def exits(self) -> None:
        for tracked in self.table.exited(thorough=True):
            tracked.group = None
            self.reaped.exit(tracked)

    def take(self, seconds: float = 1e9) -> dict[int, float]:
        return {use.process.key.pid: use.seconds for use in self.reaped.take(GROUP, seconds)}


def test_what_unseen_children_used_is_the_ones_that_waited_for_them(tmp_path: Path) -> None:
    family = Family(tmp_path)
    family.look([101])
    for _ in range(3):
        child = family.born(101)
        family.run(child, 40)
        family.run(family.born(child), 10)
        family.wait(family.pids)
        family.wait(child)
    family.look([101])
    assert family.take(0.5) == pytest.approx({101: 0.5})  # no more than the group used beyond the others
    assert family.take(0.0) == {}
    assert family.take(9.0) == pytest.approx({101: 1.0})  # the rest of 3 × 0.5 s, later
    assert family.take(9.0) == {}


def test_what_a_child_had_while_it_was_followed_is_not_counted_again(tmp_path: Path) -> None:
    family = Family(tmp_path)
    child = family.born(101)
    family.run(child, 30)
    family.look([101, child])
    family.run(child, 20)
    family.wait(child)
    family.look([101])
    assert sum(family.take().values()) == pytest.approx(0.2, abs=ROUNDING + 1e-9)


@pytest.mark.parametrize("first", [0, 1], ids=["parent first", "child first"])
def test_a_line_of_followed_processes_that_exits_in_one_tick(tmp_path: Path, first: int) -> None:
    """A make, its shell and a compiler: what the compiler had is known, although the shell waited for it."""
    family = Family(tmp_path)
    shell = family.born(101)
    compiler = family.born(shell)
    family.run(compiler, 50)
    family.look([101, shell, compiler] if first == 0 else [101, compiler, shell])
    family.wait(compiler)
    family.wait(shell)
    family.look([101])
    assert family.take() == {}


@pytest.mark.parametrize("namespace", ["NSpid:\t{0}\t1", "NSpid:\t1", "", "Pid:\t{0}"])
def test_an_init_process_waits_for_orphans_of_others(tmp_path: Path, namespace: str) -> None:
    """Where it is not known whether it is one, its children say nothing either."""
    family = Family(tmp_path, namespace)
    family.look([101])
    family.run(family.born(101), 50)
    family.wait(family.pids)
    family.look([101])
    assert family.take() == {}


def test_what_children_used_in_another_group_is_not_this_ones(tmp_path: Path) -> None:
    family = Family(tmp_path)
    family.look([101])
    family.run(family.born(101), 50)
    family.wait(family.pids)
    tracked = family.table.find(101)
    assert tracked is not None
    family.reaped.move(tracked)
    family.run(family.born(101), 20)
    family.wait(family.pids)
    family.look([101])
    assert family.take() == pytest.approx({101: 0.2})


def test_the_family_of_a_stat_line() -> None:
    line = b"7 (a) b) S 4 1 1 0 -1 0 0 0 0 0 1 2 30 12 20 0 1 0 5000 0 0"
    parent, seconds = parse_family(line, 100)
    assert (parent, round(seconds, 6)) == (4, 0.42)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**32), st.integers(10, 80))
def test_over_time_a_process_has_no_more_than_its_descendants_used_unseen(
    tmp_path_factory: pytest.TempPathFactory, seed: int, steps: int
) -> None:
    """Whatever is born, runs, is read, exits in whatever order and is paid when: claims never exceed the truth."""
    dice = random.Random(seed)
    family = Family(tmp_path_factory.mktemp("family"))
    family.look([101])
    total, claimed = 0.0, 0.0
    for _ in range(steps):
        deed, pids = dice.choice("bbrrrwwlt"), sorted(family.parent)
        if deed == "b" and len(pids) < 12:
            family.born(dice.choice(pids))
        elif deed == "r":
            ticks, pid = dice.randrange(1, 60), dice.choice(pids)
            family.run(pid, ticks)
            total += ticks / HERTZ if pid != 101 else 0.0
        elif deed == "w" and len(pids) > 1:
            family.wait(dice.choice([pid for pid in pids if pid != 101]))
        elif deed == "l":
            family.look([101, *[pid for pid in pids if pid != 101 and dice.random() < 0.7]])
        elif deed == "t":
            claimed += sum(family.take(dice.choice([0.0, 0.1, 9.0])).values())
        seen = sum(seconds for pid, seconds in family.known.items() if pid != 101)
        assert claimed <= total - seen + ROUNDING + 1e-9
    family.look([101])
    claimed += sum(family.take().values())
    assert claimed <= total - sum(seconds for pid, seconds in family.known.items() if pid != 101) + ROUNDING + 1e-9


STORM = """
import os, sys, time
def spin(seconds):
    end = time.process_time() + seconds
    while time.process_time() < end:
        pass
for line in sys.stdin:
    used = 0.0
    for _ in range(int(line)):
        pid = os.fork()
        if pid == 0:
            spin(0.02)
            os._exit(0)
        used += sum(os.wait4(pid, 0)[2][:2])
    print(used, flush=True)
"""


def test_real_children_of_one_of_two_processes(forest: Forest) -> None:
    """A storm of short processes beside a neighbour: by the kernel's own count, for the one that started them."""
    forest.make("app")
    script = f"echo $$ > {forest.path('app')}/cgroup.procs; exec {sys.executable} -S -E -c '{STORM}'"
    storm = subprocess.Popen(["sh", "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    neighbour, ticker = forest.worker("app"), Ticker(Host(cgroupfs=forest.root))

    def play(number: int) -> float:
        assert storm.stdin is not None
        assert storm.stdout is not None
        storm.stdin.write(f"{number}\n")
        storm.stdin.flush()
        return float(storm.stdout.readline())

    try:
        play(1)
        ticker.read()
        used, reaped, remainder = 0.0, 0.0, 0.0
        for _ in range(4):
            used += play(10)
            neighbour.spin(0.05)
            for group in ticker.full().groups:
                remainder += group.seconds - sum(one.seconds for one in group.processes)
                assert {one.process.key.pid for one in group.reaped} <= {storm.pid}
                reaped += sum(one.seconds for one in group.reaped)
        assert reaped <= used + TICK_SECONDS + ROUNDING
        assert reaped <= remainder + 1e-9
        assert reaped >= 0.8 * used - ROUNDING
    finally:
        ticker.source.close()
        storm.send_signal(signal.SIGKILL)
        storm.communicate()
