"""CPU use by cgroup in written trees, for what no kernel does on demand."""

from __future__ import annotations

import dataclasses
import itertools
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from exporter.host import FdBudget, Host
from exporter.records import CpuUse, GroupKey, ProcessKey, Unavailable
from exporter.sources.usage.cgroups import CgroupSource


class Tree:
    """A cgroup tree and a /proc of plain files: another machine's, so processes are read from stat files."""

    def __init__(self, root: Path, cgroups: str = "cgroup") -> None:
        self.proc = root / "proc"
        self.cgroup = root / cgroups
        self.proc.mkdir(parents=True)
        self.cgroup.mkdir(parents=True, exist_ok=True)
        (self.proc / "stat").write_text("cpu  0 0 0 0 0 0 0\ncpu0 0 0 0 0 0 0 0\n")
        (self.cgroup / "cgroup.controllers").write_text("cpu\n")
        self.group("", 0.0)

    def group(self, path: str, seconds: float, pids: tuple[int, ...] = ()) -> GroupKey:
        directory = self.cgroup / path
        directory.mkdir(parents=True, exist_ok=True)
        micros = round(seconds * 1e6)
        (directory / "cpu.stat").write_text(f"usage_usec {micros}\nuser_usec {micros}\nsystem_usec 0\n")
        (directory / "cgroup.procs").write_text("".join(f"{pid}\n" for pid in pids))
        return GroupKey("/" + path, directory.stat().st_ino)

    def process(self, pid: int, seconds: float, start: int = 100, comm: str = "worker", flags: int = 0) -> ProcessKey:
        directory = self.proc / str(pid)
        directory.mkdir(exist_ok=True)
        ticks = round(seconds * os.sysconf("SC_CLK_TCK"))
        tail = ["S", "1", "1", "1", "0", "-1", str(flags), *["0"] * 4, str(ticks), *["0"] * 7, str(start), "0", "0"]
        (directory / "stat").write_text(f"{pid} ({comm}) {' '.join(tail)}\n")
        return ProcessKey(pid, start)

    def host(self, fds: int = 100) -> Host:
        return Host(str(self.proc), str(self.proc / "nosys"), str(self.cgroup), clock=lambda: 0.0, fds=FdBudget(fds))


Read = Callable[[float], CpuUse]


def used_by_group(use: CpuUse) -> list[tuple[GroupKey, float, int]]:
    """Which groups used how many seconds, and how many processes are known to have run in them."""
    return [(group.group, round(group.seconds, 9), len(group.processes)) for group in use.groups]


@pytest.fixture
def tree(tmp_path: Path) -> Tree:
    return Tree(tmp_path)


@pytest.fixture(params=[100, 0], ids=["kept", "by path"])
def read(request: pytest.FixtureRequest, tree: Tree) -> Iterator[Read]:
    source = CgroupSource(tree.host(request.param))

    def call(now: float) -> CpuUse:
        use = source.read(now).cpu
        assert use is not None
        return use

    yield call
    source.close()


def test_a_reused_pid_inherits_nothing(tree: Tree, read: Read) -> None:
    """Fault 34: the same pid with another start time, in the same group, with less and with more CPU time."""
    group = tree.group("app", 5.0, (7,))
    tree.group("", 5.0)
    old = tree.process(7, 5.0, start=100)
    read(10.0)
    tree.group("app", 6.0, (7,))
    tree.group("", 6.0)
    tree.process(7, 6.0)
    use = read(11.0)
    assert used_by_group(use) == [(group, 1.0, 1)]
    tree.group("app", 7.0, (7,))
    tree.group("", 7.0)
    new = tree.process(7, 7.5, start=1150)
    later = [read(12.0)]
    tree.group("app", 8.0, (7,))
    tree.group("", 8.0)
    tree.process(7, 8.5, start=1150)
    later.append(read(13.0))
    keys = {p.process.key for use in later for g in use.groups for p in g.processes}
    assert [key for use in later for key in use.exited] == [old]
    assert keys == {new}
    assert [(key, seconds) for use in later for key, seconds, _ in used_by_group(use)] == [(group, 1.0)] * 2


