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


def test_a_hybrid_host_keeps_its_tree_while_the_exporter_runs(tmp_path: Path) -> None:
    """A burst of new groups in the other tree ends no series: names of the other tree come from each process."""
    host = hybrid(tmp_path, 2, 1)
    source = CgroupSource(host)
    first = source.read(0.0).cpu
    hybrid(tmp_path, 2, 9)
    later = [source.read(at).cpu for at in (30.0, 61.0, 130.0)]
    source.close()
    assert first is not None
    assert len(first.started) == 3
    assert [(use.started, use.ended) for use in later if use is not None] == [((), ())] * 3
    assert host.fds.left == 1024


@pytest.mark.parametrize("with_controllers", [True, False])
def test_the_version_of_a_tree_is_known_by_its_content(tmp_path: Path, with_controllers: bool) -> None:
    """netdata/netdata#12595: the cpu controller of v1 has a file cpu.stat too, also in the root."""
    tree = tmp_path / "cpu,cpuacct"
    (tree / "docker").mkdir(parents=True)
    for directory in (tree, tree / "docker"):
        (directory / "cpu.stat").write_text("nr_periods 0\nnr_throttled 0\nthrottled_time 0\n")
        (directory / "cpuacct.usage").write_text("1000000000\n")
        (directory / "cgroup.procs").write_text("")
    assert find_hierarchy(Host(cgroupfs=str(tree))).file == "cpuacct.usage"
    v2 = tmp_path / "v2"
    v2.mkdir()
    (v2 / "cpu.stat").write_text("" if with_controllers else "usage_usec 1\n")
    if with_controllers:
        (v2 / "cgroup.controllers").write_text("cpu\n")
    assert find_hierarchy(Host(cgroupfs=str(v2))).file == "cpu.stat"


def test_a_tree_of_v1_without_cpuacct_counts_nothing(tmp_path: Path) -> None:
    (tmp_path / "cpu.stat").write_text("nr_periods 0\nnr_throttled 0\nthrottled_time 0\n")
    with pytest.raises(Unavailable):
        find_hierarchy(Host(cgroupfs=str(tmp_path)))
