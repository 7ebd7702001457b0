"""Which cgroup tree is read: v2, v1 or the fuller one of a hybrid host."""

from __future__ import annotations

from pathlib import Path

import pytest

from exporter.host import Host
from exporter.records import Unavailable
from exporter.sources.usage.cgroup_tree import find_hierarchy
from exporter.sources.usage.cgroups import CgroupSource


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
    """All groups of the one tree end, those of the other start, and nothing is attributed twice."""
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
