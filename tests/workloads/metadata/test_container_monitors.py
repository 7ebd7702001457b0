"""Names of containers whose path has only an id or may be numbered, from the process that watches them."""

from __future__ import annotations

import pytest

from exporter.accounting.attribution import Energy
from exporter.config.settings import Settings
from exporter.records import GroupKey, Process, Workload
from exporter.service.assembly import make_explainer
from exporter.workloads.namer import WorkloadNamer
from tests.support.ledger_bench import PACKAGE, Bench, use
from tests.workloads.conftest import WrittenProc

A = "3f4e2a9c8b7d6e5f40312233445566778899aabbccddeeff0011223344556677"
B = "b" * 64
USER = "/user.slice/user-2000.slice/user@2000.service"

# Podman 4.3.1, rootless, conmon 2.1.6: as `make runtimes-check` prints them.
CONMON = ("/usr/bin/conmon", "--api-version", "1", "-c", A, "-u", A, "-r", "/usr/sbin/runc", "-n", "mine",
          "--exit-command-arg", "-n", "-s", "-l", "journald")  # fmt: skip
PODMAN = [
    f"{USER}/user.slice/libpod-{A}.scope",
    f"/libpod_parent/libpod-{A}",
    f"{USER}/app.slice/redis.service/libpod-payload-{A}",
]


def child(proc: WrittenProc, monitor: tuple[str, ...]) -> Process:
    """A process of a container: monitor (60), first process (61), child (62)."""
    proc.add(60, monitor)
    proc.add(61, ["sh", "/spin"], parent=60)
    return proc.add(62, ["sleep", "1"], parent=61)


@pytest.mark.parametrize("path", PODMAN)
def test_a_container_of_podman_has_its_name_without_an_api(proc: WrittenProc, path: str) -> None:
    namer = WorkloadNamer(host=proc.host)
    group, monitor = GroupKey(path, 1), GroupKey(f"{USER}/user.slice/libpod-conmon-{A}.scope", 2)
    assert namer.workload(group).provisional
    assert namer.workload(monitor).provisional
    namer.model(group, child(proc, CONMON))
    assert namer.renamed() == {group, monitor}
    assert namer.workload(group) == Workload(container="mine", runtime="podman", container_id=A)
    assert namer.workload(monitor) == namer.workload(group)
    namer.forget(monitor)
    assert namer.workload(group).container == "mine"
    namer.forget(group)
    assert namer.workload(group).provisional


def test_its_joules_wait_for_the_name_and_have_one_series(proc: WrittenProc) -> None:
    group = GroupKey(PODMAN[0], 1)
    bench = Bench(None, WorkloadNamer(host=proc.host))
    used = use(group, 1.0, (child(proc, CONMON), 1.0))
    bench.tick([used], started=[group], energies=[Energy(PACKAGE, 10.0, 0.0)])
    bench.tick([used], energies=[Energy(PACKAGE, 5.0, 0.0)])
    assert {row.owner: sum(row.joules) for row in bench.ledger.containers()} == {
        Workload(container="mine", runtime="podman", container_id=A): 15.0
    }


def test_explain_finds_it_by_its_name(proc: WrittenProc) -> None:
    process, group = child(proc, CONMON), GroupKey(PODMAN[0], 1)
    settings = Settings(docker_socket="off", podman_socket="off")
    explainer, namer = make_explainer(settings, proc.host, lambda: [(process, group)])
    assert [found.workload.container_id for found in explainer.explain("mine")] == [A]
    namer.close()


@pytest.mark.parametrize(
    "monitor",
    [
        ("/usr/bin/conmon", "-c", B, "-n", "other"),  # a container in a container
        ("/usr/bin/conmon", "-c", A),
        ("vim", "-c", A, "-n", "conmon"),
        ("",),
    ],
)
def test_without_its_monitor_it_keeps_its_id(proc: WrittenProc, monitor: tuple[str, ...]) -> None:
    namer = WorkloadNamer(host=proc.host)
    group = GroupKey(PODMAN[0], 1)
    namer.workload(group)
    process = child(proc, monitor)
    for _ in range(20):
        namer.model(group, process)
    assert namer.renamed() == set()
    assert namer.workload(group) == namer.settled(group) == Workload("", "", A[:12], "podman", A)


def test_an_id_of_an_earlier_run_is_no_name(proc: WrittenProc) -> None:
    namer = WorkloadNamer(host=proc.host)
    group = GroupKey(PODMAN[0], 1)
    namer.remember(namer.settled(group))
    assert namer.workload(group).provisional
    named = WorkloadNamer(host=proc.host)
    named.remember(Workload(container="mine", runtime="podman", container_id=A))
    assert named.workload(group).container == "mine"


# LXC 5.0.2: the group of a container that was killed together with its monitor is left behind.
@pytest.mark.parametrize(
    ("path", "title", "name"),
    [
        ("/lxc.payload.t1-1", "[lxc monitor] /var/lib/lxc t1", "t1"),
        ("/lxc.payload.t1-12/.lxc", "[lxc monitor] /var/lib/lxc t1", "t1"),
        ("/lxc.monitor.101-2", "[lxc monitor] /var/lib/lxc 101", "101"),
        ("/lxc/t1-1/ns", "[lxc monitor] /var/lib/lxc t1", "t1"),
        ("/lxc.payload.web-2", "[lxc monitor] /var/lib/lxc web-2", "web-2"),
        ("/lxc.payload.web-2-1", "[lxc monitor] /var/lib/lxc web-2", "web-2"),
        ("/lxc.payload.t1-1", "[lxc monitor] /var/lib/lxc other", "t1-1"),
        ("/lxc.payload.t1-1", "lxc-start", "t1-1"),
    ],
)
def test_a_numbered_group_of_lxc(proc: WrittenProc, path: str, title: str, name: str) -> None:
    namer = WorkloadNamer(host=proc.host)
    group = GroupKey(path, 1)
    assert namer.workload(group).provisional
    namer.model(group, child(proc, (title,)))
    assert namer.settled(group) == Workload(container=name, runtime="systemd")


@pytest.mark.parametrize("path", ["/lxc.payload.web1", "/system.slice/t1-1.service", "/machine/t1-1.libvirt-lxc"])
def test_other_names_are_known_at_once(proc: WrittenProc, path: str) -> None:
    assert not WorkloadNamer(host=proc.host).workload(GroupKey(path, 1)).provisional
