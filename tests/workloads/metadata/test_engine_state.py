"""Containers that only the state directory of their runtime names."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator

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


class Opened:
    """Counts the files in a folder that are opened to be read, by Python's audit events; hooks cannot be removed."""

    def __init__(self) -> None:
        self.folder = ""
        self.paths: list[str] = []
        sys.addaudithook(self._hook)

    def _hook(self, event: str, arguments: tuple[object, ...]) -> None:
        if event != "open" or not self.folder or not isinstance(arguments[2], int):
            return
        if arguments[2] & os.O_ACCMODE == os.O_RDONLY and str(arguments[0]).startswith(self.folder):
            self.paths.append(str(arguments[0]))


OPENED = Opened()


@pytest.fixture
def opened() -> Iterator[Opened]:
    """Nothing is counted until the test sets the folder."""
    OPENED.paths.clear()
    yield OPENED
    OPENED.folder = ""


def test_each_name_of_nerdctl_is_read_once(proc: WrittenProc, opened: Opened) -> None:
    """200 containers, as many without a name, and one that starts later."""
    names = proc.root / "1/root/var/lib/nerdctl/1935db59/names/default"
    names.mkdir(parents=True)
    ids = {f"web-{number}": f"{number:064x}" for number in range(200)}
    for name, container_id in ids.items():
        (names / name).write_text(container_id)
    opened.folder = f"{names}/"
    namer = WorkloadNamer(host=proc.host)
    found = {namer.workload(GroupKey(f"/default/{one}", 1)).container for one in ids.values()}
    for number in range(200, 400):
        assert namer.workload(GroupKey(f"/default/{number:064x}", 1)).container == f"{number:064x}"[:12]
    assert found == set(ids)
    assert len(opened.paths) == 200
    (names / "late").write_text(A)
    os.utime(names, ns=(1, 1))
    assert namer.workload(GroupKey(f"/default/{A}", 1)).container == "late"
    assert opened.paths[200:] == [f"{names}/late"]


def test_a_name_of_nerdctl_that_is_just_being_written_is_read_again(proc: WrittenProc) -> None:
    names = proc.root / "1/root/var/lib/nerdctl/1935db59/names/default"
    names.mkdir(parents=True)
    (names / "web").write_text("")
    namer = WorkloadNamer(host=proc.host)
    assert namer.workload(GroupKey(f"/default/{'b' * 64}", 1)).container == "b" * 12
    (names / "web").write_text(A)
    assert namer.workload(GroupKey(f"/default/{A}", 1)).container == "web"


def test_a_name_of_nerdctl_that_is_given_again_is_the_new_containers(proc: WrittenProc) -> None:
    names = proc.root / "1/root/var/lib/nerdctl/1935db59/names/default"
    names.mkdir(parents=True)
    (names / "web").write_text("b" * 64)
    namer = WorkloadNamer(host=proc.host)
    assert namer.workload(GroupKey(f"/default/{'b' * 64}", 1)).container == "web"
    (names / "new").write_text(A)
    (names / "new").rename(names / "web")
    os.utime(names, ns=(1, 1))
    assert namer.workload(GroupKey(f"/default/{A}", 1)).container == "web"


def test_the_name_of_nerdctl_takes_precedence_over_a_restored_one(proc: WrittenProc) -> None:
    state(proc, "var/lib/nerdctl/1935db59/names/default/web", A)
    namer = WorkloadNamer(host=proc.host)
    namer.remember(Workload(container="before-rename", runtime="containerd", container_id=A))
    assert namer.workload(GroupKey(f"/default/{A}", 1)).container == "web"


def test_another_containers_name_is_not_taken(proc: WrittenProc) -> None:
    state(proc, "var/lib/nerdctl/1935db59/names/default/web", "b" * 64)
    assert WorkloadNamer(host=proc.host).workload(GroupKey(f"/default/{A}", 1)).container == A[:12]
