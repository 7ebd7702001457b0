"""Whether the processes that a group's use names are all that may have run; if not, its rest is no one's for sure."""

from __future__ import annotations

import dataclasses
import itertools
from pathlib import Path

import pytest

from exporter.records import Listing
from exporter.sources.usage import cgroup_tree
from exporter.sources.usage.cgroups import CgroupSource
from tests.sources.usage.test_cgroups_written import Tree
from tests.support.written_cgroups import WrittenMachine


class Slow:
    """A written tree with one group, in which a scan costs so much that the next ones are put off."""

    def __init__(self, tree: Tree, scan_seconds: float = 0.025) -> None:
        spent = itertools.count(0.0, scan_seconds)
        self.tree, self.now, self.used = tree, 100.0, 1.0
        self.seconds: dict[int, float] = {}
        self._write()
        self.source = CgroupSource(dataclasses.replace(tree.host(), work=lambda: next(spent)))
        self.source.read(self.now)

    def _write(self) -> None:
        for pid, seconds in self.seconds.items():
            self.tree.process(pid, seconds, start=10_000)
        for name in ("app", ""):
            micros = round(self.used * 1e6)
            directory = self.tree.cgroup / name
            directory.mkdir(exist_ok=True)
            (directory / "cpu.stat").write_text(f"usage_usec {micros}\nuser_usec {micros}\nsystem_usec 0\n")
            if not (directory / "cgroup.procs").is_dir():
                (directory / "cgroup.procs").write_text("".join(f"{pid}\n" for pid in self.seconds if name))

    def tick(self, exited: float = 0.0, **used: float) -> tuple[Listing, dict[int, float]]:
        """A second in which processes, by ``pPID``, and ``exited`` ones use CPU time; how the group is reported."""
        for name, seconds in used.items():
            pid = int(name[1:])
            self.seconds[pid] = self.seconds.get(pid, 0.0) + seconds
        self.used += exited + sum(used.values())
        self.now += 1.0
        self._write()
        cpu = self.source.read(self.now).cpu
        assert cpu is not None
        (group,) = (group for group in cpu.groups if group.group.path == "/app")
        return group.listing, {p.process.key.pid: round(p.seconds, 3) for p in group.processes}


def test_a_list_is_late_while_its_scan_is_put_off(tmp_path: Path) -> None:
    """A sidecar that starts meanwhile, and one that slept for so long that it is read with a scan only."""
    slow = Slow(Tree(tmp_path))
    assert slow.tick(p1=0.5, p2=0.01) == ("complete", {1: 0.5, 2: 0.01})
    slow.now += 10.0
    for _ in range(5):
        assert slow.tick(p1=0.5)[0] == "complete"
    assert slow.tick(p1=0.5, exited=0.4) == ("complete", {1: 0.5})  # scanned: the next scan is due in 2.5 s
    assert slow.tick(p1=0.5, p2=0.8) == ("late", {1: 0.5})
    listing, processes = slow.tick(p1=0.5, p2=0.8, p3=0.1)
    assert (listing, set(processes)) == ("late", {1})
    listing, processes = slow.tick(p1=0.5, p2=0.8, p3=0.1)
    assert (listing, set(processes)) == ("complete", {1, 2, 3})
    slow.source.close()


def test_a_process_that_is_found_when_it_has_stopped_is_listed(tmp_path: Path) -> None:
    """What it used was counted in earlier ticks; without it the list would say that nobody else had worked."""
    slow = Slow(Tree(tmp_path))
    assert slow.tick(p1=0.5, exited=0.4)[0] == "complete"
    for _ in range(2):
        assert slow.tick(p1=0.5, p2=0.8) == ("late", {1: 0.5})
    listing, processes = slow.tick(p1=0.5, p2=0.0, exited=0.02)
    assert (listing, set(processes)) == ("complete", {1, 2})
    slow.source.close()


def test_a_list_is_late_while_more_processes_are_new_than_one_tick_may_open(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cgroup_tree, "_PROBES_PER_TICK", 2)
    slow = Slow(Tree(tmp_path), 0.0)
    crowd = {f"p{pid}": 0.1 for pid in range(1, 6)}
    assert [slow.tick(**crowd)[0] for _ in range(3)] == ["late", "late", "complete"]
    slow.source.close()


def test_a_list_that_cannot_be_read_is_partial(tmp_path: Path) -> None:
    slow = Slow(Tree(tmp_path), 0.0)
    assert slow.tick(p1=0.5)[0] == "complete"
    (tmp_path / "cgroup/app/cgroup.procs").unlink()
    (tmp_path / "cgroup/app/cgroup.procs").mkdir()
    assert slow.tick(p1=0.5, exited=0.5)[0] == "partial"
    assert slow.tick(p1=0.5)[0] == "partial"  # of the last scan
    (tmp_path / "cgroup/app/cgroup.procs").rmdir()
    assert slow.tick(p1=0.5, exited=0.5)[0] == "complete"
    slow.source.close()


def test_where_jobs_share_a_counting_group_it_is_not_known_whose_the_exited_ones_were(tmp_path: Path) -> None:
    """Slurm without cpuacct: its daemon and its jobs are counted in the daemon's group."""
    slurmd = "/system.slice/slurmd.service"
    machine = WrittenMachine(tmp_path)
    machine.group(slurmd, 10, 71)
    machine.process(10, f"2:cpuacct:{slurmd}")
    machine.process(71, f"2:cpuacct:{slurmd}\n3:freezer:/slurm/uid_1000/job_7/step_0")
    machine.tick()
    listings = {}
    for worker in (10, 71):
        machine.run(slurmd, worker, 0.5)
        machine.used[slurmd] += 0.25
        listings[worker] = {group.group.path.rpartition("/")[2]: group.listing for group in machine.tick().groups}
    machine.source.close()
    assert listings == {10: {"slurmd.service": "complete"}, 71: {"step_0": "complete", "slurmd.service": "partial"}}
