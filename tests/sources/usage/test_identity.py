"""Identity of a process where its manager made no group in the tree that counts CPU time."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from exporter.records import GroupKey
from exporter.sources.usage.identity import identity_path, parse_cgroup, unified_path
from exporter.sources.usage.pid_lookup import PidResolver
from exporter.sources.usage.procfs import ProcfsSource
from exporter.workloads.namer import WorkloadNamer
from tests.support.written_cgroups import WrittenMachine

SLURMD = "/system.slice/slurmd.service"


def slurm(job: int) -> str:
    """Lines of a task of Slurm with jobacct_gather/linux: treydock/cgroup_exporter#15."""
    step = f"/slurm/uid_1000/job_{job}/step_0"
    return "\n".join(
        (
            f"12:cpu,cpuacct:{SLURMD}",
            f"11:freezer:{step}",
            *(f"{n}:{name}:{step}/task_0" for n, name in ((10, "cpuset"), (9, "memory"), (8, "devices"))),
            f"1:name=systemd:{SLURMD}",
            "0::/",
        )
    )


STEP = "/slurm_vm/uid_0/job_1/step_0"

# As `make runtimes-check` printed them: Slurm 22.05.8 without systemd, cgroup v1.
SLURM_WITH_CPUACCT = (
    f"6:freezer:{STEP}\n4:memory:{STEP}/task_0\n3:cpuset:{STEP}\n2:cpuacct:{STEP}/task_0\n1:cpu:/\n0::/"
)
SLURM_WITHOUT = (
    f"9:name=systemd:/\n6:freezer:{STEP}\n4:memory:/process_api/0\n3:cpuset:{STEP}\n2:cpuacct:/\n1:cpu:/\n0::/"
)
RUNC = "9:name=systemd:/web1\n4:memory:/process_api/0/web1\n2:cpuacct:/web1\n0::/web1"


@pytest.mark.parametrize(
    ("counting", "text", "path"),
    [
        (f"{STEP}/task_0", SLURM_WITH_CPUACCT, f"{STEP}/task_0"),
        ("/", SLURM_WITHOUT, f"{STEP}\0/process_api/0"),
        ("/web1", RUNC, "/web1\0/process_api/0/web1"),
        (SLURMD, slurm(7), f"{SLURMD}\0/slurm/uid_1000/job_7/step_0/task_0"),
        ("/", "6:freezer:/slurm_vm/uid_1/job_4/step_0\n2:cpuacct:/\n0::/", "/slurm_vm/uid_1/job_4/step_0"),
        ("/", "2:cpuacct:/\n1:name=systemd:/system.slice/ssh.service\n0::/system.slice/ssh.service",
         "/system.slice/ssh.service"),
        ("/system.slice/a.service", "4:devices:/system.slice\n0::/system.slice/a.service", "/system.slice/a.service"),
        ("/docker/x", "4:memory:/docker/x\n3:cpuacct:/docker/x\n1:name=systemd:/docker/x/init.scope",
         "/docker/x/init.scope"),
        ("/docker/x", "3:cpuacct:/../x\n1:name=systemd:/../x", "/docker/x"),
        ("/docker/x", "3:cpuacct:/\n1:name=systemd:/", "/docker/x"),
        ("/a", "2:cpuacct:/a\n1:name=systemd:/b/x:c\u2028d", "/a\0/b/x:c\u2028d"),
        ("/docker/x", "5:memory:/batch\n3:cpuacct:/docker/x\n0::/other", "/docker/x"),
        ("/", "3:cpuacct:/\n1:name=systemd:/payload", "/payload"),
        ("/a", "2:cpuacct:/a\n1:name=systemd:/a (deleted)", "/a"),
        ("/a", "", "/a"),
        ("/a", "garbage\n::\n:::", "/a"),
    ],
)  # fmt: skip
def test_the_paths_that_say_more_than_the_counting_one(counting: str, text: str, path: str) -> None:
    assert identity_path(counting, text) == path


def test_the_counting_path_of_each_version() -> None:
    assert parse_cgroup(slurm(7)) == SLURMD
    assert unified_path("4:cpuacct:/a\n0::/b") == "/b"
    assert unified_path("4:cpuacct:/a") == "/"


