"""Processes by pid and start time: real ones of every awkward kind, and stat lines as a kernel could write them."""

from __future__ import annotations

import ctypes
import hashlib
import os
import resource
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from exporter.host import FdBudget, Host, boot_seconds
from exporter.records import ProcessKey, Unavailable
from exporter.sources.usage.process_clock import ProcessTable, parse_stat

HERTZ = os.sysconf("SC_CLK_TCK")
EVER = float("inf")

NAMED = """
import ctypes, sys
ctypes.CDLL(None).prctl(15, bytes.fromhex(sys.argv[1]), 0, 0, 0)  # PR_SET_NAME
print(flush=True)
sys.stdin.read()
"""


def stat_line(pid: int, comm: str, *, ticks: int = 0, start: int = 5, flags: int = 0, state: str = "S") -> bytes:
    tail = [state, "1", "1", "1", "0", "-1", str(flags), *["0"] * 4, str(ticks), "0", "0", "0", "20", "0", "1", "0"]
    return f"{pid} ({comm}) {' '.join(tail)} {start} 0 0\n".encode("utf-8", "surrogateescape")


@pytest.fixture
def table() -> Iterator[ProcessTable]:
    made = ProcessTable(Host())
    yield made
    made.close()


@pytest.fixture
def child() -> Iterator[subprocess.Popen[bytes]]:
    made = subprocess.Popen(["sleep", "60"])
    yield made
    made.kill()
    made.wait()


# --- stat lines --------------------------------------------------------------------------------------------


@given(
    comm=st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=64),
    ticks=st.integers(0, 2**40),
)
def test_the_name_ends_at_the_last_parenthesis(comm: str, ticks: int) -> None:
    """Fault 44: whatever a process calls itself, the numbers after it are found."""
    process, seconds = parse_stat(stat_line(77, comm, ticks=ticks, start=1234), HERTZ)
    assert (process.key, process.comm, process.kernel) == (ProcessKey(77, 1234), comm, False)
    assert seconds == pytest.approx(ticks / HERTZ)


def test_a_name_that_is_no_utf8_is_still_a_name() -> None:
    """Fault 45."""
    line = stat_line(1, "a\udcffb")
    assert parse_stat(line, HERTZ)[0].comm == "a\ufffdb"


def test_kernel_threads_are_recognised_by_their_flag() -> None:
    assert parse_stat(stat_line(2, "kthreadd", flags=0x00208040), HERTZ)[0].kernel


@pytest.mark.parametrize("raw", [b"", b"garbage", b"1 (a", b"1 (a) S 1", b"x" + stat_line(1, "a"), b"\0" * 100])
def test_anything_else_is_refused(raw: bytes) -> None:
    """Fault 13."""
    with pytest.raises(Unavailable) as caught:
        parse_stat(raw, HERTZ)
    assert caught.value.reason == "implausible"


# --- real processes ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [b"a) R 1 (b", b"two words", b"new\nline", b"))))((((", b"\xff\xfe"])
def test_a_real_process_with_a_hostile_name(table: ProcessTable, name: bytes) -> None:
    """Fault 44."""
    command = [sys.executable, "-S", "-E", "-c", NAMED, name.hex()]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        tracked = table.follow(process.pid, EVER)
        assert tracked is not None
        assert tracked.process.comm == name.decode("utf-8", "replace")
        assert tracked.process.key.pid == process.pid
        assert abs(tracked.process.key.start_ticks / HERTZ - boot_seconds()) < 30


def test_every_thread_counts(table: ProcessTable) -> None:
    tracked = table.follow(os.getpid(), EVER)
    assert tracked is not None
    table.used(tracked)
    began = time.process_time()
    work = [threading.Thread(target=hashlib.pbkdf2_hmac, args=("sha256", b"x", b"y", 60_000)) for _ in range(3)]
    for thread in work:
        thread.start()
    for thread in work:
        thread.join()
    assert table.used(tracked) == pytest.approx(time.process_time() - began, abs=0.005)
    assert time.process_time() - began > 0.03


