"""CPU use by cgroup: real cgroups with real processes, and written trees for what no kernel does on call."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from exporter.host import FdBudget, Host, boot_seconds
from exporter.records import CpuUse, GroupKey, ProcessKey, Unavailable
from exporter.sources.usage.cgroup_tree import find_hierarchy
from exporter.sources.usage.cgroups import CgroupSource
from tests.support.patience import wait_for
from tests.support.repository import REPOSITORY

TICK_SECONDS = 0.012
"""Kernel counters lag behind a running process by one scheduler tick: 1 to 10 ms."""

WORKER = """
import os, signal, sys, time
def spin(seconds):
    end = time.process_time() + seconds
    while time.process_time() < end:
        pass
for line in sys.stdin:
    verb, *words = line.split()
    if verb == "spin":
        spin(float(words[0]))
    elif verb == "herd":  # one child per directory, which spins when it gets SIGUSR1
        ready, tell = os.pipe()
        pids = []
        for directory in words[1:]:
            pid = os.fork()
            if pid == 0:
                signal.signal(signal.SIGUSR1, lambda *_: spin(float(words[0])))
                if directory != ".":
                    with open(directory + "/cgroup.procs", "w") as file:
                        file.write("0")
                os.write(tell, b"!")
                while True:
                    signal.pause()
            pids.append(pid)
        waiting = len(pids)
        while waiting:
            waiting -= len(os.read(ready, waiting))
        print(*pids, flush=True)
        continue
    print(time.process_time(), flush=True)
"""


class Worker:
    """A process that burns CPU time when told to, and says how much it used so far."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-S", "-E", "-c", WORKER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self.pid = self._process.pid
        self._herd: list[int] = []
        self.ask("hello")

    @property
    def key(self) -> ProcessKey:
        return ProcessKey(self.pid, start_ticks(self.pid))

    def ask(self, line: str) -> str:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(line + "\n")
        self._process.stdin.flush()
        return self._process.stdout.readline()

    def spin(self, seconds: float) -> float:
        """Burn CPU time; returns all CPU seconds it used so far by its own clock."""
        return float(self.ask(f"spin {seconds}"))

    def herd(self, spin_seconds: float, directories: list[str]) -> list[int]:
        """Fork a child into each directory ("." stays here); SIGUSR1 makes one spin."""
        self._herd = [int(pid) for pid in self.ask(" ".join(["herd", str(spin_seconds), *directories])).split()]
        return self._herd

    def stop(self) -> None:
        for pid in self._herd:
            os.kill(pid, signal.SIGKILL)
        self._process.kill()
        self._process.communicate()


class Forest:
    """A cgroup of our own below a real hierarchy, taken as the root of everything."""

    def __init__(self, parent: str, counter: str) -> None:
        self.root = tempfile.mkdtemp(prefix=f"aee-test-{os.getpid()}-", dir=parent)
        os.chmod(self.root, 0o755)
        self._counter = counter
        self._workers: list[Worker] = []

    def make(self, path: str) -> str:
        os.makedirs(self.path(path))
        return self.path(path)

    def remove(self, path: str) -> None:
        """Remove a group as soon as the kernel has let go of its last process."""
        for _ in range(500):
            try:
                return os.rmdir(self.path(path))
            except OSError:
                time.sleep(0.002)
        raise TimeoutError(path)

    def path(self, path: str) -> str:
        return f"{self.root}/{path}".rstrip("/")

    def move(self, pid: int, path: str) -> None:
        Path(self.path(path), "cgroup.procs").write_text(str(pid))

    def worker(self, path: str) -> Worker:
        worker = Worker()
        self._workers.append(worker)
        self.move(worker.pid, path)
        return worker

    def used(self, path: str = "") -> float:
        """CPU seconds of a group and all below it, by the kernel's counter."""
        text = Path(self.path(path), self._counter).read_text()
        return int(text.split()[1]) / 1e6 if text.startswith("usage") else int(text) / 1e9

    def key(self, path: str) -> GroupKey:
        return GroupKey("/" + path, os.stat(self.path(path)).st_ino)

    def close(self) -> None:
        for worker in self._workers:
            worker.stop()
        for directory, _, _ in list(os.walk(self.root, topdown=False)):
            self.remove(os.path.relpath(directory, self.root) if directory != self.root else "")


