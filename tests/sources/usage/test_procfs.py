"""CPU use from /proc: sums that agree with the kernel's, on this machine and on written ones."""

from __future__ import annotations

import os
import resource
import shutil
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import pytest

from exporter.host import Host, boot_seconds
from exporter.records import CpuUse, GroupKey, ProcessKey, Unavailable
from exporter.sources.cpu.cpu_times import parse_cpu_times
from exporter.sources.usage.identity import parse_cgroup
from exporter.sources.usage.procfs import ProcfsSource

HERTZ = os.sysconf("SC_CLK_TCK")


class Machine:
    """A written /proc and /sys with two sockets of one CPU each."""

    def __init__(self, root: Path, sockets: int = 2) -> None:
        self.proc, self.sys = root / "proc", root / "sys"
        self.host = Host(str(self.proc), str(self.sys), clock=lambda: 0.0)
        for cpu in range(2):
            topology = self.sys / f"devices/system/cpu/cpu{cpu}/topology"
            topology.mkdir(parents=True)
            (topology / "physical_package_id").write_text(f"{cpu % sockets}\n")
        (self.sys / "devices/system/cpu/online").write_text("0-1\n")
        self.proc.mkdir()
        (self.proc / "uptime").write_text("10.0 20.0\n")
        self.busy(0.0, 0.0)

    def busy(self, first: float, second: float, interrupts: float = 0.0) -> None:
        def fields(seconds: float, softirq: float) -> str:
            return f"{round(seconds * HERTZ)} 0 0 9999 77 0 {round(softirq * HERTZ)} 888 0 0"

        lines = [f"cpu  {fields(first + second, interrupts)}", f"cpu0 {fields(first, interrupts)}"]
        (self.proc / "stat").write_text("\n".join([*lines, f"cpu1 {fields(second, 0)}", "intr 1", ""]))

    def process(self, pid: int, seconds: float, start: int = 100, group: str = "/app", flags: int = 0) -> ProcessKey:
        directory = self.proc / str(pid)
        directory.mkdir(exist_ok=True)
        tail = ["S", "1", "1", "1", "0", "-1", str(flags), *["0"] * 4, str(round(seconds * HERTZ)), *["0"] * 4]
        (directory / "stat").write_text(f"{pid} (worker) {' '.join(tail)} 1 0 0 {start} 0 0\n")
        (directory / "cgroup").write_text(f"0::{group}\n")
        return ProcessKey(pid, start)


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


@pytest.fixture
def source(machine: Machine) -> Iterator[ProcfsSource]:
    made = ProcfsSource(machine.host, processes=True)
    yield made
    made.close()
    assert machine.host.fds.left == 1024


def use(source: ProcfsSource, now: float) -> CpuUse:
    cpu = source.read(now).cpu
    assert cpu is not None
    total = sum(group.seconds for group in cpu.groups) + cpu.kernel_seconds + cpu.exited_seconds + cpu.outside_seconds
    assert cpu.busy_seconds == pytest.approx(total)
    return cpu


def used_by_group(cpu: CpuUse) -> list[tuple[GroupKey, float, list[int]]]:
    return [(g.group, round(g.seconds, 6), sorted(p.process.key.pid for p in g.processes)) for g in cpu.groups]


# --- parsing -----------------------------------------------------------------------------------------------


def test_waiting_and_stolen_time_are_not_busy() -> None:
    raw = b"cpu  100 20 30 9999 8888 5 6 7777 66 55\ncpu0 60 0 0 1 1 0 0 0 0 0\ncpu12 40 20 30 1 1 5 6 0 0 0\nintr 5\n"
    times = parse_cpu_times(raw, 100)
    assert times.busy == pytest.approx(1.61)
    assert times.by_cpu == pytest.approx({0: 0.6, 12: 1.01})
    assert times.interrupts == pytest.approx(0.11)


@pytest.mark.parametrize("raw", [b"", b"intr 5\n", b"cpu  1 2 3\n", b"cpu  a b c d e f g\n"])
def test_what_is_no_stat_file_is_refused(raw: bytes) -> None:
    """Fault 13."""
    with pytest.raises(Unavailable):
        parse_cpu_times(raw, 100)


@pytest.mark.parametrize(
    ("text", "path"),
    [
        ("0::/system.slice/a.service", "/system.slice/a.service"),
        ("4:memory:/m\n3:cpu,cpuacct:/docker/abc\n0::/u", "/docker/abc"),
        ("3:cpuset:/x\n0::/u:with:colons", "/u:with:colons"),
        ("", "/"),
        ("garbage", "/"),
    ],
)
def test_the_path_is_that_of_the_tree_that_counts(text: str, path: str) -> None:
    assert parse_cgroup(text) == path


