"""Many groups and processes: bounded time, no leaked descriptors, few descriptors, hidden processes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest

from exporter.host import Host
from exporter.records import ProcessKey
from tests.support.cgroups import TICK_SECONDS, Forest, Ticker, open_fds, start_ticks
from tests.support.patience import patience
from tests.support.repository import REPOSITORY


def test_a_fork_storm_bounds_the_time_of_a_read(forest: Forest, ticker: Ticker) -> None:
    """Fault 36: thousands of processes that live for less than a tick; the group is charged for all of them."""
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
    deadline = time.monotonic() + patience(30)
    while ticker.processes[ProcessKey(last, start_ticks(last))] < 0.03:
        assert time.monotonic() < deadline
        time.sleep(0.05)
        ticker.read()
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
    groups = [(group.group.path, len(group.processes), group.listing) for group in reading.cpu.groups]
    print(groups, [(problem.reason, bool(problem.fix)) for problem in reading.problems], flush=True)
"""


def test_use_of_hidden_processes_stays_with_the_group_and_is_one_problem(forest: Forest) -> None:
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
        assert answers == ["[] []", *["[('/app', 0, 'partial')] [('permission', True)]"] * 3]
    finally:
        if not mounted.returncode:
            subprocess.run(["umount", proc], check=True)
        os.rmdir(proc)