A = "3f4e2a9c8b7d6e5f40312233445566778899aabbccddeeff0011223344556677"
OTHER_TREES = "8:pids:{0}\n7:blkio:{0}\n6:freezer:{0}\n5:devices:{0}\n3:cpuset:{0}\n2:cpuacct:{0}\n1:cpu:{0}\n"

# As `make runtimes-check` printed them on 2026-11-28, on a hybrid host without systemd: lines of memory, name=systemd
# and cgroup2, path of all others, and the row.
REAL = {
    "Docker 20.10.24": (f"/docker/{A}", f"/docker/{A}", f"/docker/{A}", "docker", A[:12]),
    "Docker 20.10.24, --cgroup-parent ml.slice": (
        f"/process_api/0/ml.slice/{A}", f"/ml.slice/{A}", f"/ml.slice/{A}", "unknown", A[:12],
    ),
    "Podman 4.3.1": (*[f"/libpod_parent/libpod-{A}"] * 3, "podman", A[:12]),
    "Podman 4.3.1, conmon 2.1.6": ("/libpod_parent/conmon", "/", "/libpod_parent/conmon", "host", "host"),
    "Podman 4.3.1, a step of a build": (*["/buildah-buildah2248002461"] * 3, "podman", "buildah"),
    "LXC 5.0.2": (*["/lxc.payload.t1"] * 3, "systemd", "t1"),
    "LXC 5.0.2, lxc.cgroup.dir": (*["/team-a/t3/lxc.payload.t3"] * 3, "systemd", "t3"),
    "systemd-nspawn 252 --register=no --keep-unit": ("/process_api/0", "/payload", "/", "host", "host"),
    "systemd-nspawn 252 --boot": (
        "/process_api/0", "/system.slice/booted.service/payload/system.slice/one.service", "/",
        "systemd", "booted.service",
    ),
}  # fmt: skip


@pytest.mark.parametrize("runtime", REAL)
def test_the_row_of_a_real_process(runtime: str) -> None:
    memory, named, others, row, container = REAL[runtime]
    text = f"9:name=systemd:{named}\n4:memory:{memory}\n{OTHER_TREES.format(others)}0::{named}"
    owner = WorkloadNamer().workload(GroupKey(identity_path(parse_cgroup(text), text), 0))
    assert (owner.runtime, owner.container) == (row, container)


def job_key(job: int) -> GroupKey:
    return GroupKey(f"{SLURMD}\0/slurm/uid_1000/job_{job}/step_0/task_0", 0)


def test_jobs_without_cpuacct_groups_are_told_apart_by_process(tmp_path: Path) -> None:
    machine = WrittenMachine(tmp_path)
    machine.group(SLURMD, 100, 101, 90)
    for pid, text in ((100, slurm(7)), (101, slurm(8)), (90, f"12:cpu,cpuacct:{SLURMD}\n1:name=systemd:{SLURMD}")):
        machine.process(pid, text)
    assert set(machine.tick().started) >= {job_key(7), job_key(8)}
    for _ in range(4):
        for pid, seconds in ((100, 0.6), (101, 0.2), (90, 0.1)):
            machine.run(SLURMD, pid, seconds)
        machine.used[SLURMD] += 0.05  # of short commands that nobody saw
        machine.tick()
    assert machine.by_path() == {job_key(7).path: 2.4, job_key(8).path: 0.8, SLURMD: 0.6}
    shutil.rmtree(tmp_path / "proc/100")
    del machine.seconds[100]
    machine.members[SLURMD].remove(100)
    assert job_key(7) in machine.tick(11.0).ended
    assert job_key(8) not in machine.ended


