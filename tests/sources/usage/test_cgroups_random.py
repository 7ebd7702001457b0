"""Random cgroup trees, compared at every tick with the true use: of which group, how soon, and once."""

from __future__ import annotations

import errno
import os
import random
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from exporter.host import FdBudget, Host, KeptFile, unavailable
from exporter.records import GroupKey, ProcessKey, Unavailable
from exporter.sources.usage.cgroups import CgroupSource

TICKS = 120
FULL_WALK_SECONDS = 10.0
TICK_NANOSECONDS = 10**9 // os.sysconf("SC_CLK_TCK")
AT_ONCE = 60_000_000
"""Nanoseconds of a new group that are never overlooked: it is looked for in the same tick."""


class KernelFile(KeptFile):
    """Reading the file of a deleted group fails, as on cgroupfs, and of those in ``failing`` with that error."""

    __slots__ = ("_failing",)

    def __init__(self, path: str, budget: FdBudget, failing: dict[str, int]) -> None:
        self._failing = failing
        if path in failing:
            raise unavailable(OSError(failing[path], "injected"), path)
        super().__init__(path, budget)

    def read(self, size: int = 4096) -> bytes:
        error = self._failing.get(self.path, 0)
        if self._fd >= 0 and not os.fstat(self._fd).st_nlink:
            error = errno.ENODEV
        if error:
            raise unavailable(OSError(error, "injected"), self.path)
        return super().read(size)

    def reader(self, size: int) -> Callable[[], bytes]:
        return lambda: self.read(size)


@dataclass(frozen=True, slots=True)
class Machine(Host):
    """Written files that fail on demand: path → errno."""

    failing: dict[str, int] = field(default_factory=dict)

    def keep(self, path: str) -> KeptFile:
        return KernelFile(path, self.fds, self.failing)


class Cgroup:
    """What it used, in nanoseconds: ``own`` without its children, and ``lost`` in those that are gone (``dead``)."""

    def __init__(self, parent: Cgroup | None, directory: Path) -> None:
        directory.mkdir(exist_ok=True)
        self.parent = parent
        self.directory = directory
        path = "/" if parent is None else f"{parent.key.path.rstrip('/')}/{directory.name}"
        self.key: GroupKey = GroupKey(path, directory.stat().st_ino)
        self.children: dict[str, Cgroup] = {}
        self.members: dict[int, Member] = {}
        self.dead: list[GroupKey] = []
        self.own = self.lost = 0
        self.ever_inhabited = False

    def total(self) -> int:
        return self.own + self.lost + sum(child.total() for child in self.children.values())

    def tree(self) -> Iterator[Cgroup]:
        yield self
        for child in self.children.values():
            yield from child.tree()

    def up(self) -> Iterator[Cgroup]:
        group: Cgroup | None = self
        while group is not None:
            yield group
            group = group.parent


@dataclass
class Member:
    key: ProcessKey
    home: Cgroup
    nanoseconds: int = 0


