"""Threads of one process in several groups: google/cadvisor#3056, opencontainers/runc#3894, kubevirt#8233."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from exporter.host import Host
from exporter.records import ProcessKey
from tests.support.cgroups import Forest, Ticker, start_ticks
from tests.support.written_cgroups import WrittenMachine

SCOPE = r"/machine.slice/machine-qemu\x2d1\x2dvm.scope"

TWO_THREADS = """
import sys, threading, time
def spin(tasks):
    with open(tasks, "w") as file:
        file.write(str(threading.get_native_id()))
    ready.wait()
    go.wait()
    end = time.thread_time() + 0.4
    while time.thread_time() < end:
        pass
go, ready = threading.Event(), threading.Barrier(3)
threads = [threading.Thread(target=spin, args=(tasks,)) for tasks in sys.argv[1:]]
for thread in threads:
    thread.start()
ready.wait()
print("ready", flush=True)
sys.stdin.readline()
go.set()
for thread in threads:
    thread.join()
print(time.process_time(), flush=True)
sys.stdin.readline()
"""


def vm(machine: WrittenMachine, base: str, *listed: int) -> None:
    """Four virtual CPUs at work for ten seconds."""
    for name in ("emulator", "vcpu0", "vcpu1", "vcpu2", "vcpu3"):
        machine.group(f"{base}/{name}", *listed)
    machine.process(4242)
    machine.tick()
    for _ in range(10):
        for number in range(4):
            machine.run(f"{base}/vcpu{number}", 4242, 1.0)
        machine.tick()


def test_groups_of_v1_that_list_one_process_are_one(tmp_path: Path) -> None:
    machine = WrittenMachine(tmp_path)
    vm(machine, SCOPE, 4242)
    assert machine.by_path() == {SCOPE: 40.0}
    assert machine.processes[4242] == pytest.approx(40.0)
    assert not {key.path for key in machine.started if "vcpu" in key.path}


def test_a_virtual_cpu_that_is_plugged_in_later_joins_them(tmp_path: Path) -> None:
    machine = WrittenMachine(tmp_path)
    vm(machine, SCOPE, 4242)
    machine.group(f"{SCOPE}/vcpu4", 4242)
    for _ in range(5):
        machine.run(f"{SCOPE}/vcpu4", 4242, 1.0)
        machine.run(f"{SCOPE}/vcpu0", 4242, 1.0)
        machine.tick(11.0)
    assert sum(machine.groups.values()) == pytest.approx(51.0, abs=1.01)  # its counter began at 1 s
    assert machine.processes[4242] >= 48.0


def test_threads_in_groups_of_v2_that_list_no_process(tmp_path: Path) -> None:
    """Where the tree does not say that a group is threaded, its parent's processes show it: they used its time."""
    machine = WrittenMachine(tmp_path, "")
    machine.group(f"{SCOPE}/libvirt", 4242)
    vm(machine, f"{SCOPE}/libvirt")
    assert sum(machine.groups.values()) == pytest.approx(40.0)
    assert machine.processes[4242] == pytest.approx(40.0)


def test_a_group_whose_members_exited_does_not_join_its_parent(tmp_path: Path) -> None:
    machine = WrittenMachine(tmp_path, "")
    machine.group("/a.service", 7)
    machine.group("/a.service/commands")
    machine.process(7)
    machine.tick()
    for _ in range(10):
        machine.run("/a.service", 7, 0.5)
        machine.used["/a.service/commands"] += 0.5
        machine.tick()
    assert machine.by_path() == {"/a.service": 5.0, "/a.service/commands": 5.0}


def test_groups_below_the_root_keep_their_names(tmp_path: Path) -> None:
    machine = WrittenMachine(tmp_path)
    machine.group("/fast", 7)
    machine.group("/slow", 7)
    machine.process(7)
    machine.tick()
    for _ in range(5):
        machine.run("/fast", 7, 0.5)
        machine.run("/slow", 7, 0.25)
        machine.tick()
    assert machine.by_path() == {"/fast": 2.5, "/slow": 1.25}


def test_a_real_process_with_two_threads_in_two_groups(forest: Forest) -> None:
    """Its own use is all of its container, whichever way the kernel lists it."""
    version = "v2" if forest.counter == "cpu.stat" else "v1"
    for name in ("pod", "pod/vm", "pod/vm/one", "pod/vm/two"):
        forest.make(name)
    file = "tasks" if version == "v1" else "cgroup.threads"
    if version == "v2":
        for name in ("pod/vm/one", "pod/vm/two"):
            Path(forest.path(name), "cgroup.type").write_text("threaded")
    command = [sys.executable, "-c", TWO_THREADS, *(forest.path(f"pod/vm/{name}/{file}") for name in ("one", "two"))]
    with subprocess.Popen(
        ["sh", "-c", 'echo $$ > "$0"; exec "$@"', f"{forest.path('pod/vm')}/cgroup.procs", *command],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    ) as process:  # fmt: skip
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdout.readline()
        key = ProcessKey(process.pid, start_ticks(process.pid))
        ticker = Ticker(Host(cgroupfs=forest.root))
        try:
            ticker.read()
            ticker.read()
            before = ticker.processes[key]
            process.stdin.write("go\n")
            process.stdin.flush()
            process.stdout.readline()
            ticker.full()
            assert ticker.processes[key] - before == pytest.approx(0.8, rel=0.1)
            assert set(ticker.groups) <= {forest.key("pod/vm"), forest.key("")}
        finally:
            ticker.source.close()
            process.kill()
