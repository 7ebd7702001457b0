"""``python -m benchmarks.names [MINUTES]``: what names and allocations cost the whole exporter in memory, under churn.

A node of 110 pods in real cgroups, with processes; then 1,000 new pods a minute, of which 30 live at a time. Three
exporters watch it: one without names, one that asks an API server over TLS, one that asks the kubelet's PodResources
socket besides.
"""

from __future__ import annotations

import contextlib
import itertools
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator, Mapping
from pathlib import Path

from tests.support import fake_kubelet as kubelet
from tests.support.fake_kubernetes_api import Pod
from tests.support.kubernetes_node import NAMESPACE, Node
from tests.support.live import Tree

from . import groups
from .native import CannotMeasure
from .table import show, verdict

PODS = 110
LIVING = 30
PODS_EACH_MINUTE = 1000
CARDS = 8
GOAL_MIB = 70.0

WORK = ("/bin/sh", "-c", "while sleep 1; do :; done")
"""What runs in every container: a shell that starts a process each second."""

_PORTS = {"without": 19401, "names": 19402, "names and PodResources": 19403}


def main(minutes: float = 4.0) -> None:
    """Run all three, print the table. Raises `CannotMeasure` where no cgroups can be made."""
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        node = stack.enter_context(_node(folder))
        socket = stack.enter_context(_kubelet(folder)).path
        quiet = ["--log.level=error", f"--path.pod-resources={folder}/none"]
        named = [*node.flags, *quiet]
        flags = {
            "without": [*named, "--kubernetes.names=off"],
            "names": named,
            "names and PodResources": [*named, f"--path.pod-resources={socket}"],
        }
        pids = {what: stack.enter_context(_exporter(_PORTS[what], flags[what])) for what in _PORTS}
        rows = _measure(node, pids, minutes)
    show(
        f"Resident MiB of the exporter: {PODS} pods, then {PODS_EACH_MINUTE:,} new ones a minute",
        ("minute", "pods seen", "series", *_PORTS),
        rows,
    )
    print(f"goal: {GOAL_MIB:g} MiB at most on a node of {PODS} pods: {verdict(float(rows[0][-1]) <= GOAL_MIB)}")


def _measure(node: Node, pids: Mapping[str, int], minutes: float) -> list[tuple[str, ...]]:
    time.sleep(60)  # what is done every minute was done, and sandboxes are the pods'
    rows: list[tuple[str, ...]] = []
    living: list[Pod] = []
    began = time.monotonic()
    for number in itertools.count():
        passed = (time.monotonic() - began) / 60
        if passed >= len(rows):
            lines = [_scrape(port) for port in _PORTS.values()][-1]
            resident = [f"{_resident(pid):.1f}" for pid in pids.values()]
            rows.append((str(len(rows)), f"{PODS + number:,}", f"{lines:,}", *resident))
        if passed >= minutes:
            return rows
        pod = node.pod(f"job-{number}", owner=("Job", f"job-{number}"))
        for container in ("main", "pause"):
            (node.tree.root / node.group(pod, container)).mkdir(parents=True)
        node.server.add(pod)
        living.append(pod)
        if len(living) > LIVING:
            gone = living.pop(0)
            node.server.delete(gone["metadata"]["uid"])
            node.tree.remove(node.group(gone).rpartition("/")[0])
        node.server.forget_events(1000)
        time.sleep(max(0.0, (number + 1) * 60 / PODS_EACH_MINUTE - (time.monotonic() - began)))
    raise AssertionError("numbers do not end")


@contextlib.contextmanager
def _node(folder: Path) -> Iterator[Node]:
    """A node with its pods: two containers each, and the sandbox."""
    with groups.subtree("ai-energy-names") as root:
        node = Node(folder, Tree(root))
        try:
            for number in range(PODS):
                pod = node.pod(f"pod-{number}", "main", "proxy", owner=("ReplicaSet", f"app-{number}"))
                for container in ("main", "proxy", "pause"):
                    node.run(pod, container, command=WORK if container != "pause" else ("/bin/sleep", "infinity"))
                node.server.add(pod)
            yield node
        finally:
            node.close()
            node.tree.remove()


@contextlib.contextmanager
def _kubelet(folder: Path) -> Iterator[kubelet.Kubelet]:
    """A kubelet that gave each card to a pod."""
    made = kubelet.Kubelet(kubelet.Messages(folder), folder / "kubelet.sock")
    for number in range(PODS):
        cards = [f"GPU-{number:08d}-0000-0000-0000-000000000000"] if number < CARDS else []
        made.pods.append(kubelet.pod(NAMESPACE, f"pod-{number}", "main", *cards))
    made.start()
    try:
        yield made
    finally:
        made.stop()


@contextlib.contextmanager
def _exporter(port: int, flags: list[str]) -> Iterator[int]:
    """Pid of a running exporter."""
    command = [sys.executable, "-m", "exporter", f"--web.listen-address=127.0.0.1:{port}", *flags]
    with subprocess.Popen(command) as process:
        try:
            yield process.pid
        finally:
            process.terminate()


def _scrape(port: int) -> int:
    """How many series there are."""
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=30) as answer:
        return sum(1 for line in answer if not line.startswith(b"#"))


def _resident(pid: int) -> float:
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text(encoding="ascii").splitlines():
        if line.startswith("Rss:"):
            return int(line.split()[1]) / 1024
    raise ValueError("no Rss")


if __name__ == "__main__":
    try:
        main(*map(float, sys.argv[1:]))
    except CannotMeasure as reason:
        sys.exit(f"cannot measure here: {reason}")