def test_a_process_that_slept_since_its_start_has_what_it_used_from_its_first_work_on(tree: Tree, read: Read) -> None:
    """A server that waits for its first request: until then it used too little for its group to be scanned."""
    tree.group("app", 1.0)
    tree.group("", 1.0)
    read(100.0)
    for now, seconds in ((101.0, 0.003), (102.0, 0.003), (103.0, 0.503)):
        server = tree.process(7, seconds, start=10_050)
        group = tree.group("app", 1.0 + seconds, (7,))
        tree.group("", 1.0 + seconds)
        use = read(now)
    assert used_by_group(use) == [(group, 0.5, 1)]
    assert [(p.process.key, round(p.seconds, 3)) for p in use.groups[0].processes] == [(server, 0.5)]


def test_a_new_member_has_no_more_than_its_group_used_beyond_the_others(tree: Tree, read: Read) -> None:
    """What it used in the group that it came from is not taken from its new neighbours."""
    neighbour = tree.process(7, 5.0)
    tree.group("app", 5.0, (7,))
    tree.group("", 5.0)
    read(100.0)
    tree.process(7, 5.5)
    moved = tree.process(8, 3.0, start=10_050)
    group = tree.group("app", 5.75, (7, 8))
    tree.group("", 5.75)
    use = read(101.0)
    assert used_by_group(use) == [(group, 0.75, 2)]
    assert {p.process.key: round(p.seconds, 9) for p in use.groups[0].processes} == {neighbour: 0.5, moved: 0.25}


def test_waiting_for_a_cpu_does_not_put_off_the_next_scan(tree: Tree) -> None:
    """On a machine full of work a scan takes long and costs little: new groups and processes are found as before."""
    boot = itertools.count(0.0, 0.1)
    source = CgroupSource(dataclasses.replace(tree.host(), clock=lambda: next(boot)))
    source.read(100.0)
    found = []
    for number in range(1, 4):
        key = tree.process(number, 0.5, start=10_000 + 100 * number)
        group = tree.group(f"app-{number}", 0.5, (number,))
        tree.group("", 0.5 * number)
        use = source.read(100.0 + number).cpu
        assert use is not None
        assert used_by_group(use) == [(group, 0.5, 1)]
        found += [(p.process.key, p.seconds) for p in use.groups[0].processes]
        assert found[-1] == (key, 0.5)
    source.close()


def test_an_exit_is_reported_once_without_pidfds_even_if_its_group_is_idle(tree: Tree, read: Read) -> None:
    """Another machine's /proc has no pidfds: exits are found in the full walk."""
    key = tree.process(7, 1.0)
    tree.group("app", 1.0, (7,))
    tree.group("", 1.0)
    read(10.0)
    tree.process(7, 2.0)
    tree.group("app", 2.0, (7,))
    tree.group("", 2.0)
    read(11.0)
    shutil.rmtree(tree.proc / "7")
    exits = [use.exited for use in (read(12.0), read(22.0), read(33.0))]
    assert sum(exits, ()) == (key,)


def test_groups_that_stand_still_are_read_only_if_the_others_do_not_explain_their_parent(
    tree: Tree, read: Read
) -> None:
    busy = sleepy = 1.0
    keys = [tree.group("pod/busy", busy), tree.group("pod/sleepy", sleepy)]

    def tick(now: float, parent: float) -> list[tuple[GroupKey, float, int]]:
        for path, seconds in (("pod/busy", busy), ("pod/sleepy", sleepy), ("pod", parent), ("", parent)):
            tree.group(path, seconds)
        return used_by_group(read(now))

    tick(10.0, 2.0)
    for second in range(4):
        busy += 0.5
        assert tick(11.0 + second, busy + sleepy) == [(keys[0], 0.5, 0)]
    busy, sleepy = busy + 0.5, sleepy + 0.25
    assert tick(15.0, busy + sleepy - 0.25) == [(keys[0], 0.5, 0)], "its parent says that nobody else ran"
    busy += 0.5
    assert tick(16.0, busy + sleepy) == [(keys[0], 0.5, 0), (keys[1], 0.25, 0)]
    sleepy += 0.125
    assert tick(17.0, busy + sleepy) == [(keys[1], 0.125, 0)], "awake, it is read again"


def test_kernel_threads_and_interrupts_are_the_kernels(tree: Tree, read: Read) -> None:
    """Fault 35: where the root group has only kernel threads, unexplained use is interrupts."""
    tree.process(2, 1.0, comm="kworker/0:1", flags=0x00200000)
    tree.group("", 1.0, (2,))
    read(10.0)
    tree.process(2, 1.3, comm="kworker/0:1", flags=0x00200000)
    tree.group("", 1.5, (2,))
    use = read(11.0)
    assert use.groups == ()
    assert use.kernel_seconds == use.busy_seconds == pytest.approx(0.5)


