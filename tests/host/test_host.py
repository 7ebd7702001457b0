"""The door to files: what the kernel may say, what it costs in descriptors, and clocks."""

from __future__ import annotations

import errno
import os
import resource
import subprocess
import sys
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from exporter.host import (
    FdBudget,
    Host,
    boot_seconds,
    count_cpus,
    cpu_list,
    list_dir,
    parse_counter,
    read_file,
    unavailable,
)
from exporter.records import REASONS, Unavailable
from tests.support.repository import REPOSITORY

PAGE = os.sysconf("SC_PAGE_SIZE")


# --- counters ----------------------------------------------------------------------------------------------


@given(st.integers(0, 2**63 - 1))
def test_a_counter_is_a_decimal_number(value: int) -> None:
    assert parse_counter(f"{value}\n".encode(), "energy_uj") == value


@pytest.mark.parametrize(
    "raw",
    [
        *(b"", b"\n", b"abc", b"-1\n", b"1.5\n", b"0x10", b"1\0", b" 1", b"1 2", b"9" * 30),
        *("١\n".encode(), b"9223372036854775808\n", b"18446744073709551615\n"),
    ],
)
def test_everything_else_is_implausible(raw: bytes) -> None:
    """Fault 13."""
    with pytest.raises(Unavailable) as caught:
        parse_counter(raw, "energy_uj")
    assert caught.value.reason == "implausible"
    assert "energy_uj" in caught.value.message


@pytest.mark.parametrize(
    ("number", "reason"),
    [
        (errno.ENOENT, "not_found"),
        (errno.ENODEV, "not_found"),
        (errno.ESRCH, "not_found"),
        (errno.ELOOP, "not_found"),
        (errno.EACCES, "permission"),
        (errno.EPERM, "permission"),
        (errno.EIO, "driver"),
        (errno.EINVAL, "driver"),
        (errno.ENODATA, "driver"),
        (errno.ETIMEDOUT, "timeout"),
        (errno.EMFILE, "error"),
        (errno.ENOMEM, "error"),
    ],
)
def test_every_errno_has_a_reason(number: int, reason: str) -> None:
    """Faults 10, 11, 12."""
    error = unavailable(OSError(number, os.strerror(number)), "/sys/x")
    assert error.reason == reason
    assert error.reason in REASONS
    assert "/sys/x" in error.message
    assert bool(error.fix) == (reason == "permission")


# --- files -------------------------------------------------------------------------------------------------


def test_a_kept_file_shows_what_is_written_later(tmp_path: Path) -> None:
    for fds in (1, 0):
        host = Host(fds=FdBudget(fds))
        path = tmp_path / f"counter-{fds}"
        path.write_text("1\n")
        file = host.keep(str(path))
        assert host.fds.left == 0
        assert file.counter() == 1
        path.write_text("22\n")
        assert (file.counter(), file.read(), file.read_all()) == (22, b"22\n", b"22\n")
        file.close()
        file.close()
        assert host.fds.left == fds


def test_a_file_larger_than_a_chunk_is_read_whole(tmp_path: Path) -> None:
    content = bytes(range(256)) * 300
    (tmp_path / "big").write_bytes(content)
    for fds in (1, 0):
        file = Host(fds=FdBudget(fds)).keep(str(tmp_path / "big"))
        assert file.read_all(chunk=1000) == content
        file.close()
    assert read_file(str(tmp_path / "big")) == content
    assert read_file(str(tmp_path / "big"), 10) == content[:10]


def test_what_is_not_there_is_unavailable(tmp_path: Path) -> None:
    """Fault 10: a dangling link is a file that is not there."""
    (tmp_path / "dangling").symlink_to("nowhere")
    (tmp_path / "loop").symlink_to("loop")
    host = Host(fds=FdBudget(3))
    for name in ("missing", "dangling", "loop"):
        path = str(tmp_path / name)
        for read in (host.keep, host.text, host.counter, read_file, list_dir):
            with pytest.raises(Unavailable) as caught:
                read(path)
            assert caught.value.reason == "not_found"
    assert host.fds.left == 3
    by_path = Host(fds=FdBudget(0)).keep(str(tmp_path / "missing"))
    with pytest.raises(Unavailable):
        by_path.read()


def test_text_is_stripped_and_never_fails_to_decode(tmp_path: Path) -> None:
    (tmp_path / "name").write_bytes(b" package-0\xff\0\n")
    assert Host().text(str(tmp_path / "name")) == "package-0\ufffd"