def start_ticks(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19])


def mount_point(kind: str) -> str | None:
    for line in Path("/proc/mounts").read_text().splitlines():
        _, where, what, options, *_ = line.split()
        if (kind == "v2" and what == "cgroup2") or (
            kind == "v1" and what == "cgroup" and "cpuacct" in options.split(",")
        ):
            return where
    return None


@pytest.fixture(params=["v2", "v1"])
def forest(request: pytest.FixtureRequest) -> Iterator[Forest]:
    where = mount_point(request.param)
    if where is None:
        pytest.skip(f"no cgroup {request.param} tree with CPU accounting is mounted here")
    try:
        made = Forest(where, "cpu.stat" if request.param == "v2" else "cpuacct.usage")
    except OSError as error:
        pytest.skip(f"cgroups cannot be made here: {error}")
    try:
        yield made
    finally:
        made.close()


class Ticker:
    """Reads a source and keeps the sums; ``skip`` seconds may be added to its clock."""

    def __init__(self, host: Host) -> None:
        self.source = CgroupSource(host)
        self.skip = 0.0
        self.busy = 0.0
        self.groups: defaultdict[GroupKey, float] = defaultdict(float)
        self.processes: defaultdict[ProcessKey, float] = defaultdict(float)
        self.started: list[GroupKey] = []
        self.ended: list[GroupKey] = []
        self.exited: list[ProcessKey] = []

    def read(self) -> CpuUse:
        use = self.source.read(boot_seconds() + self.skip).cpu
        assert use is not None
        total = sum(group.seconds for group in use.groups) + use.kernel_seconds + use.exited_seconds
        assert use.busy_seconds == pytest.approx(total, abs=1e-12)
        self.busy += use.busy_seconds
        for group in use.groups:
            assert group.seconds > 0
            assert sum(process.seconds for process in group.processes) <= group.seconds + 1e-9
            self.groups[group.group] += group.seconds
            for process in group.processes:
                self.processes[process.process.key] += process.seconds
        self.started += use.started
        self.ended += use.ended
        self.exited += use.exited
        return use

    def full(self) -> CpuUse:
        """A tick in which everything is looked at, as every 10 s."""
        self.skip += 11
        return self.read()


@pytest.fixture
def ticker(forest: Forest) -> Iterator[Ticker]:
    made = Ticker(Host(cgroupfs=forest.root))
    try:
        yield made
    finally:
        made.source.close()


def open_fds() -> int:
    return len(os.listdir("/proc/self/fd"))


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


def test_every_used_second_is_told_once_whatever_groups_and_processes_do(forest: Forest, ticker: Ticker) -> None:
    """Faults 35, 38, 39, 41: books equal the kernel's counter of the root, and lists of events are consistent."""
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


def test_who_slept_beside_a_busy_neighbour_is_told_in_the_very_tick_it_wakes(forest: Forest, ticker: Ticker) -> None:
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


def test_the_end_of_a_group_is_told_at_once_although_others_beside_it_sleep(forest: Forest, ticker: Ticker) -> None:
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


def test_the_last_seconds_of_a_pod_are_not_those_of_who_slept_in_it(forest: Forest, ticker: Ticker) -> None:
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


def test_a_ghost_expires_although_nothing_moves(forest: Forest, ticker: Ticker) -> None:
    """Fault 42: an idle group is deleted; no counter tells, so the walk of everything must."""
    forest.make("ghost")
    key = forest.key("ghost")
    ticker.read()
    forest.remove("ghost")
    assert ticker.read().ended == ()
    assert ticker.full().ended == (key,)
    assert ticker.full().ended == ()


