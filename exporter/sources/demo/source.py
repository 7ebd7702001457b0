"""A simulated GPU node: runs the table of tenants and records the true use of every workload."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from itertools import count
from random import Random
from uuid import UUID

from ...records import (
    HOST,
    Allocation,
    Component,
    CpuUse,
    GpuState,
    GpuUse,
    GroupKey,
    GroupUse,
    Model,
    Process,
    ProcessKey,
    ProcessUse,
    Reading,
    RegionReport,
    Workload,
)
from ...workloads.protocol import Namer
from . import hardware
from .gpu import Board, Holder, allocation
from .hardware import Counters
from .model_servers import Taken, model_servers
from .regions import programs
from .scenario import Tenant, model_of
from .tenants import EXITED_CORES, KERNEL_CORES, TENANTS

_ENDED_NAMES_KEPT = 32
_UPTIME_TICKS = 360_000
"""The node was up for an hour before the start of the simulation."""


class DemoSource(Namer):
    """Meters, uses and names of a simulated node; reproducible for the same ``seed`` and number of steps.

    Time advances in whole steps of ``interval`` seconds from the first `read`, whatever the jitter of ``now``. Joules
    of a device are idle watts × time + watts per busy second × busy seconds, so an attribution by busy seconds with
    the right idle watts yields exactly `truth`. Implements ``Source`` and, for its own groups, ``Namer``.
    """

    name = "demo"

    def __init__(self, interval: float = 1.0, seed: int = 1) -> None:
        self._interval = interval
        self._random = Random(seed)
        self._pids = count(3001, 7)
        self._inodes = count(4242, 13)
        self._first: float | None = None
        self._steps = 0
        self._window = _Window()
        self._groups: dict[Tenant, _Group] = {}
        self._names: dict[GroupKey, tuple[Workload, Model | None]] = {}
        self._ended: deque[GroupKey] = deque()
        self._ended_joules: dict[Component, float] = {"cpu": 0.0, "dram": 0.0, "gpu": 0.0}
        self._boards = [Board(card) for card in hardware.CARDS]
        self._states: tuple[GpuState, ...] = ()
        self._allocations: tuple[Allocation, ...] = ()
        self._servers = {tenant: (server, Taken(server)) for tenant, server in model_servers()}
        self._programs = programs(seed)
        self._counters = Counters(self._random)
        self._start_and_end_tenants(0.0)

    def read(self, now: float) -> Reading:
        """Simulate up to ``now`` (boot-time seconds) and return the use since the last read.

        The first read starts every group at 0; a read before the next step is due has no meters and no use.
        """
        first = self._first is None
        if self._first is None:
            self._first = now
        due = round((now - self._first) / self._interval)
        if due <= self._steps and not first:
            return Reading(gpus=self._states)
        while self._steps < due:
            self._step()
        at = self._first + self._steps * self._interval
        window, self._window = self._window, _Window()
        present = (*self._groups.values(), *window.ended)
        self._states = tuple(state for board in self._boards for state in board.take_states())
        return Reading(
            meters=self._counters.readings(at),
            cpu=window.cpu_use(at, tuple(use for group in present if (use := group.take_cpu()) is not None)),
            socket_busy_seconds=dict(enumerate(window.socket_seconds)),
            gpu_uses=tuple(use for group in present for use in group.take_gpus()),
            gpus=self._states,
            allocations=self._allocations,
            tokens=tuple(
                taken.use(group.processes[0], group.key)
                for tenant, (_, taken) in self._servers.items()
                if (group := self._groups.get(tenant)) is not None
            ),
            regions=RegionReport(
                tuple(
                    program.take(group.processes[0], group.key, at)
                    for tenant, program in self._programs.items()
                    if (group := self._groups.get(tenant)) is not None
                )
            ),
        )

    def close(self) -> None:
        """Nothing is kept open."""

    def workload(self, group: GroupKey) -> Workload:
        """Owner of one of its groups, also for a while after the group ended; `HOST` for any other."""
        return self._names.get(group, (HOST, None))[0]

    def model(self, group: GroupKey | None, process: Process) -> Model | None:  # noqa: ARG002 - one model per group
        """Model that a group runs."""
        return None if group is None else self._names.get(group, (HOST, None))[1]

    def truth(self) -> Mapping[GroupKey | None, Mapping[Component, float]]:
        """True active joules of each running group since the start; under None: the kernel and ended groups."""
        return {None: dict(self._ended_joules)} | {group.key: dict(group.joules) for group in self._groups.values()}

    def _step(self) -> None:
        start, seconds = self._steps * self._interval, self._interval
        self._steps += 1
        self._window.seconds += seconds
        self._start_and_end_tenants(start)
        sockets = [0.0] * hardware.SOCKETS
        for tenant, group in self._groups.items():
            used = tenant.cpu(start) * self._noise() * seconds
            group.seconds += used
            self._burn_cpu(used, tenant.first_socket, sockets, group.joules)
        kernel, exited = (cores * self._noise() * seconds for cores in (KERNEL_CORES, EXITED_CORES))
        self._window.kernel_seconds += kernel
        self._window.exited_seconds += exited
        self._burn_cpu(kernel + exited, 0.5, sockets, self._ended_joules)
        for socket, used in enumerate(sockets):
            self._window.socket_seconds[socket] += used
            self._counters.add(f"package-{socket}", used * hardware.PACKAGE_WATTS_PER_CORE)
            self._counters.add(f"dram-{socket}", used * hardware.DRAM_WATTS_PER_CORE)
        for server, _ in self._servers.values():
            server.step(start, seconds)
        for program in self._programs.values():
            program.step(start, seconds)
        for board in self._boards:
            self._counters.add(board.card.uuid, board.step(start, seconds, self._random))
        self._counters.advance(seconds)

    @staticmethod
    def _burn_cpu(used: float, first_socket: float, sockets: list[float], joules: dict[Component, float]) -> None:
        sockets[0] += used * first_socket
        sockets[1] += used * (1.0 - first_socket)
        joules["cpu"] += used * hardware.PACKAGE_WATTS_PER_CORE
        joules["dram"] += used * hardware.DRAM_WATTS_PER_CORE

    def _noise(self) -> float:
        return self._random.uniform(0.97, 1.03)

    def _start_and_end_tenants(self, time: float) -> None:
        for tenant in TENANTS:
            run = tenant.run(time)
            group = self._groups.get(tenant)
            if group is not None and group.run != run:
                self._end(self._groups.pop(tenant))
                self._allocate()
                group = None
            if group is None and run is not None:
                self._groups[tenant] = self._start(tenant, run, time)
                self._allocate()

    def _allocate(self) -> None:
        """Update the allocations after a pod was started or ended."""
        self._allocations = tuple(
            allocation(card, instance, self._names[group.key][0])
            for tenant, group in self._groups.items()
            for card, instance in tenant.allocated
        )

    def _start(self, tenant: Tenant, run: int, time: float) -> _Group:
        uid = str(UUID(int=self._random.getrandbits(128), version=4))
        texts = {"id": f"{self._random.getrandbits(256):064x}", "uid": uid, "uid_": uid.replace("-", "_"), "run": run}
        key = GroupKey(tenant.path.format(**texts), next(self._inodes))
        ticks = _UPTIME_TICKS + int(time * 100)
        processes = tuple(Process(ProcessKey(next(self._pids), ticks), member.comm) for member in tenant.members)
        own = tenant.owner
        self._names[key] = (
            own._replace(
                pod=own.pod.format(**texts),
                container_id=own.container_id.format(**texts),
                pod_uid=own.pod_uid.format(**texts),
                owner_name=own.owner_name.format(**texts),
                labels=tuple((label, value.format(**texts)) for label, value in own.labels),
            ),
            model_of(tenant),
        )
        self._window.started.append(key)
        group = _Group(tenant, run, key, processes)
        for holder in group.holders:
            self._boards[holder.load.card].holders.append(holder)
        return group

    def _end(self, group: _Group) -> None:
        for holder in group.holders:
            self._boards[holder.load.card].holders.remove(holder)
        for component, joules in group.joules.items():
            self._ended_joules[component] += joules
        self._window.ended.append(group)
        self._ended.append(group.key)
        if len(self._ended) > _ENDED_NAMES_KEPT:
            del self._names[self._ended.popleft()]


class _Group:
    """A group of the simulation: CPU ``seconds`` since they were last taken, ``joules`` since its start."""

    __slots__ = ("holders", "joules", "key", "processes", "run", "seconds", "tenant")

    def __init__(self, tenant: Tenant, run: int, key: GroupKey, processes: tuple[Process, ...]) -> None:
        self.tenant = tenant
        self.run = run
        self.key = key
        self.processes = processes
        self.seconds = 0.0
        self.joules: dict[Component, float] = {"cpu": 0.0, "dram": 0.0, "gpu": 0.0}
        self.holders = [
            Holder(member.gpu, key, process, self.joules)
            for member, process in zip(tenant.members, processes, strict=True)
            if member.gpu is not None
        ]

    def take_cpu(self) -> GroupUse | None:
        """CPU use since it was last taken; None if there was none."""
        seconds, self.seconds = self.seconds, 0.0
        if not seconds:
            return None
        members = zip(self.tenant.members, self.processes, strict=True)
        return GroupUse(
            self.key, seconds, tuple(ProcessUse(process, seconds * member.share) for member, process in members)
        )

    def take_gpus(self) -> list[GpuUse]:
        """GPU use since it was last taken, also of processes that only hold a card."""
        return [holder.take() for holder in self.holders]


class _Window:
    """Use since the last read that the groups do not count themselves."""

    __slots__ = ("ended", "exited_seconds", "kernel_seconds", "seconds", "socket_seconds", "started")

    def __init__(self) -> None:
        self.seconds = 0.0
        self.kernel_seconds = 0.0
        self.exited_seconds = 0.0
        self.socket_seconds = [0.0] * hardware.SOCKETS
        self.started: list[GroupKey] = []
        self.ended: list[_Group] = []

    def cpu_use(self, at: float, groups: tuple[GroupUse, ...]) -> CpuUse:
        """The window as a source reports it."""
        busy = sum(group.seconds for group in groups) + self.kernel_seconds + self.exited_seconds
        return CpuUse(
            at=at,
            window_seconds=self.seconds,
            busy_seconds=busy,
            groups=groups,
            kernel_seconds=self.kernel_seconds,
            exited_seconds=self.exited_seconds,
            started=tuple(self.started),
            ended=tuple(group.key for group in self.ended),
            exited=tuple(process.key for group in self.ended for process in group.processes),
        )