def test_what_a_process_used_before_counts_only_if_it_was_born_since(table: ProcessTable) -> None:
    born = boot_seconds()
    script = "import time\nwhile time.process_time() < 0.1: pass\nprint(flush=True)\nimport sys; sys.stdin.read()"
    command = [sys.executable, "-S", "-c", script]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        new = table.follow(process.pid, born)
        assert new is not None
        assert (table.used(new) or 0.0) >= 0.1
        table.forget(new)
        old = table.follow(process.pid, boot_seconds() + 1)
        assert old is not None
        assert (table.used(old) or 0.0) < 0.05


def test_an_exit_is_noticed_before_anybody_waits_and_once(table: ProcessTable, child: subprocess.Popen[bytes]) -> None:
    """A zombie uses nothing and is not followed again; its pid cannot be reused unnoticed (fault 34)."""
    tracked = table.follow(child.pid, EVER)
    assert tracked is not None
    assert table.exited() == []
    child.kill()
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    assert table.exited() == [tracked]
    assert table.exited(thorough=True) == []
    assert table.follow(child.pid, EVER) is None
    assert table.find(child.pid) is None
    assert len(table) == 0


def test_exits_are_noticed_without_descriptors_too(child: subprocess.Popen[bytes]) -> None:
    """Fault 60: with none to spare, a process is checked again only if ``thorough``."""
    host = Host(fds=FdBudget(0))
    table = ProcessTable(host)
    tracked = table.follow(child.pid, EVER)
    assert tracked is not None
    assert table.used(tracked) == 0.0
    child.kill()
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    assert table.exited() == []
    assert table.exited(thorough=True) == [tracked]
    assert table.exited(thorough=True) == []
    child.wait()
    assert table.used(tracked) is None
    table.close()
    assert host.fds.left == 0


def test_a_process_unreadable_for_lack_of_a_descriptor_has_not_exited(child: subprocess.Popen[bytes]) -> None:
    """Fault 60: the limit is reached by other code in this process."""
    table = ProcessTable(Host(fds=FdBudget(0)))
    tracked = table.follow(child.pid, EVER)
    assert tracked is not None
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (0, hard))
    try:
        used, exited = table.used(tracked), table.exited(thorough=True)
        table.rename(tracked)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert (used, exited, table.find(child.pid)) == (0.0, [], tracked)
    child.kill()
    child.wait()
    assert table.used(tracked) is None
    assert table.exited(thorough=True) == [tracked]
    table.close()


def test_a_new_name_is_read_on_request(table: ProcessTable) -> None:
    """A process that was seen between fork and exec carries its parent's name."""
    with subprocess.Popen(["sh", "-c", "read x; exec sleep 60"], stdin=subprocess.PIPE) as process:
        tracked = table.follow(process.pid, EVER)
        assert tracked is not None
        assert tracked.process.comm == "sh"
        assert process.stdin is not None
        process.stdin.write(b"go\n")
        process.stdin.flush()
        for _ in range(500):
            table.rename(tracked)
            if tracked.process.comm == "sleep":
                break
            time.sleep(0.005)
        assert tracked.process.comm == "sleep"
        process.kill()


def test_everything_is_given_back() -> None:
    host = Host()
    before = len(os.listdir("/proc/self/fd"))
    table = ProcessTable(host)
    children = [subprocess.Popen(["sleep", "60"]) for _ in range(5)]
    for process in children:
        assert table.follow(process.pid, EVER) is not None
    assert host.fds.left == 1024 - 5
    children[0].kill()
    children[0].wait()
    assert len(table.exited()) == 1
    table.close()
    assert (host.fds.left, len(os.listdir("/proc/self/fd"))) == (1024, before)
    for process in children:
        process.kill()
        process.wait()


