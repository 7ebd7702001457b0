"""The node of the soak: real processes in real cgroups, written meters, a scripted driver, an API server over TLS."""

from __future__ import annotations

import contextlib
import itertools
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import NamedTuple

from benchmarks import groups
from tests.support.fake_kubernetes_api import Pod
from tests.support.kubernetes_node import Node
from tests.support.live import Exporter, Tree
from tests.support.nvml.control import FakeDriver, Gpu
from tests.support.patience import wait_for

from .background import again

GPU_WATTS = 200.0
GPUS = 2
ALIVE = 6
"""Workloads that live at the same time, besides those that come and go at once."""

NAMES = 8
"""Pods come back under so many names, as those of a StatefulSet do; plain containers never come back."""

EVENTS_KEPT = 50
_STEP_SECONDS = 0.1
_LONGEST_STEP_SECONDS = 0.2
"""If this process does not run for longer, the cards idled: no real counter makes up for it in one step."""


class Workload(NamedTuple):
    """One that lives: its cgroup, its process, the card it uses, and its pod; a plain container has none."""

    group: str
    pid: int
    gpu: Gpu | None
    pod: Pod | None


class Site:
    """What the exporters watch. `started` counts the workloads so far; ``problems`` is what went wrong with it."""

    def __init__(self, folder: Path, tree: Tree, driver: FakeDriver, container_max: int, process_top: int) -> None:
        self._container_max = container_max
        self._process_top = process_top
        self.folder = folder
        self.tree = tree
        self.driver = driver
        self.gpus = [driver.add_gpu() for _ in range(GPUS)]
        self.node = Node(folder, tree)
        self.settings = folder / "settings.yaml"
        self.started = 0
        self.problems: list[str] = []
        self.lock = threading.Lock()
        """Held while workloads come and go, because the tree is not made for several threads."""
        self._alive: deque[Workload] = deque()
        self._pods: dict[str, Pod] = {}
        self._numbers = itertools.count()
        self._turns = itertools.count()
        self.write_settings()

    def exporter(self, state: str) -> Exporter:
        """Start an exporter that watches this node, with a state file of this name."""
        return Exporter(
            *self.node.flags,
            f"--config.file={self.settings}",
            f"--state.file={self.folder / state}",
            "--state.interval=1s",
            f"--container.max={self._container_max}",
            f"--path.pod-resources={self.folder / 'no-kubelet.sock'}",
            environment=self.driver.environment(),
        )

    def write_settings(self, more: int = 0) -> None:
        """The settings file, which may be changed while they run: ``more`` processes are shown than else."""
        self.settings.write_text(f"process:\n  top: {self._process_top + more}\n", encoding="utf-8")

    def joules(self) -> dict[str, float]:
        """True joules so far, by device."""
        package, dram = self.node.meters
        return {
            "package-0": package.joules(),
            "dram-0": dram.joules(),
            **{gpu.uuid: gpu.energy_joules for gpu in self.gpus},
        }

    def pods(self) -> list[Pod]:
        """Those that run; call it with the lock held."""
        return list(self._pods.values())

    # --- coming and going -----------------------------------------------------------------------------

    def start(self, pod_name: str = "", gpu: Gpu | None = None) -> Workload:
        """Start a pod of this name, or a plain container, and let it use a card."""
        number = next(self._numbers)
        with self.lock:
            pod = self.node.pod(pod_name, attempt=number) if pod_name else None
            group = self.node.group(pod) if pod else groups.container(number)
            process = self.tree.start(group)
            procs = self.tree.root / group / "cgroup.procs"
            wait_for(procs.read_text, f"a process in {group}")
            if pod is not None:
                self._pods[pod["metadata"]["uid"]] = pod
                self.node.server.add(pod)
                self.node.server.forget_events(EVENTS_KEPT)
            if gpu is not None:
                gpu.process(process.pid, memory_bytes=1 << 30)
            self.started += 1
        return Workload(group, process.pid, gpu, pod)

    def end(self, workload: Workload) -> None:
        """End one, and remove its cgroup."""
        with self.lock:
            if workload.gpu is not None:
                workload.gpu.end(workload.pid)
            if workload.pod is not None:
                uid = workload.pod["metadata"]["uid"]
                del self._pods[uid]
                self.node.server.delete(uid)
            self.tree.remove(workload.group)

    def burst(self, count: int) -> None:
        """Start containers and end them at once, so that cgroups are gone in the middle of whatever reads them."""
        for workload in [self.start() for _ in range(count)]:
            self.end(workload)

    @contextlib.contextmanager
    def living(self, every_seconds: float, card_every: int) -> Iterator[None]:
        """Let a workload come and the oldest one go, again and again, and let the cards burn.

        One workload of ``card_every`` uses a card.
        """
        come_and_go = partial(self._turn_over, card_every)
        with again(come_and_go, every_seconds, self.problems), again(self._burner(), _STEP_SECONDS, self.problems):
            yield

    def _turn_over(self, card_every: int) -> None:
        turn = next(self._turns)
        gpu = self.gpus[turn // card_every % GPUS] if turn % card_every == 0 else None
        born = self.start("" if turn % 2 else f"trainer-{turn // 2 % NAMES}", gpu)
        self._alive.append(born)
        if len(self._alive) > ALIVE:
            self.end(self._alive.popleft())

    def _burner(self) -> Callable[[], None]:
        last = time.monotonic()

        def burn() -> None:
            nonlocal last
            now, stamp = time.monotonic(), time.time_ns() // 1000
            for gpu in self.gpus:
                gpu.power_watts = GPU_WATTS
                gpu.energy_joules += GPU_WATTS * min(now - last, _LONGEST_STEP_SECONDS)
                for workload in list(self._alive):
                    if workload.gpu is gpu:
                        gpu.sample(workload.pid, 50, timestamp_us=stamp)
                        stamp += 1
            last = now

        return burn

    def left_behind(self) -> list[int]:
        """Processes that still have the driver: none, once all exporters ended."""
        name = bytes(self.driver.path)
        found = []
        for environ in Path("/proc").glob("[0-9]*/environ"):
            with contextlib.suppress(OSError):
                if name in environ.read_bytes():
                    found.append(int(environ.parent.name))
        return found

    def close(self) -> None:
        """End it all."""
        self.node.close()