def test_the_budget_leaves_descriptors_for_sockets() -> None:
    """Fault 60: with 64 allowed, half of them may be kept open; a low soft limit is raised to the hard one."""
    script = "from exporter.host import FdBudget; import resource; "
    script += "print(FdBudget.of_process().left, *resource.getrlimit(resource.RLIMIT_NOFILE))"
    told = []
    for soft, hard in ((64, 64), (64, 4096)):
        limited = subprocess.run(
            ["sh", "-c", f'ulimit -Sn {soft}; ulimit -Hn {hard}; exec "$@"', "sh", sys.executable, "-c", script],
            cwd=REPOSITORY,
            capture_output=True,
            text=True,
            check=True,
        )
        told.append(limited.stdout.split())
    assert told == [["32", "64", "64"], [str(4096 - 640), "4096", "4096"]]
    assert resource.getrlimit(resource.RLIMIT_NOFILE)[0] > 64


def test_a_budget_never_gives_more_than_it_has() -> None:
    budget = FdBudget(2)
    assert [budget.take() for _ in range(3)] == [True, True, False]
    budget.release()
    assert (budget.take(), budget.left) == (True, 0)
    assert FdBudget(-5).left == 0


# --- the machine -------------------------------------------------------------------------------------------


@given(st.sets(st.integers(0, 4096), min_size=1))
def test_cpu_lists_are_the_kernels(cpus: set[int]) -> None:
    ranges: list[list[int]] = []
    for cpu in sorted(cpus):
        if ranges and ranges[-1][1] == cpu - 1:
            ranges[-1][1] = cpu
        else:
            ranges.append([cpu, cpu])
    text = ",".join(f"{first}-{last}" if first != last else str(first) for first, last in ranges)
    assert cpu_list(text) == sorted(cpus)
    assert count_cpus(text) == len(cpus)


@pytest.mark.parametrize("text", ["", "x", "-", "1,x"])
def test_what_is_no_cpu_list_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        count_cpus(text)


def test_cpus_are_counted_from_sys_or_stat(tmp_path: Path) -> None:
    host = Host(str(tmp_path / "proc"), str(tmp_path / "sys"))
    assert host.cpu_count() == (os.cpu_count() or 1)
    (tmp_path / "proc").mkdir()
    (tmp_path / "proc/stat").write_text("cpu  1\ncpu0 1\ncpu1 1\ncpu2 1\nintr 5\n")
    assert host.cpu_count() == 3
    online = tmp_path / "sys/devices/system/cpu/online"
    online.parent.mkdir(parents=True)
    online.write_text("0-3,8\n")
    assert host.cpu_count() == 5
    online.write_text("\n")
    assert host.cpu_count() == 3


def test_clocks_go_on_through_suspend() -> None:
    """Faults 50, 51: boot time, not the wall clock."""
    assert abs(boot_seconds() - float(Path("/proc/uptime").read_text().split()[0])) < 1
    assert boot_seconds() >= time.monotonic() - 1
    assert Host().clock is boot_seconds


def test_the_boot_is_known_or_not(tmp_path: Path) -> None:
    """Fault 54."""
    assert Host().boot_id() == Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    assert Host(procfs=str(tmp_path)).boot_id() == ""


def memory(root: Path, cgroup: str, **limits: str) -> float | None:
    """Memory ratio of a process with 30 pages resident; ``limits`` by path with dots for slashes."""
    (root / "proc/self").mkdir(parents=True)
    (root / "proc/self/statm").write_text("100 30 5 1 0 9 0\n")
    (root / "proc/self/cgroup").write_text(cgroup)
    for path, value in limits.items():
        file = (
            root
            / "sys/fs/cgroup"
            / path.replace("__", "/").replace("_max", ".max").replace("_limit", ".limit_in_bytes")
        )
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(value)
    return Host(str(root / "proc"), str(root / "sys")).memory_ratio()


def test_memory_is_compared_with_the_smallest_limit_above(tmp_path: Path) -> None:
    """Fault 59: a pod's limit counts for its containers."""
    ratio = memory(tmp_path, "0::/pod/app\n", pod__app__memory_max="max\n", pod__memory_max=f"{60 * PAGE}\n")
    assert ratio == pytest.approx(0.5)


def test_memory_limits_of_v1(tmp_path: Path) -> None:
    """Fault 59: inside a container the path of its group is not there, the limit stands at the root."""
    unlimited = f"{2**63 - PAGE}\n"
    ratio = memory(
        tmp_path,
        "5:memory:/docker/abc\n0::/\n",
        memory__memory_limit=f"{40 * PAGE}\n",
        memory__docker__memory_limit=unlimited,
    )
    assert ratio == pytest.approx(0.75)


def test_no_limit_is_no_ratio(tmp_path: Path) -> None:
    assert memory(tmp_path / "a", "0::/\n", memory_max="max\n") is None
    assert memory(tmp_path / "b", "garbage\n") is None
    assert Host(str(tmp_path / "c"), str(tmp_path / "c")).memory_ratio() is None