class CloneArgs(ctypes.Structure):
    """``struct clone_args`` of clone3(2)."""

    _fields_ = tuple(
        (name, ctypes.c_uint64)
        for name in (
            *("flags", "pidfd", "child_tid", "parent_tid", "exit_signal", "stack", "stack_size", "tls"),
            *("set_tid", "set_tid_size"),
        )
    )


def spawn_as(pid: int) -> int:
    """Fork a sleeping process that has this pid (clone3 with set_tid). Raises OSError."""
    libc = ctypes.CDLL(None, use_errno=True)
    wanted = ctypes.c_int(pid)
    args = CloneArgs(exit_signal=signal.SIGCHLD, set_tid=ctypes.addressof(wanted), set_tid_size=1)
    got: int = libc.syscall(435, ctypes.byref(args), ctypes.sizeof(args))
    if got == 0:
        while True:
            signal.pause()
    if got < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return got


@pytest.mark.parametrize("fds", [100, 0], ids=["pidfd", "stat"])
def test_a_reused_pid_is_another_process(fds: int) -> None:
    """Fault 34: the kernel gives the same pid to a new process, which has used less."""
    table = ProcessTable(Host(fds=FdBudget(fds)))
    old = subprocess.Popen([sys.executable, "-S", "-c", "import sys; sys.stdin.read()"], stdin=subprocess.PIPE)
    time.sleep(0.05)  # long enough for a later start tick
    first = table.follow(old.pid, 0.0)
    assert first is not None
    table.used(first)
    old.communicate()
    try:
        pid = spawn_as(old.pid)
    except OSError as error:
        pytest.skip(f"no process with a chosen pid can be made here: {error}")
    try:
        gone = table.exited(thorough=True)
        assert gone == [first]
        second = table.follow(pid, EVER)
        assert second is not None
        assert second.process.key.pid == first.process.key.pid
        assert second.process.key.start_ticks > first.process.key.start_ticks
        assert table.used(first) is None or fds
        assert table.used(second) == pytest.approx(0.0, abs=0.01)
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        table.close()


# --- another machine's /proc -------------------------------------------------------------------------------


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., None]:
    def call(pid: int, **fields: object) -> None:
        directory = tmp_path / str(pid)
        directory.mkdir(exist_ok=True)
        (directory / "stat").write_bytes(stat_line(pid, "worker", **fields))  # type: ignore[arg-type]

    return call


def test_a_written_tree_is_read_from_stat_files(tmp_path: Path, write: Callable[..., None]) -> None:
    """Fault 34: a clock that runs backward, or another start time, is another process."""
    host = Host(procfs=str(tmp_path))
    table = ProcessTable(host)
    assert not table.native
    write(7, ticks=100, start=50)
    tracked = table.follow(7, EVER)
    assert tracked is not None
    write(7, ticks=130, start=50)
    assert table.used(tracked) == pytest.approx(30 / HERTZ)
    write(7, ticks=129, start=50)  # user and system time are rounded one by one
    assert table.used(tracked) == 0.0
    write(7, ticks=20, start=50)
    assert table.used(tracked) is None
    write(7, ticks=500, start=51)
    assert table.used(tracked) is None
    assert table.exited() == []
    assert table.exited(thorough=True) == [tracked]
    table.close()
    assert host.fds.left == 1024


def test_a_zombie_main_thread_is_alive_while_others_run(tmp_path: Path, write: Callable[..., None]) -> None:
    table = ProcessTable(Host(procfs=str(tmp_path)))
    write(7, state="Z")
    assert table.follow(7, EVER) is None
    line = stat_line(8, "worker", state="Z").replace(b" 20 0 1 0 ", b" 20 0 3 0 ")
    (tmp_path / "8").mkdir()
    (tmp_path / "8/stat").write_bytes(line)
    assert table.follow(8, EVER) is not None
    table.close()
