"""A ledger whose names are made of the group's path, and shorthand for one tick of it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping

from exporter.accounting.accounts import Account
from exporter.accounting.attribution import CpuIdle, Energy, share
from exporter.accounting.ledger import Ledger, Limits
from exporter.accounting.period import Period
from exporter.records import (
    Component,
    CpuUse,
    Device,
    GpuUse,
    GroupKey,
    GroupUse,
    Listing,
    Model,
    Process,
    ProcessKey,
    ProcessUse,
    Workload,
)
from exporter.workloads.protocol import Namer

PACKAGE = Device("package-0", "cpu", "rapl", "measured", "package-0", 4.0)
DRAM = Device("dram-0", "dram", "rapl", "measured", "dram", 4.0)
GPU = Device("GPU-1", "gpu", "nvml", "measured", "gpu", 1.0)


class PathNames(Namer):
    """``/docker/x`` is container x; a process called ``serve-M`` works for model M."""

    def workload(self, group: GroupKey) -> Workload:
        name = group.path.rpartition("/")[2]
        return Workload(container=name, runtime="docker", container_id=f"{name}-{group.inode}")

    def model(self, group: GroupKey | None, process: Process) -> Model | None:
        verb, _, name = process.comm.partition("-")
        return Model(name, "", "inference", "test") if verb == "serve" else None


class Bench:
    """A ledger and a clock that ticks once a second."""

    def __init__(self, limits: Limits | None = None, namer: Namer | None = None) -> None:
        self.ledger = Ledger(namer or PathNames(), limits)
        self.node_joules: defaultdict[Component, float] = defaultdict(float)
        self.now = 0.0

    def tick(
        self,
        groups: Iterable[GroupUse] = (),
        *,
        energies: Iterable[Energy] = (),
        kernel: float = 0.0,
        started: Iterable[GroupKey] = (),
        ended: Iterable[GroupKey] = (),
        exited: Iterable[ProcessKey] = (),
        gpu_uses: Iterable[GpuUse] = (),
        seconds: float = 1.0,
        cpu_idle: CpuIdle = "node",
        cpu_weights: Mapping[GroupKey, float] | None = None,
    ) -> list[Account]:
        self.now += seconds
        groups, energies, uses = tuple(groups), list(energies), self.ledger.located(list(gpu_uses))
        busy = sum(group.seconds for group in groups) + kernel
        cpu = CpuUse(self.now, seconds, busy, groups, kernel, 0.0, tuple(started), tuple(ended), tuple(exited))
        metered = frozenset(energy.device.component for energy in energies)
        for energy in energies:
            self.node_joules[energy.device.component] += energy.joules
        shares = share(energies, cpu, uses, cpu_idle, cpu_weights=cpu_weights)
        period = Period.of(self.now, seconds, metered, {"cpu": 4.0, "gpu": 1.0}, shares.cpu)
        return self.ledger.post(period, shares, cpu=cpu, gpu_uses=uses)

    def container_joules(self) -> dict[str, float]:
        return {
            row.owner.container: sum(row.joules) for row in self.ledger.containers() if isinstance(row.owner, Workload)
        }

    def error_ratio(self) -> float:
        """Largest relative difference between the devices' joules and the ledger's, published or not."""
        state = self.ledger.state()
        sums: defaultdict[Component, float] = defaultdict(float, state.retired)
        for (component, _), joules in state.unattributed.items():
            sums[component] += joules
        for account in state.accounts:
            if isinstance(account.owner, Workload):
                for (component, _), joules in account.joules.items():
                    sums[component] += joules
        return max((abs(sums[key] - joules) / (joules or 1.0) for key, joules in self.node_joules.items()), default=0.0)


def group(name: str, inode: int = 1) -> GroupKey:
    return GroupKey(f"/docker/{name}", inode)


def process(pid: int, comm: str = "worker", start: int = 1) -> Process:
    return Process(ProcessKey(pid, start), comm)


def use(key: GroupKey, seconds: float, *processes: tuple[Process, float], listing: Listing = "complete") -> GroupUse:
    return GroupUse(key, seconds, tuple(ProcessUse(*item) for item in processes), listing)