def test_users_in_the_root_group_are_separated_from_the_kernel(tree: Tree, read: Read) -> None:
    tree.process(2, 1.0, comm="kworker/0:1", flags=0x00200000)
    tree.process(9, 1.0)
    root = tree.group("", 2.0, (2, 9))
    read(10.0)
    for seconds in (1.2, 1.4):
        tree.process(2, seconds, comm="kworker/0:1", flags=0x00200000)
        tree.process(9, seconds)
        tree.group("", 2 * seconds + 0.1, (2, 9))
        use = read(10.0 + seconds)
    assert use.kernel_seconds == pytest.approx(0.2)
    assert used_by_group(use) == [(root, 0.2, 1)]


def test_what_the_hypervisor_stole_is_not_use(tree: Tree, read: Read) -> None:
    """Linux before 6.14 counts steal into the root's usage_usec; user + system have it not."""
    read(10.0)
    (tree.cgroup / "cpu.stat").write_text("usage_usec 9000000\nuser_usec 300000\nsystem_usec 100000\nnice_usec 0\n")
    assert read(11.0).busy_seconds == pytest.approx(0.4)


def test_a_group_replaced_while_it_is_read_by_path_is_another(tree: Tree, read: Read, tmp_path: Path) -> None:
    """Fault 39: there is no descriptor that would return ENODEV."""
    old = tree.group("app", 3.0)
    tree.group("", 3.0)
    read(10.0)
    other = Tree(tmp_path / "other")
    other.group("app", 0.25)
    (tree.cgroup / "app").rename(tmp_path / "was")
    (other.cgroup / "app").rename(tree.cgroup / "app")
    new = GroupKey("/app", (tree.cgroup / "app").stat().st_ino)
    tree.group("", 3.25)
    uses = [read(11.0), read(21.0), read(32.0)]
    assert sum((use.ended for use in uses), ()) == (old,)
    assert sum((use.started for use in uses), ()) == (new,)
    assert sum(use.busy_seconds for use in uses) == pytest.approx(0.25)


def test_a_child_that_cannot_be_read_for_a_moment_is_neither_lost_nor_doubled(tree: Tree, read: Read) -> None:
    """Fault 12: its next reading covers both ticks, and no other group is charged for it meanwhile."""
    key = tree.group("app", 1.0)
    parent = tree.group("", 1.0)
    read(10.0)
    tree.group("", 2.0)
    (tree.cgroup / "app/cpu.stat").write_text("garbage\n")
    first = read(11.0)
    tree.group("", 2.5)
    tree.group("app", 2.5)
    second = read(12.0)
    assert first.groups == ()
    assert used_by_group(second) == [(key, 1.5, 0)]
    assert first.ended == second.ended == ()
    assert parent.path == "/"


def test_a_group_found_late_is_not_charged_what_its_parent_was(tree: Tree, read: Read) -> None:
    """It could not be opened at first, so its use was attributed to its parent."""
    tree.group("app", 3.0)
    (tree.cgroup / "app/cpu.stat").rename(tree.cgroup / "app/hidden")
    tree.group("", 4.0)
    read(10.0)
    tree.group("", 4.5)
    first = read(11.0)
    key = tree.group("app", 3.6)
    tree.group("", 4.7)
    second = read(21.0)
    tree.group("app", 4.0)
    tree.group("", 5.1)
    third = read(22.0)
    assert first.busy_seconds == pytest.approx(0.5)
    assert second.started == (key,)
    assert second.busy_seconds == pytest.approx(0.2)
    assert used_by_group(third) == [(key, 0.4, 0)]


def test_a_root_that_lags_behind_for_long_does_not_swallow_its_own_use_later(tree: Tree, read: Read) -> None:
    """The v2 root counts in scheduler ticks and may show less than the groups below it, hour by hour."""
    tree.group("app", 0.0)
    read(0.0)
    for second in range(1, 100):
        tree.group("app", 1.0 * second)
        tree.group("", 0.9 * second)
        assert read(1.0 * second).busy_seconds == pytest.approx(1.0)
    kernel = 0.0
    for second in range(10):
        tree.group("", 0.9 * 99 + 0.5 * (second + 1))
        kernel += read(100.0 + second).kernel_seconds
    assert kernel >= 3.5