# --- sockets -----------------------------------------------------------------------------------------------


def test_busy_seconds_per_socket(machine: Machine) -> None:
    source = ProcfsSource(machine.host)
    assert source.read(0.0).socket_busy_seconds == {}
    machine.busy(0.75, 0.25)
    reading = source.read(1.0)
    assert reading.socket_busy_seconds == pytest.approx({0: 0.75, 1: 0.25})
    assert reading.cpu is None
    machine.busy(0.5, 0.5)  # a counter that steps back (CPU hotplug) is no use
    assert source.read(2.0).socket_busy_seconds == pytest.approx({0: 0.0, 1: 0.25})
    source.close()


def test_one_socket_needs_no_telling(tmp_path: Path) -> None:
    machine = Machine(tmp_path, sockets=1)
    source = ProcfsSource(machine.host)
    assert source.read(0.0).socket_busy_seconds == {}
    shutil.rmtree(machine.proc)
    with pytest.raises(Unavailable) as caught:
        source.read(1.0)
    assert caught.value.reason == "not_found"


# --- processes ---------------------------------------------------------------------------------------------


def test_groups_are_made_of_their_processes(machine: Machine, source: ProcfsSource) -> None:
    for pid, group in ((1, "/a"), (2, "/a"), (3, "/b")):
        machine.process(pid, 1.0, group=group)
    kernel = 0x00200000
    machine.process(4, 1.0, flags=kernel, group="/")
    first = use(source, 0.0)
    assert first.busy_seconds == 0.0
    assert set(first.started) == {GroupKey("/a", 0), GroupKey("/b", 0), GroupKey("/", 0)}
    machine.process(1, 1.5, group="/a")
    machine.process(2, 1.1, group="/a")
    machine.process(4, 1.2, flags=kernel, group="/")
    machine.busy(1.0, 0.1, interrupts=0.1)
    second = use(source, 1.0)
    assert used_by_group(second) == [(GroupKey("/a", 0), 0.6, [1, 2])]
    assert second.kernel_seconds == pytest.approx(0.3)
    assert second.exited_seconds == pytest.approx(0.3)
    assert second.window_seconds == 1.0


def test_a_process_whose_group_cannot_be_read_is_not_the_hosts(machine: Machine, source: ProcfsSource) -> None:
    machine.process(1, 1.0, group="/a")
    machine.process(2, 1.0, group="/b")
    (machine.proc / "2/cgroup").unlink()
    assert set(use(source, 0.0).started) == {GroupKey("/a", 0)}
    machine.process(1, 1.5, group="/a")
    machine.process(2, 1.2, group="/b")
    (machine.proc / "2/cgroup").unlink()
    machine.busy(0.7, 0.0)
    found = use(source, 1.0)
    assert used_by_group(found) == [(GroupKey("/a", 0), 0.5, [1])]
    assert found.outside_seconds == pytest.approx(0.2)
    assert found.exited_seconds == 0.0


def test_its_group_is_read_again_and_kept_when_that_fails_later(machine: Machine, source: ProcfsSource) -> None:
    machine.process(2, 1.0, group="/b")
    (machine.proc / "2/cgroup").unlink()
    for now in (0.0, 6.0):
        assert use(source, now).started == ()
    machine.process(2, 1.2, group="/b")
    machine.busy(0.2, 0.0)
    assert use(source, 12.0).started == (GroupKey("/b", 0),)
    machine.process(3, 1.0, group="/c")
    use(source, 13.0)
    machine.process(3, 1.5, group="/c")
    (machine.proc / "3/cgroup").unlink()
    machine.busy(1.7, 0.0)
    last = use(source, 20.0)
    assert last.ended == ()
    assert used_by_group(last) == [(GroupKey("/c", 0), 0.5, [3])]
    shutil.rmtree(machine.proc / "2")
    assert use(source, 21.0).ended == (GroupKey("/b", 0),)


def test_use_that_no_living_process_explains_has_exited(machine: Machine, source: ProcfsSource) -> None:
    """Fault 35."""
    key = machine.process(1, 1.0)
    use(source, 0.0)
    machine.process(1, 1.2)
    machine.busy(0.5, 0.0)
    assert use(source, 1.0).exited_seconds == pytest.approx(0.3)
    shutil.rmtree(machine.proc / "1")
    machine.busy(0.9, 0.0)
    last = use(source, 2.0)
    assert last.exited_seconds == pytest.approx(0.4)
    assert (last.exited, last.ended) == ((key,), (GroupKey("/app", 0),))
    assert use(source, 3.0).exited == ()