def test_a_process_of_the_root_group_has_the_identity_of_its_other_lines(tmp_path: Path) -> None:
    """A hybrid host: systemd's units are groups of cgroup2 only, jobs of Slurm of v1 only; neither vanishes."""
    machine = WrittenMachine(tmp_path)
    (tmp_path / "sys/fs/cgroup/unified").mkdir(parents=True)
    (tmp_path / "sys/fs/cgroup/unified/cpu.stat").write_text("usage_usec 0\n")
    machine.group("/slurm/uid_1/job_6", 101)
    machine.group("/", 100, 102)
    machine.process(100, "2:cpuacct:/\n0::/system.slice/ssh.service")
    machine.process(101, "2:cpuacct:/slurm/uid_1/job_6\n0::/system.slice/slurmd.service")
    machine.process(102, "2:cpuacct:/\n0::/")
    machine.tick()
    for _ in range(3):
        machine.run("/", 100, 0.3)
        machine.run("/slurm/uid_1/job_6", 101, 0.5)
        machine.run("/", 102, 0.1)
        machine.tick()
    assert machine.by_path() == {
        "/system.slice/ssh.service": 0.9,
        "/slurm/uid_1/job_6\0/system.slice/slurmd.service": 1.5,
        "/": 0.3,
    }


def test_the_same_host_read_in_cgroup2_has_the_same_names(tmp_path: Path) -> None:
    machine = WrittenMachine(tmp_path, "unified")
    v1 = tmp_path / "sys/fs/cgroup/cpuacct"
    v1.mkdir(parents=True)
    (v1 / "cpuacct.usage").write_text("0\n")
    machine.group("/system.slice/ssh.service", 100)
    machine.group("/system.slice/slurmd.service", 101)
    machine.process(100, "2:cpuacct:/\n0::/system.slice/ssh.service")
    machine.process(101, "2:cpuacct:/slurm/uid_1/job_6\n0::/system.slice/slurmd.service")
    machine.tick()
    machine.run("/system.slice/ssh.service", 100, 0.25)
    machine.run("/system.slice/slurmd.service", 101, 0.5)
    machine.tick()
    assert machine.by_path() == {
        "/system.slice/ssh.service": 0.25,
        "/system.slice/slurmd.service\0/slurm/uid_1/job_6": 0.5,
    }
    assert PidResolver(machine.host).find(101, 1.0) is not None


def test_a_process_that_its_manager_moves_later_is_looked_at_again(tmp_path: Path) -> None:
    """slurmstepd forks a task before it moves it into the job's groups."""
    machine = WrittenMachine(tmp_path)
    machine.group(SLURMD, 100)
    machine.process(100, f"12:cpuacct:{SLURMD}")
    machine.tick()
    machine.process(100, slurm(7))
    for _ in range(70):
        machine.run(SLURMD, 100, 0.1)
        machine.tick()
    assert machine.by_path()[job_key(7).path] > 0.9
    assert [key for key in machine.started if key.inode == 0] == [job_key(7)]


def test_users_of_a_gpu_have_the_same_identity(tmp_path: Path) -> None:
    machine = WrittenMachine(tmp_path)
    machine.group(SLURMD, 100)
    machine.process(100, slurm(7))
    machine.tick()
    found = PidResolver(machine.host).find(100, 1.0)
    assert found is not None
    assert found.group == job_key(7)
    machine.process(101, "2:cpuacct:/")
    machine.tick()
    found = PidResolver(machine.host).find(101, 1.0)
    assert found is not None
    assert found.group is not None
    assert (found.group.path, found.group.inode > 0) == ("/", True)


def test_processes_without_readable_cgroups_have_it_too(tmp_path: Path) -> None:
    machine = WrittenMachine(tmp_path)
    machine.process(100, slurm(7))
    machine.tick()
    (tmp_path / "proc/stat").write_text("cpu  0 0 0 0 0 0 0\ncpu0 0 0 0 0 0 0 0\n")
    use = ProcfsSource(machine.host, processes=True).read(1.0).cpu
    assert use is not None
    assert use.started == (job_key(7),)


def test_users_of_a_gpu_are_named_without_readable_cgroups(tmp_path: Path) -> None:
    machine = WrittenMachine(tmp_path)
    machine.process(100, slurm(7))
    machine.tick()
    shutil.rmtree(tmp_path / "sys")
    resolver = PidResolver(machine.host)
    found = resolver.find(100, 1.0)
    assert found is not None
    assert found.group == job_key(7), "the key that the processes of /proc have"
    (tmp_path / "proc/100/cgroup").unlink()
    found = resolver.find(100, 20.0)
    assert found is not None
    assert found.group is None