def test_a_process_that_moves_is_charged_once(forest: Forest, ticker: Ticker) -> None:
    """Fault 41: and each group pays for what was used in it."""
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


def test_a_process_that_exits_is_told_once(forest: Forest, ticker: Ticker) -> None:
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
    """Nobody may have waited for it yet, but it uses nothing any more; it is not found again and again."""
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


def test_a_counter_that_somebody_resets_goes_on(forest: Forest, ticker: Ticker) -> None:
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


# --- many of them ------------------------------------------------------------------------------------------


def test_a_fork_storm_bounds_the_time_of_a_read(forest: Forest, ticker: Ticker) -> None:
    """Fault 36: thousands of processes that live for less than a tick; the group pays for all of them."""
    directory = forest.make("storm")
    ticker.read()
    script = f"echo 0 > {directory}/cgroup.procs; i=0; while [ $i -lt 4000 ]; do (:); i=$((i+1)); done"
    storm = subprocess.Popen(["sh", "-c", script])
    reads = []
    fds = open_fds()
    while storm.poll() is None:
        began = time.thread_time()
        ticker.read()
        reads.append(time.thread_time() - began)
        assert open_fds() - fds < 100
        time.sleep(0.02)
    ticker.read()
    assert max(reads) < 0.1
    assert sum(reads) / len(reads) < 0.01
    assert ticker.groups[forest.key("storm")] == pytest.approx(forest.used("storm"), abs=TICK_SECONDS)


def test_thousands_of_live_processes_are_followed_by_and_by(forest: Forest, ticker: Ticker) -> None:
    """Faults 36, 37: no more than 512 new ones a tick, and a member list beyond one page is read whole."""
    forest.make("crowd")
    worker = forest.worker("crowd")
    count = 1000
    pids = worker.herd(0.03, ["."] * count)
    assert len(pids) == count
    ticker.read()
    fds = open_fds()
    last = int(Path(forest.path("crowd"), "cgroup.procs").read_text().split()[-1])
    for round_ in range(6):
        os.kill(last, signal.SIGUSR1)
        time.sleep(0.05)
        began = time.thread_time()
        ticker.skip += 5
        ticker.read()
        assert time.thread_time() - began < 0.5
        assert open_fds() - fds <= 512 * (round_ + 1) + 10

    def is_followed() -> bool:
        ticker.read()
        return ticker.processes[ProcessKey(last, start_ticks(last))] >= 0.03

    wait_for(is_followed, "the last of them", every_seconds=0.05)
    quiet = []
    for _ in range(5):
        began = time.thread_time()
        ticker.read()
        quiet.append(time.thread_time() - began)
    assert min(quiet) < 0.002


