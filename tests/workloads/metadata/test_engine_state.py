"""Containers that only the state directory of their runtime names."""

from __future__ import annotations

import pytest

from exporter.records import HOST, GroupKey, Workload
from exporter.workloads.namer import WorkloadNamer
from tests.workloads.conftest import WrittenProc

A = "3f4e2a9c8b7d6e5f40312233445566778899aabbccddeeff0011223344556677"
TASKS = "run/containerd/io.containerd.runtime.v2.task"


def state(proc: WrittenProc, path: str, text: str | None = None) -> None:
    """A directory of the host, or a file in it."""
    place = proc.root / "1/root" / path
    (place if text is None else place.parent).mkdir(parents=True)
    if text is not None:
        place.write_text(text)


@pytest.mark.parametrize(
    ("path", "directory", "owner"),
    [
        ("/web1", "run/runc/web1", Workload(container="web1", runtime="runc")),
        ("/web1/sub", "run/runc/web1", Workload(container="web1", runtime="runc")),
        ("/web2", "run/crun/web2", Workload(container="web2", runtime="crun")),
        ("/tenant/web1", f"{TASKS}/tenant/web1", Workload(container="web1", runtime="containerd")),
        # runc 1.1.5 on cgroup2, started in /system.slice/a.service and in a session
        ("/system.slice/plain1", "run/runc/plain1", Workload(container="plain1", runtime="runc")),
        ("/user.slice/user-0.slice/plain1/x", "run/runc/plain1", Workload(container="plain1", runtime="runc")),
        ("/a.slice/tenant/web1", f"{TASKS}/tenant/web1", Workload(container="web1", runtime="containerd")),
        ("/user.slice/user-0.slice", "run/runc/user-0.slice", Workload(container="user-0.slice", runtime="systemd")),
        ("/web1", "run/runc/web2", HOST),
        ("/tenant/web1", f"{TASKS}/other/web1", HOST),
        ("/../web1", "run/runc/x", HOST),
        ("/system.slice/a.service", "run/runc/system.slice", Workload(container="a.service", runtime="systemd")),
    ],
)
def test_a_group_that_its_runtime_has_a_directory_for(
    proc: WrittenProc, path: str, directory: str, owner: Workload
) -> None:
    state(proc, directory)
    assert WorkloadNamer(host=proc.host).workload(GroupKey(path, 1)) == owner


def test_without_access_to_the_host_nothing_is_found(proc: WrittenProc) -> None:
    assert WorkloadNamer(host=proc.host).workload(GroupKey("/web1", 1)) == HOST


@pytest.mark.parametrize("path", [f"/default/{A}", f"/system.slice/nerdctl-{A}.scope"])
def test_a_container_of_nerdctl_has_its_name(proc: WrittenProc, path: str) -> None:
    state(proc, "var/lib/nerdctl/1935db59/names/default/web", A)
    found = WorkloadNamer(host=proc.host).workload(GroupKey(path, 1))
    assert found == Workload(container="web", runtime="containerd", container_id=A)


def test_another_containers_name_is_not_taken(proc: WrittenProc) -> None:
    state(proc, "var/lib/nerdctl/1935db59/names/default/web", "b" * 64)
    assert WorkloadNamer(host=proc.host).workload(GroupKey(f"/default/{A}", 1)).container == A[:12]