class World:
    """A tree that lives at random, and what the source told about it so far.

    ``other_clock``: the root is counted in scheduler ticks and without what a hypervisor stole, as that of v2 is.
    """

    def __init__(self, top: Path, seed: int, *, groups: int, fds: int, v1: bool, other_clock: bool) -> None:
        self.dice = random.Random(seed)
        self.most, self.v1, self.other_clock = groups, v1, other_clock
        self.proc, self.graves = top / "proc", top / "graves"
        self.proc.mkdir()
        self.graves.mkdir()
        (self.proc / "stat").write_text("cpu  0 0 0 0 0 0 0\n")
        self.host = Machine(str(self.proc), str(top), str(top / "cgroup"), clock=lambda: 0.0, fds=FdBudget(fds))
        self.now = 1000.0
        self.pids = 0
        self.deaths = self.births = 0
        self.written: dict[Path, str] = {}
        self.root = Cgroup(None, top / "cgroup")
        self.told: defaultdict[GroupKey, float] = defaultdict(float)
        self.kernel = 0.0
        self.told_of: defaultdict[ProcessKey, float] = defaultdict(float)
        self.started: Counter[GroupKey] = Counter()
        self.ended: Counter[GroupKey] = Counter()
        self.exited: Counter[ProcessKey] = Counter()
        self.processes: dict[ProcessKey, Member] = {}
        self.gone: set[ProcessKey] = set()
        self.full_at = float("-inf")
        self.certain = self.full = True
        self.looked = True
        self.root_before = ""
        for _ in range(groups):
            self.make()
        for group in self.root.tree():
            group.own = 0 if group.children else self.dice.randrange(10**10)
        self.base = {group.key: group.own for group in self.root.tree()}
        self.source = CgroupSource(self.host)

    # --- what happens ------------------------------------------------------------------------------

    def somewhere(self) -> Cgroup:
        return self.dice.choice(list(self.root.tree()))

    def make(self, parent: Cgroup | None = None, name: str = "") -> None:
        if self.host.failing or len(list(self.root.tree())) > self.most:
            return
        # What a child of a root on another clock used before it was found is known of nobody.
        known = self.other_clock and self.started
        empty = [group for group in self.root.tree() if not group.members and not (known and group is self.root)]
        parent = parent or self.dice.choice([group for group in empty if group.key.path.count("/") < 4] or [self.root])
        name = name or f"g{self.births}"
        made = parent.children[name] = Cgroup(parent, parent.directory / name)
        made.own = AT_ONCE
        self.births += 1
        for _ in range(self.dice.choice([0, 1, 3])):
            self.spawn(made)

    def spawn(self, group: Cgroup) -> None:
        if group.children and self.dice.random() < 0.8:
            return  # processes live in leaves, mostly
        self.pids = self.pids + 1 if self.dice.random() < 0.7 else self.dice.randrange(1, 40)
        if any(self.pids in other.members for other in self.root.tree()):
            return
        member = Member(ProcessKey(self.pids, round(self.now * 100)), group)
        group.members[self.pids] = self.processes[member.key] = member
        group.ever_inhabited = True
        (self.proc / str(self.pids)).mkdir(exist_ok=True)

    def birth(self) -> None:
        self.spawn(self.somewhere())

    def burn(self) -> None:
        group = self.somewhere()
        nanoseconds = self.dice.choice([700, 1_000, 3_000, 12_000, 50_000, 400_000, 3_000_000, 40_000_000, 900_000_000])
        if group.members:
            self.dice.choice(list(group.members.values())).nanoseconds += nanoseconds
        elif group.children:
            return
        group.own += nanoseconds

    def exit(self) -> None:
        members = [member for group in self.root.tree() for member in group.members.values()]
        if members:
            self.end(self.dice.choice(members))

    def end(self, member: Member) -> None:
        del member.home.members[member.key.pid]
        self.gone.add(member.key)
        self.written.pop(self.proc / str(member.key.pid) / "stat", None)
        (self.proc / str(member.key.pid) / "stat").unlink(missing_ok=True)
        (self.proc / str(member.key.pid)).rmdir()

    def move(self) -> None:
        members = [member for group in self.root.tree() for member in group.members.values()]
        home = self.somewhere()
        if members and not home.children:
            member = self.dice.choice(members)
            del member.home.members[member.key.pid]
            member.home = home
            home.members[member.key.pid] = member
            home.ever_inhabited = True

    def remove(self) -> None:
        group = self.somewhere()
        parent = group.parent
        if parent is None or (self.other_clock and parent is self.root) or self.host.failing:
            return
        if any(lost.key not in self.started for lost in group.tree()):
            return
        for lost in list(group.tree()):
            for member in list(lost.members.values()):
                self.end(member)
            parent.dead += [lost.key, *lost.dead]
        if self.dice.random() < 0.5:
            group.own += self.dice.choice([2_000, 100_000, 30_000_000])
        parent.lost += group.total()
        del parent.children[group.directory.name]
        for lost in group.tree():
            self.written.pop(lost.directory / self.file, None)
            (lost.directory / self.file).unlink(missing_ok=True)
        self.deaths += 1
        group.directory.rename(self.graves / str(self.deaths))  # or its inode were used again
        if self.host.fds.left and self.dice.random() < 0.5:
            self.make(parent, group.directory.name)

    def fail(self) -> None:
        error = self.dice.choice([errno.EIO, errno.EMFILE, errno.EACCES])
        group = self.somewhere()
        if group.key in self.started:
            self.host.failing[f"{group.directory}/{self.file}"] = error

    def live(self, faulty: bool) -> None:
        """Ticks in which much happens or nothing; after some of them the machine was suspended."""
        assert self.read()
        deeds = (self.burn, self.make, self.remove, self.birth, self.exit, self.move)
        for tick in range(TICKS):
            for deed in self.dice.choices(deeds, [14, 3, 1, 2, 1, 2], k=self.dice.choice([0, 1, 1, 2, 5])):
                deed()
            if faulty and self.dice.random() < 0.3:
                self.fail()
            if faulty and self.dice.random() < 0.3:
                self.host.failing.clear()
            if self.read(100.0 if tick % 50 == 37 else 1.0):
                self.check()

    # --- and how it looks --------------------------------------------------------------------------

    @property
    def file(self) -> str:
        return "cpuacct.usage" if self.v1 else "cpu.stat"

    def write(self) -> None:
        for group in self.root.tree():
            usage = group.total()
            if self.other_clock and group.parent is None:
                usage = round(usage * 0.8) // TICK_NANOSECONDS * TICK_NANOSECONDS
            micros = usage // 1000
            text = f"{usage}\n" if self.v1 else f"usage_usec {micros}\nuser_usec {micros}\nsystem_usec 0\n"
            self._put(group.directory / self.file, text)
            self._put(group.directory / "cgroup.procs", "".join(f"{pid}\n" for pid in group.members))
            if not (self.v1 or (self.other_clock and group.parent is None)):
                self._put(group.directory / "cgroup.events", "populated 1\n")
            for member in group.members.values():
                ticks = member.nanoseconds // TICK_NANOSECONDS
                tail = ["S", "1", "1", "1", "0", "-1", "0", *["0"] * 4, str(ticks), *["0"] * 7]
                stat = f"{member.key.pid} (worker) {' '.join(tail)} {member.key.start_ticks} 0 0\n"
                self._put(self.proc / str(member.key.pid) / "stat", stat)

    def _put(self, path: Path, text: str) -> None:
        if self.written.get(path) != text:
            self.written[path] = text
            path.write_text(text)

    def read(self, step: float = 1.0) -> bool:
        """One tick; False if the source could not read."""
        self.write()
        self.now += step
        try:
            use = self.source.read(self.now).cpu
        except Unavailable:
            assert self.host.failing
            self.certain = False
            return False
        assert use is not None
        self.full = self.now - self.full_at >= FULL_WALK_SECONDS
        if self.full:
            self.full_at = self.now
        self.certain = self.full or self.certain if not self.host.failing else False
        self.looked = self.full or self.written[self.root.directory / self.file] != self.root_before
        self.root_before = self.written[self.root.directory / self.file]
        assert use.busy_seconds == pytest.approx(sum(group.seconds for group in use.groups) + use.kernel_seconds)
        self.kernel += use.kernel_seconds
        for group in use.groups:
            assert group.seconds > 0
            assert sum(process.seconds for process in group.processes) <= group.seconds + 1e-9
            self.told[group.group] += group.seconds
            for process in group.processes:
                self.told_of[process.process.key] += process.seconds
        self.started.update(use.started)
        self.ended.update(use.ended)
        self.exited.update(use.exited)
        return True

    # --- what must hold ----------------------------------------------------------------------------

    def check(self) -> None:
        """All use up to this tick was reported, to the microseconds by which counters are rounded."""
        for counter in (self.started, self.ended, self.exited):
            assert not counter or max(counter.values()) == 1
        assert self.ended.keys() <= self.started.keys()
        assert self.exited.keys() <= self.gone
        if not self.certain or not self.looked:
            return
        for group in self.root.tree():
            if group.parent is None and self.other_clock:
                continue
            told = self.told[group.key] + sum(self.told[key] for key in group.dead)
            told += self.kernel if group.parent is None else 0.0
            used = (group.own + group.lost - self.base.get(group.key, 0) - self.base_of_dead(group)) * 1e-9
            slack = len(group.dead) + 3 + (0 if self.v1 else len(group.children))
            if not self.full:
                slack += 2 * max(len(above.children) for above in group.up())
            assert told == pytest.approx(used, abs=slack * 1e-6), (group.key.path, told - used)
            if not group.ever_inhabited and group.parent is not None:
                own = (group.own - self.base.get(group.key, 0)) * 1e-9
                assert self.told[group.key] <= own + slack * 1e-6, f"{group.key.path} is charged for others"

    def check_all(self) -> None:
        """After a full walk, all exits were reported, and no process had more than it used."""
        self.host.failing.clear()
        assert self.read(FULL_WALK_SECONDS)
        self.check()
        assert self.started.keys() - self.ended.keys() == {group.key for group in self.root.tree()}
        assert self.told_of.keys() & self.gone <= self.exited.keys()
        for key, seconds in self.told_of.items():
            assert seconds * 1e9 <= self.processes[key].nanoseconds + 1

    def base_of_dead(self, group: Cgroup) -> int:
        return sum(self.base.get(key, 0) for key in group.dead)


@pytest.mark.parametrize(
    ("groups", "fds", "v1", "other_clock"),
    [
        pytest.param(6, 1000, False, False, id="few"),
        pytest.param(50, 1000, False, False, id="many"),
        pytest.param(6, 0, False, False, id="by path"),
        pytest.param(50, 1000, True, False, id="v1"),
        pytest.param(20, 1000, False, True, id="root on another clock"),
    ],
)
@pytest.mark.parametrize("seed", range(2))
def test_every_second_is_reported_in_its_tick_for_its_owner_and_once(
    tmp_path: Path, groups: int, fds: int, v1: bool, other_clock: bool, seed: int
) -> None:
    """Faults 12, 34, 35, 38, 39, 41, 42: whatever comes, goes, moves, sleeps, wakes up and cannot be read."""
    world = World(tmp_path, seed, groups=groups, fds=fds, v1=v1, other_clock=other_clock)
    world.live(faulty=seed % 2 == 1)
    world.check_all()
    world.source.close()
    assert world.host.fds.left == fds
    assert len(world.told) > 5
    assert world.told_of
    assert world.exited