def test_no_descriptor_leaks_over_a_thousand_ticks_of_churn(forest: Forest) -> None:
    """Fault 60: a group and a process are born and die on every tick."""
    host = Host(cgroupfs=forest.root)
    budget = host.fds.left
    before = open_fds()
    ticker = Ticker(host)
    script = 'while read g; do (echo 0 > "$g/cgroup.procs"; i=0; while [ $i -lt 300 ]; do i=$((i+1)); done); echo; done'
    shell = subprocess.Popen(["sh", "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert shell.stdin is not None
    assert shell.stdout is not None
    during = []
    for step in range(1000):
        directory = forest.make(f"churn-{step}")
        shell.stdin.write(directory + "\n")
        shell.stdin.flush()
        shell.stdout.readline()
        if step % 50 == 0:
            ticker.full()
            during.append(open_fds())
        else:
            ticker.read()
        forest.remove(f"churn-{step}")
    shell.communicate()
    ticker.full()
    assert len(set(ticker.started)) == len(ticker.started) > 900
    assert set(ticker.ended) == {key for key in ticker.started if key.path != "/"}
    assert max(during[2:]) - min(during[2:]) <= 8
    ticker.source.close()
    assert open_fds() == before
    assert host.fds.left == budget


LIMITED = """
import json, os, sys
from exporter.host import FdBudget, Host, boot_seconds
from exporter.sources.usage.cgroups import CgroupSource
source = CgroupSource(Host(cgroupfs=sys.argv[1], fds=FdBudget.of_process()))
skip = 0
for line in sys.stdin:
    skip += 11
    use = source.read(boot_seconds() + skip).cpu
    print(json.dumps({
        "fds": len(os.listdir("/proc/self/fd")),
        "groups": {group.group.path: group.seconds for group in use.groups},
        "processes": {p.process.key.pid: p.seconds for group in use.groups for p in group.processes},
        "exited": [key.pid for key in use.exited],
        "ended": len(use.ended),
    }), flush=True)
"""


def test_64_descriptors_are_enough(forest: Forest) -> None:
    """Fault 60: 200 groups with a process each; what cannot be kept open is opened again, with the same numbers."""
    names = [f"g{number}" for number in range(200)]
    directories = [forest.make(name) for name in names]
    worker = forest.worker("")
    pids = worker.herd(0.02, directories)
    reader = subprocess.Popen(
        ["sh", "-c", 'ulimit -n 64; exec "$@"', "sh", sys.executable, "-c", LIMITED, forest.root],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=REPOSITORY,
    )
    try:

        def read() -> dict[str, object]:
            assert reader.stdin is not None
            assert reader.stdout is not None
            reader.stdin.write("\n")
            reader.stdin.flush()
            answer: dict[str, object] = json.loads(reader.stdout.readline())
            return answer

        fds = [read()["fds"]]
        for _ in range(3):
            before = {name: forest.used(name) for name in names}
            for pid in pids[:50]:
                os.kill(pid, signal.SIGUSR1)
            time.sleep(0.01)
            while any(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "R" for pid in pids[:50]):
                time.sleep(0.01)
            use = read()
            fds.append(use["fds"])
        groups, processes = use["groups"], use["processes"]
        assert isinstance(groups, dict)
        assert isinstance(processes, dict)
        for name, pid in list(zip(names, pids, strict=True))[:50]:
            used = forest.used(name) - before[name]
            assert groups["/" + name] == pytest.approx(used, abs=1e-3)
            assert processes[str(pid)] == pytest.approx(used, abs=0.021)
        assert isinstance(fds[0], int)
        assert max(int(str(count)) for count in fds) <= 64
        assert len(set(fds[1:])) == 1
        worker.stop()
        exited: list[int] = []
        for name in names:
            forest.remove(name)
        ended = 0
        for _ in range(2):
            use = read()
            assert isinstance(use["exited"], list)
            assert isinstance(use["ended"], int)
            exited += use["exited"]
            ended += use["ended"]
        assert ended == 200
        assert sorted(set(exited)) == sorted(exited)
        assert set(pids[:50]) <= set(exited)
    finally:
        reader.communicate()


HIDDEN = """
import os, sys
from exporter.host import Host, boot_seconds
from exporter.sources.usage.cgroups import CgroupSource
os.setgroups([])
os.setresgid(65534, 65534, 65534)
os.setresuid(65534, 65534, 65534)
source = CgroupSource(Host(procfs=sys.argv[1], cgroupfs=sys.argv[2]))
for line in sys.stdin:
    reading = source.read(boot_seconds())
    groups = [(group.group.path, len(group.processes)) for group in reading.cpu.groups]
    print(groups, [(problem.reason, bool(problem.fix)) for problem in reading.problems], flush=True)
"""


def test_hidden_processes_leave_their_use_with_the_group_and_are_told_once(forest: Forest) -> None:
    """Fault 48: a /proc mounted with hidepid=2, read as nobody."""
    proc = tempfile.mkdtemp()
    os.chmod(proc, 0o755)
    mounted = subprocess.run(["mount", "-t", "proc", "-o", "hidepid=2", "proc", proc], check=False, capture_output=True)
    try:
        if mounted.returncode:
            pytest.skip(f"no /proc can be mounted here: {mounted.stderr!r}")
        forest.make("app")
        worker = forest.worker("app")
        reader = subprocess.Popen(
            [sys.executable, "-c", HIDDEN, proc, forest.root],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=REPOSITORY,
        )
        try:
            assert reader.stdin is not None
            assert reader.stdout is not None
            answers = []
            for _ in range(4):
                reader.stdin.write("\n")
                reader.stdin.flush()
                answers.append(reader.stdout.readline().strip())
                worker.spin(0.03)
        finally:
            reader.communicate()
        # The problem stays while nothing is scanned again, so that it is one line in the log.
        assert answers == ["[] []", *["[('/app', 0)] [('permission', True)]"] * 3]
    finally:
        if not mounted.returncode:
            subprocess.run(["umount", proc], check=True)
        os.rmdir(proc)


# --- written trees -----------------------------------------------------------------------------------------


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


def told(use: CpuUse) -> list[tuple[GroupKey, float, int]]:
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
    assert told(use) == [(group, 1.0, 1)]
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
    assert [(key, seconds) for use in later for key, seconds, _ in told(use)] == [(group, 1.0)] * 2


def test_an_exit_is_told_once_without_pidfds_even_if_its_group_sleeps(tree: Tree, read: Read) -> None:
    """Another machine's /proc has no pidfds: who is gone is found out at the walk of everything."""
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
        return told(read(now))

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
    """Fault 35: where only kernel threads live in the root group, what nobody explains is interrupts."""
    tree.process(2, 1.0, comm="kworker/0:1", flags=0x00200000)
    tree.group("", 1.0, (2,))
    read(10.0)
    tree.process(2, 1.3, comm="kworker/0:1", flags=0x00200000)
    tree.group("", 1.5, (2,))
    use = read(11.0)
    assert use.groups == ()
    assert use.kernel_seconds == use.busy_seconds == pytest.approx(0.5)


def test_users_in_the_root_group_are_told_apart_from_the_kernel(tree: Tree, read: Read) -> None:
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
    assert told(use) == [(root, 0.2, 1)]


def test_what_the_hypervisor_stole_is_not_use(tree: Tree, read: Read) -> None:
    """Linux before 6.14 counts steal into the root's usage_usec; user + system have it not."""
    read(10.0)
    (tree.cgroup / "cpu.stat").write_text("usage_usec 9000000\nuser_usec 300000\nsystem_usec 100000\nnice_usec 0\n")
    assert read(11.0).busy_seconds == pytest.approx(0.4)


def test_a_group_replaced_while_it_is_read_by_path_is_another(tree: Tree, read: Read, tmp_path: Path) -> None:
    """Fault 39: no descriptor was spared that would say ENODEV."""
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
    """Fault 12: its next reading covers both ticks, and nobody else is charged for it meanwhile."""
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
    assert told(second) == [(key, 1.5, 0)]
    assert first.ended == second.ended == ()
    assert parent.path == "/"


def test_a_group_found_late_is_not_charged_for_what_its_parent_paid(tree: Tree, read: Read) -> None:
    """It could not be opened at first, so its use was booked as its parent's own."""
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
    assert told(third) == [(key, 0.4, 0)]


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


def test_a_root_that_lags_behind_hides_nobody_who_wakes(tree: Tree, read: Read) -> None:
    """What a hypervisor stole is in the counters of groups and not in the root's, and /proc may hide its threads."""
    busy, sleepy = tree.group("busy", 0.0), tree.group("sleepy", 0.0)
    read(0.0)
    for second in range(1, 6):
        tree.group("busy", 1.0 * second)
        tree.group("", 0.5 * second)
        assert told(read(1.0 * second)) == [(busy, 1.0, 0)]
    tree.group("busy", 6.0)
    tree.group("sleepy", 0.9)
    tree.group("", 3.45)
    assert told(read(6.0)) == [(busy, 1.0, 0), (sleepy, 0.9, 0)]


def test_use_too_small_to_look_for_waits_for_the_full_walk_and_is_nobody_elses(tree: Tree, read: Read) -> None:
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
        whose += [(second, *use[:2]) for use in told(read(1.0 * second)) if use[0] != keys[0]]
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
    assert told(use) == [(app, 0.5, 1)]


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


def test_groups_are_found_where_link_counts_say_nothing(tmp_path: Path) -> None:
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
        assert told(use) == [(key, 0.5, 0)]
    finally:
        subprocess.run(["umount", str(tmp_path / "merged")], check=True)


# --- which tree --------------------------------------------------------------------------------------------


def hybrid(root: Path, v1: int, v2: int) -> Host:
    base = root / "sys/fs/cgroup"
    for name, file, text, count in (
        ("cpu,cpuacct", "cpuacct.usage", "1000000000\n", v1),
        ("unified", "cpu.stat", "usage_usec 1000000\n", v2),
    ):
        for directory in [base / name, *[base / name / f"g{number}" for number in range(count)]]:
            directory.mkdir(parents=True, exist_ok=True)
            (directory / file).write_text(
                text if directory == base / name else "0\n" if name != "unified" else "usage_usec 0\n"
            )
            (directory / "cgroup.procs").write_text("")
    (base / "cpuacct").unlink(missing_ok=True)
    (base / "cpuacct").symlink_to("cpu,cpuacct")
    (root / "proc").mkdir(exist_ok=True)
    return Host(str(root / "proc"), str(root / "sys"), clock=lambda: 0.0)


def test_v2_is_found_below_sys(tmp_path: Path) -> None:
    base = tmp_path / "sys/fs/cgroup"
    base.mkdir(parents=True)
    (base / "cpu.stat").write_text("usage_usec 0\n")
    assert find_hierarchy(Host(sysfs=str(tmp_path / "sys"))).root == str(base)


def test_a_hybrid_host_is_read_where_more_groups_are(tmp_path: Path) -> None:
    base = f"{tmp_path}/sys/fs/cgroup"
    assert find_hierarchy(hybrid(tmp_path, 3, 1)).root == f"{base}/cpuacct"
    assert find_hierarchy(hybrid(tmp_path, 3, 7)).root == f"{base}/unified"


def test_a_root_that_counts_nothing_is_not_taken(tmp_path: Path) -> None:
    """The root of cgroup2 has a cpu.stat since Linux 5.8 only; on older kernels v1 knows."""
    host = hybrid(tmp_path, 1, 5)
    (tmp_path / "sys/fs/cgroup/unified/cpu.stat").unlink()
    assert find_hierarchy(host).root.endswith("/cpuacct")


def test_no_tree_is_an_error_with_a_remedy(tmp_path: Path) -> None:
    with pytest.raises(Unavailable) as caught:
        find_hierarchy(Host(sysfs=str(tmp_path)))
    assert caught.value.reason == "not_found"
    assert "--path.cgroupfs" in caught.value.fix


def test_a_hybrid_host_changes_trees_when_engines_do(tmp_path: Path) -> None:
    """All groups of the one tree end, those of the other start, and nothing is booked twice."""
    host = hybrid(tmp_path, 2, 1)
    source = CgroupSource(host)
    first = source.read(0.0).cpu
    hybrid(tmp_path, 2, 9)
    same = source.read(30.0).cpu
    moved = source.read(61.0).cpu
    source.close()
    assert first is not None
    assert same is not None
    assert moved is not None
    assert (len(first.started), same.started, same.ended) == (3, (), ())
    assert set(moved.ended) == set(first.started)
    assert len(moved.started) == 10
    assert moved.busy_seconds == 0.0
    assert host.fds.left == 1024