def test_no_process_has_exited_for_lack_of_a_descriptor(machine: Machine, source: ProcfsSource) -> None:
    """Fault 60: without a list of processes there is no reading, and the next one covers both ticks."""
    machine.process(1, 1.0)
    use(source, 0.0)
    machine.process(1, 1.5)
    machine.busy(0.5, 0.0)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (0, hard))
    try:
        with pytest.raises(Unavailable) as caught:
            source.read(1.0)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert caught.value.reason == "error"
    later = use(source, 2.0)
    assert used_by_group(later) == [(GroupKey("/app", 0), 0.5, [1])]
    assert (later.window_seconds, later.started, later.ended, later.exited) == (2.0, (), (), ())


def test_a_reused_pid_inherits_nothing(machine: Machine, source: ProcfsSource) -> None:
    """Fault 34."""
    old = machine.process(1, 5.0)
    use(source, 10.0)
    new = machine.process(1, 0.4, start=1050)
    machine.busy(0.5, 0.0)
    seen = [use(source, 11.0)]
    assert used_by_group(seen[0]) == [(GroupKey("/app", 0), 0.4, [1])]
    machine.process(1, 0.9, start=1050)
    machine.busy(1.0, 0.0)
    seen.append(use(source, 12.0))
    assert [key for cpu in seen for key in cpu.exited] == [old]
    assert {p.process.key for cpu in seen for g in cpu.groups for p in g.processes} <= {new}
    assert sum(cpu.busy_seconds for cpu in seen) == pytest.approx(1.0)
    assert not {key for cpu in seen for key in cpu.ended} - {key for cpu in seen for key in cpu.started}


def test_a_process_seen_between_fork_and_exec_is_read_again(machine: Machine, source: ProcfsSource) -> None:
    """It had its parent's name and group then."""
    machine.process(1, 1.0, group="/engine")
    use(source, 0.0)
    machine.process(1, 1.0, group="/container")
    moved = use(source, 6.0)
    assert (moved.started, moved.ended) == ((GroupKey("/container", 0),), (GroupKey("/engine", 0),))
    machine.process(1, 1.5, group="/container")
    machine.busy(0.5, 0.0)
    assert used_by_group(use(source, 7.0)) == [(GroupKey("/container", 0), 0.5, [1])]


def test_this_machine(tmp_path: Path) -> None:
    """A worker's seconds are those of its own clock, busy seconds those of /proc/stat, its exit is reported once."""
    source = ProcfsSource(Host(), processes=True)
    script = "import sys, time\nfor line in sys.stdin:\n    end = time.process_time() + 0.05\n"
    script += "    while time.process_time() < end: pass\n    print(time.process_time(), flush=True)\n"
    seconds: defaultdict[int, float] = defaultdict(float)
    exited: list[int] = []
    busy = 0.0
    with subprocess.Popen(
        [sys.executable, "-S", "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as worker:
        assert worker.stdin is not None
        assert worker.stdout is not None
        clocks = []
        before = 0.0
        for _ in range(8):
            worker.stdin.write("\n")
            worker.stdin.flush()
            clocks.append(float(worker.stdout.readline()))
            cpu = use(source, boot_seconds())
            before = before or parse_cpu_times(Path("/proc/stat").read_bytes(), HERTZ).busy
            busy += cpu.busy_seconds
            for group in cpu.groups:
                assert sum(process.seconds for process in group.processes) <= group.seconds + 1e-9
                for process in group.processes:
                    seconds[process.process.key.pid] += process.seconds
        after = parse_cpu_times(Path("/proc/stat").read_bytes(), HERTZ).busy
        worker.stdin.close()
    for _ in range(2):
        exited += [key.pid for key in use(source, boot_seconds()).exited]
        time.sleep(0.01)
    source.close()
    # 2 hundredths: should this machine have more processes than descriptors, stat files are read.
    assert seconds[worker.pid] == pytest.approx(clocks[-1] - clocks[0], abs=0.021)
    assert exited.count(worker.pid) == 1
    # Its own clocks count what ran between two scheduler ticks, /proc/stat samples: some 10 ms per CPU and read. They
    # also count what a hypervisor took away meanwhile, which /proc/stat leaves out.
    assert busy >= (after - before) * 0.5
    assert busy <= 2 * (after - before) + 8 * 0.02 * (os.cpu_count() or 1)