def test_a_root_that_lags_behind_hides_no_group_that_becomes_active(tree: Tree, read: Read) -> None:
    """What a hypervisor stole is in the counters of groups and not in the root's, and /proc may hide its threads."""
    busy, sleepy = tree.group("busy", 0.0), tree.group("sleepy", 0.0)
    read(0.0)
    for second in range(1, 6):
        tree.group("busy", 1.0 * second)
        tree.group("", 0.5 * second)
        assert used_by_group(read(1.0 * second)) == [(busy, 1.0, 0)]
    tree.group("busy", 6.0)
    tree.group("sleepy", 0.9)
    tree.group("", 3.45)
    assert used_by_group(read(6.0)) == [(busy, 1.0, 0), (sleepy, 0.9, 0)]


def test_use_too_small_to_look_for_waits_for_the_full_walk_and_is_charged_to_no_other(tree: Tree, read: Read) -> None:
    """The parent of fifty sleepers counts 50 microseconds more than they, or so it seems: each is rounded."""
    keys = [tree.group(f"pod/g{number}", 0.0) for number in range(50)]
    used = busy = 0.0
    read(0.0)
    whose = []
    for second in range(1, 22):
        used += 4e-6 if second in (6, 7, 8, 16, 17) else 0.0
        busy += 0.5
        tree.group("pod/g0", busy)
        tree.group("pod/g7", used)
        for path in ("pod", ""):
            tree.group(path, used + busy)
        whose += [(second, *use[:2]) for use in used_by_group(read(1.0 * second)) if use[0] != keys[0]]
    assert whose == [(10, keys[7], 12e-6), (20, keys[7], 8e-6)]


def test_a_tree_that_vanishes_ends_its_groups_and_comes_back(tree: Tree, tmp_path: Path, read: Read) -> None:
    """Groups that are still the same after a moment never ended; processes are followed on."""
    tree.process(7, 1.0)
    app = tree.group("app", 1.0, (7,))
    gone = tree.group("gone", 0.5)
    root = tree.group("", 1.5)
    assert set(read(10.0).started) == {root, app, gone}
    tree.process(7, 2.0)
    tree.group("app", 2.0, (7,))
    tree.group("", 2.5)
    assert read(11.0).busy_seconds == pytest.approx(1.0)
    tree.cgroup.rename(tmp_path / "away")
    with pytest.raises(Unavailable):
        read(30.0)
    with pytest.raises(Unavailable):
        read(31.0)
    (tmp_path / "away").rename(tree.cgroup)
    shutil.rmtree(tree.cgroup / "gone")
    use = read(32.0)
    assert (use.started, use.ended, use.exited, use.busy_seconds) == ((), (gone,), (), 0.0)
    tree.process(7, 2.5)
    tree.group("app", 2.5, (7,))
    tree.group("", 3.0)
    use = read(33.0)
    assert used_by_group(use) == [(app, 0.5, 1)]


def test_nothing_stays_open_when_a_tree_cannot_be_read(tree: Tree) -> None:
    (tree.cgroup / "cpu.stat").write_text("garbage\n")
    host = tree.host()
    source = CgroupSource(host)
    for now in range(5):
        with pytest.raises(Unavailable) as caught:
            source.read(float(now))
        assert caught.value.reason == "implausible"
    source.close()
    assert host.fds.left == 100


def test_groups_are_found_where_link_counts_are_useless(tmp_path: Path) -> None:
    """On overlayfs a directory has one link, whatever is in it (cgroupfs and tmpfs count subdirectories)."""
    for name in ("lower/cgroup/a/b", "upper/cgroup/a/b", "work", "merged"):
        (tmp_path / name).mkdir(parents=True)
    options = f"lowerdir={tmp_path}/lower,upperdir={tmp_path}/upper,workdir={tmp_path}/work"
    command = ["mount", "-t", "overlay", "-o", options, "overlay", str(tmp_path / "merged")]
    mounted = subprocess.run(command, check=False, capture_output=True)
    if mounted.returncode:
        pytest.skip(f"no overlay can be mounted here: {mounted.stderr!r}")
    try:
        tree = Tree(tmp_path / "merged")
        tree.group("a", 0.0)
        tree.group("a/b", 0.0)
        source = CgroupSource(tree.host())
        source.read(0.0)
        key = tree.group("a/c", 0.5)
        tree.group("a", 0.5)
        tree.group("", 0.5)
        use = source.read(1.0).cpu
        source.close()
        assert (tree.cgroup / "a").stat().st_nlink == 1
        assert use is not None
        assert use.started == (key,)
        assert used_by_group(use) == [(key, 0.5, 0)]
    finally:
        subprocess.run(["umount", str(tmp_path / "merged")], check=True)
